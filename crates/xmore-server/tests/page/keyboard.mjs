// Checks with the keyboard alone, and of what a screen reader is told.

import { answered, check, column, expect, open, same } from "./harness.mjs";

/** Presses Tab from the skip link until the focus has left the page; the ids that had it, and those that showed no outline. */
async function tour(page, most = 250) {
  const stops = [];
  const unseen = [];
  await page.locator("#skip").focus();
  for (let i = 0; i < most; i++) {
    if (i > 0) await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return null;
      const style = getComputedStyle(element);
      return { id: element.id || element.textContent.trim(), seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 };
    });
    if (stop === null) return { stops, unseen, left: true };
    if (stops[0] === stop.id) return { stops, unseen, left: true };
    stops.push(stop.id);
    if (!stop.seen) unseen.push(stop.id);
  }
  return { stops, unseen, left: false };
}

export async function keyboard({ browser, base }) {
  const { page, context, watch } = await open(browser, base);
  const focus = (id) => page.locator(id).focus();

  await check("keyboard: the first Tab is on the skip link", async () => {
    await page.keyboard.press("Tab");
    expect((await page.evaluate(() => document.activeElement.id)) === "skip", "expected the skip link first");
  });

  await check("keyboard: Enter on the offer gives an answer", async () => {
    await focus("#try");
    await answered(page, () => page.keyboard.press("Enter"));
  });

  await check("keyboard: Tab reaches everything in order, shows where it is, and gets out again", async () => {
    const { stops, unseen, left } = await tour(page);
    expect(left, "expected Tab to leave the page at its end");
    const wanted = ["skip", "theme", "choose", "random", "labels", "label-set", "method", "k", "copy-link", "search-text", "search-images", "search-go", "find-similar"];
    const found = stops.filter((id) => wanted.includes(id));
    expect(same(found, wanted), `expected ${wanted.join(" ")}, found ${stops.join(" ")}`);
    expect(unseen.length === 0, `no visible focus on ${unseen.join(", ")}`);
    return `${stops.length} stops`;
  });

  await check("keyboard: the skip link moves the focus and leaves the address alone", async () => {
    await focus("#skip");
    const address = page.url();
    await page.keyboard.press("Enter");
    expect((await page.evaluate(() => document.activeElement.id)) === "results", "expected the focus on the answer");
    expect(page.url() === address, "expected the same address");
  });

  await check("keyboard: arrows move K and choose the method, Space presses buttons", async () => {
    await answered(page, async () => {
      await page.selectOption("#method", "captions");
    });
    const before = await column(page, 1);
    await focus("#k");
    await answered(page, () => page.keyboard.press("Home"));
    expect(!same(before, await column(page, 1)), "expected other bars");
    await focus("#theme");
    const pressed = await page.getAttribute("#theme", "aria-pressed");
    await page.keyboard.press("Space");
    expect((await page.getAttribute("#theme", "aria-pressed")) !== pressed, "expected Space to press the button");
  });

  await check("keyboard: Enter searches, a result is taken over, the focus goes to the answer", async () => {
    await focus("#search-text");
    await page.keyboard.type("a house");
    await page.keyboard.press("Enter");
    await page.locator("#found li button").first().waitFor();
    await page.locator("#found li button").first().focus();
    await answered(page, () => page.keyboard.press("Enter"));
    expect((await page.evaluate(() => document.activeElement.id)) === "results", "expected the focus on the answer");
  });

  await check("screen reader: landmarks, names, table and live region are there", async () => {
    const roles = [
      ["banner"], ["main"], ["contentinfo"], ["search", "Search the memory"], ["textbox", "Labels"], ["combobox", "Method"], ["combobox", "Use a list"],
      ["slider", /Captions kept/], ["button", "Dark theme"], ["button", "Choose another"], ["button", "Copy link"], ["searchbox", /Words/],
      ["radio", "images"], ["radio", "captions"], ["table", /Score of each label/], ["columnheader", "Image alone"], ["columnheader", "Captions alone"],
      ["columnheader", "Final"], ["region", "Answer"], ["heading", "Which is trusted"], ["heading", "Captions found"], ["link", "HTTP API"],
    ];
    for (const [role, name] of roles) {
      const count = await page.getByRole(role, { name, exact: typeof name === "string" }).count();
      expect(count === 1, `expected one ${role} named ${name}, found ${count}`);
    }
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, select, textarea")]
        .filter((element) => element.checkVisibility())
        .filter((element) => !(element.ariaLabel || element.labels?.length || element.textContent.trim()))
        .map((element) => element.id),
    );
    expect(nameless.length === 0, `without a name: ${nameless.join(", ")}`);
    expect((await page.locator("img:not([alt])").count()) === 0, "expected an alternative text for every image");
    await page.waitForFunction(() => document.getElementById("announce").textContent.length > 20);
    expect((await page.locator("#preview img, img#preview").getAttribute("alt")).length > 5, "expected the preview to be described");
  });

  await check("keyboard: no errors on the way", () => expect(watch.problems.length === 0, watch.problems.join("; ")));
  await context.close();

  await check("less motion is respected", async () => {
    const calm = await open(browser, base, { reducedMotion: "reduce" });
    await answered(calm.page, () => calm.page.click("#try"));
    const moving = await calm.page.locator(".bar i").first().evaluate((bar) => getComputedStyle(bar).transitionDuration);
    expect(moving === "0s", `expected no transition, found ${moving}`);
    await calm.context.close();
  });
}
