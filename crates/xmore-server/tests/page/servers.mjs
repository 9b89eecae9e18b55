// Checks against other servers: one that wants a key, one that has no memory.

import { answered, check, drop, expect, open } from "./harness.mjs";

export async function keyed({ browser, base, image, shot, key }) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const dialog = page.locator("#key-dialog");

  await check("a server with a key: a dialog asks for it, and refuses a wrong one", async () => {
    await page.goto(base);
    await dialog.waitFor();
    expect((await page.evaluate(() => document.activeElement.id)) === "key", "expected the focus in the field");
    await shot(page, "key-dialog");
    await page.keyboard.type("not the key");
    await page.keyboard.press("Enter");
    await dialog.filter({ hasText: "not accepted" }).waitFor();
  });

  await check("a server with a key: Escape closes the dialog and the page says what is missing", async () => {
    await page.keyboard.press("Escape");
    await page.locator("#problem").waitFor();
    expect(await dialog.isHidden(), "expected the dialog to be closed");
  });
  if (!key) return context.close();

  await check("a server with a key: with it everything works, thumbnails too, and it is kept for the tab only", async () => {
    await page.reload();
    await dialog.waitFor();
    await page.keyboard.type(key);
    await page.keyboard.press("Enter");
    await page.locator("body[data-ready=true]").waitFor();
    await answered(page, () => drop(page, image.bytes, image.type));
    await page.locator("#captions li").first().scrollIntoViewIfNeeded();
    await page.waitForFunction(() => [...document.querySelectorAll("#captions .thumb")].some((thumb) => thumb.classList.contains("no-image") || thumb.querySelector("img").naturalWidth > 0));
    await page.reload();
    await page.locator("body[data-ready=true]").waitFor();
    expect(await dialog.isHidden(), "expected no second question in this tab");
    const stored = await page.evaluate(() => JSON.stringify({ ...localStorage }));
    expect(!stored.includes(key), "expected the key not to be stored for good");
  });
  await context.close();
}

export async function withoutMemory({ browser, base, image, shot }) {
  await check("a server without a memory: the image alone answers and the page says why", async () => {
    const { page, context, watch } = await open(browser, base);
    expect(await page.locator("#search").isHidden(), "expected no search");
    expect(await page.locator("#try").isHidden(), "expected no random image");
    expect(await page.locator("#empty-alone").isVisible(), "expected the reason");
    await answered(page, () => drop(page, image.bytes, image.type));
    expect(await page.locator("#k-field").isHidden(), "expected no K");
    expect(await page.locator("#captions-card").isHidden(), "expected no captions");
    expect(await page.locator("#no-memory").isVisible(), "expected the reason");
    expect(!(await page.locator("th.of-captions").isVisible()), "expected no column of captions");
    await shot(page, "without-memory");
    expect(watch.problems.length === 0, watch.problems.join("; "));
    await context.close();
  });
}
