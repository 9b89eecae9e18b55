// Checks of what the page is for: images in, labels, bars, captions, K, method, links, search.

import { answered, check, column, drop, expect, isUpload, open, recordUploads, same, table } from "./harness.mjs";

const LABELS = ["dog", "red circle", "boat", "house"];

export async function answering({ browser, base, image, shot }) {
  const { page, context, watch } = await open(browser, base, { permissions: ["clipboard-read", "clipboard-write"] });
  const type = (text) => page.fill("#labels", text);

  await check("the empty page explains itself and offers a random image", async () => {
    expect(await page.locator("#empty .lead").isVisible(), "expected the explanation, found nothing");
    expect(await page.locator("#try").isVisible(), "expected the offer of a random image");
    await shot(page, "empty-light");
  });

  await check("a random image of the memory is answered by its id, without an upload", async () => {
    await answered(page, () => page.click("#try"));
    const asked = watch.asked.filter((request) => request.url().endsWith("/v1/classify"));
    expect(asked.length > 0 && !asked.some(isUpload), "expected classifications by id only, found an upload");
    expect(Number.isInteger(asked.at(-1).postDataJSON().image.id), "expected an id in the request");
  });

  await check("a dropped image is sent as its very bytes and answered with bars and captions", async () => {
    await type(LABELS.join("\n"));
    const asked = watch.asked.length;
    await recordUploads(page);
    await answered(page, () => drop(page, image.bytes, image.type));
    expect(watch.asked.slice(asked).some(isUpload), "expected an upload");
    const bytes = await page.evaluate(async () => [...new Uint8Array(await window.uploads.at(-1).arrayBuffer())]);
    expect(Buffer.from(bytes).equals(image.bytes), `expected the file's ${image.bytes.length} bytes, found ${bytes.length} others`);
    const rows = await table(page);
    expect(same(rows.map((row) => row.label), [...LABELS].sort()), `expected a row for each label, found ${rows.map((row) => row.label)}`);
    expect(rows.every((row) => row.texts.every((text) => /\d/.test(text))), "expected a number in every cell");
    for (const i of [0, 1, 2]) {
      const sum = rows.reduce((sum, row) => sum + parseFloat(row.widths[i]), 0);
      expect(Math.abs(sum - 100) < 0.1, `expected column ${i + 1} to add up to 100 %, found ${sum}`);
    }
    expect((await page.locator("#captions li").count()) > 0, "expected captions, found none");
    expect(/votes for /.test(await page.locator("#captions li .vote").first().textContent()), "expected a caption's vote");
    expect((await page.locator("#summary").textContent()).length > 20, "expected a sentence");
    expect((await page.locator("#image-confidence").textContent()).includes("%"), "expected the confidence of the image");
    await shot(page, "loaded-light");
  });

  await check("thumbnails of captions load or say that there is none", async () => {
    await page.locator("#captions li").first().scrollIntoViewIfNeeded();
    await page.waitForFunction(() => {
      const thumb = document.querySelector("#captions li .thumb");
      return thumb.classList.contains("no-image") || thumb.querySelector("img").naturalWidth > 0;
    });
  });

  await check("K moves the captions' bars and sends no image again", async () => {
    await answered(page, () => page.selectOption("#method", "captions"));
    const [before, asked] = [await column(page, 1), watch.asked.length];
    const own = await page.locator("#k").evaluate((k) => Number(k.value));
    const other = own === 1 ? 2 : 1;
    await answered(page, () => page.fill("#k", String(other)));
    expect(!same(before, await column(page, 1)), `expected other bars with K ${other} than with ${own}`);
    expect((await page.locator("#captions li").count()) <= other, `expected at most ${other} captions`);
    expect((await page.locator("#k-value").textContent()) === String(other), "expected K's value beside the slider");
    const since = watch.asked.slice(asked).filter((request) => request.url().endsWith("/v1/classify"));
    expect(since.length > 0 && !since.some(isUpload), "expected requests without an upload");
    expect(since.every((request) => typeof request.postDataJSON().image.embedding === "string"), "expected the embedding in the request");
    await answered(page, () => page.fill("#k", String(own)));
    expect(same(before, await column(page, 1)), "expected the same bars with K back where it was");
  });

  await check("the method changes the final bars; zero-shot's are the image's, captions' the captions'", async () => {
    await answered(page, () => page.selectOption("#method", "zero-shot"));
    expect(same(await column(page, 2), await column(page, 0)), "expected zero-shot to be the image alone");
    await answered(page, () => page.selectOption("#method", "captions"));
    expect(same(await column(page, 2), await column(page, 1)), "expected captions to be the captions alone");
    expect(!same(await column(page, 2), await column(page, 0)), "expected other final bars than the image's");
    await answered(page, () => page.selectOption("#method", "xmore"));
    expect(/% image, .*% captions/.test(await page.locator("#trust").textContent()), "expected both shares in words");
    if (await page.locator("#method option[value=xmore-kernel]").count()) {
      await answered(page, () => page.selectOption("#method", "xmore-kernel"));
      expect(/taken into account/.test(await page.locator("#trust").textContent()), "expected the memory's part in words");
    }
  });

  await check("rows and captions stay the same elements, so nothing flickers", async () => {
    await page.evaluate(() => document.querySelectorAll("#score-rows tr, #captions li").forEach((element) => (element.wasHere = true)));
    await answered(page, () => page.selectOption("#method", "equal"));
    const fresh = await page.evaluate(() => [...document.querySelectorAll("#score-rows tr, #captions li")].filter((element) => !element.wasHere).length);
    expect(fresh === 0, `expected no new element, found ${fresh}`);
  });

  await check("a pasted image is answered", async () => {
    await page.evaluate(async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
      canvas.getContext("2d").fillRect(8, 8, 30, 30);
      const png = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
      await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
    });
    const asked = watch.asked.length;
    await page.locator("#results").focus();
    await answered(page, () => page.keyboard.press("Control+V"));
    expect(watch.asked.slice(asked).some(isUpload), "expected an upload");
  });

  await check("a link shows another person the same numbers, and no image was needed", async () => {
    await answered(page, () => drop(page, image.bytes, image.type));
    await page.click("#copy-link");
    await page.waitForFunction(() => location.hash.includes("embedding="));
    const link = await page.evaluate(() => navigator.clipboard.readText());
    expect(link === page.url(), "expected the address in the clipboard");
    const mine = await table(page);
    const other = await open(browser, link, {});
    await other.page.locator("#answer:not([hidden])").waitFor();
    expect(same(await table(other.page), mine), `expected ${JSON.stringify(mine)}, found ${JSON.stringify(await table(other.page))}`);
    expect((await other.page.inputValue("#method")) === (await page.inputValue("#method")), "expected the same method");
    expect((await other.page.locator("#summary").textContent()) === (await page.locator("#summary").textContent()), "expected the same sentence");
    expect(await other.page.locator("#preview").evaluate((preview) => preview.decode().then(() => preview.naturalWidth > 0)), "expected a thumbnail");
    expect(!other.watch.asked.some(isUpload), "expected no upload");
    expect((await other.page.evaluate(() => localStorage.getItem("xmore.labels"))) === null, "expected somebody's link not to replace remembered labels");
    expect(other.watch.problems.length === 0, other.watch.problems.join("; "));
    await other.context.close();
    return `${link.length} characters`;
  });

  await check("labels are remembered, also where they have markup in them", async () => {
    const hostile = '<img src=x onerror="document.title=1">';
    await answered(page, () => type(`a kite, ${hostile}\n"salt, pepper"\nkite\nkite`));
    await page.reload();
    await page.locator("body[data-ready=true]").waitFor();
    await answered(page, () => page.setInputFiles("#file", image.file));
    const labels = (await table(page)).map((row) => row.label);
    expect(same(labels, [hostile, "a kite", "kite", "salt, pepper"].sort()), `found ${JSON.stringify(labels)}`);
    expect(/repeated/.test(await page.locator("#labels-count").textContent()), "expected the repeated label to be mentioned");
    expect((await page.locator("main img[src=x]").count()) === 0 && (await page.title()) !== "1", "expected labels never to become elements");
  });

  await check("lists of labels: an example can be used, one's own saved, used and deleted", async () => {
    const own = await page.inputValue("#labels");
    await answered(page, () => page.selectOption("#label-set", "example:Places"));
    expect((await table(page)).some((row) => row.label === "beach"), "expected the labels of the list");
    await answered(page, () => page.fill("#labels", own));
    expect((await page.inputValue("#label-set")) === "", "expected an edited list to be one's own");
    if (!(await page.locator("#save-set").isVisible())) return "saving is not switched on";
    const name = `page test ${Date.now()}`;
    await page.click("#save-set");
    await page.fill("#save-name", name);
    await page.keyboard.press("Enter");
    await page.locator("#save-dialog").waitFor({ state: "hidden" });
    expect((await page.inputValue("#label-set")) === `saved:${name}`, "expected the saved list to be chosen");
    await answered(page, () => page.selectOption("#label-set", "example:Places"));
    await answered(page, () => page.selectOption("#label-set", `saved:${name}`));
    expect((await table(page)).some((row) => row.label === "salt, pepper"), "expected the saved labels, commas and all");
    page.once("dialog", (dialog) => dialog.accept());
    await page.click("#delete-set");
    await page.waitForFunction((name) => ![...document.getElementById("label-set").options].some((option) => option.value === `saved:${name}`), name);
    return "saved and deleted";
  });

  await check("search by words shows pairs, one of them can be classified", async () => {
    await page.fill("#search-text", "a red circle");
    await page.click("#search-go");
    await page.locator("#found li").first().waitFor();
    expect(/similarity -?\d\.\d\d/.test(await page.locator("#found li .numbers").first().textContent()), "expected a similarity");
    const [images, summary] = [await page.locator("#found li .numbers").allTextContents(), await page.locator("#found-summary").textContent()];
    await page.check("#search-captions");
    await page.waitForFunction((before) => document.getElementById("found-summary").textContent !== before, summary);
    const captions = await page.locator("#found li .numbers").allTextContents();
    expect(!same(images, captions), "expected other similarities among the captions than among the images");
    await shot(page, "search-light");
    await answered(page, () => page.locator("#found button").first().click());
    expect(/^Pair \d+/.test(await page.locator("#preview-caption").textContent()), "expected the pair under the preview");
  });

  await check("similar images are found, by the id of the loaded pair", async () => {
    await page.click("#find-similar");
    await page.waitForFunction(() => document.getElementById("found-summary").textContent.includes("loaded image"));
    const asked = watch.asked.filter((request) => request.url().endsWith("/v1/retrieve")).at(-1);
    expect(Number.isInteger(asked.postDataJSON().image.id), "expected the id in the request");
  });

  await check("a link to a pair of the memory has its id and no embedding", async () => {
    await page.click("#copy-link");
    await page.waitForFunction(() => location.hash.includes("id="));
    expect(!page.url().includes("embedding="), "expected no embedding in the link");
    const mine = await table(page);
    const other = await open(browser, page.url(), {});
    await other.page.locator("#answer:not([hidden])").waitFor();
    expect(same(await table(other.page), mine), "expected the same numbers");
    await other.context.close();
  });

  await check("dark mode, from the system and by the button, which is remembered", async () => {
    const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await background(page);
    await page.click("#theme");
    const dark = await background(page);
    expect(light !== dark, `expected another background than ${light}`);
    await page.reload();
    expect((await background(page)) === dark, "expected dark after a reload");
    const other = await open(browser, base, { colorScheme: "dark" });
    expect((await background(other.page)) === dark, "expected dark where the system is");
    await answered(other.page, () => drop(other.page, image.bytes, image.type));
    await shot(other.page, "loaded-dark");
    await other.context.close();
  });

  await check("at 320 pixels nothing is cut off", async () => {
    const other = await open(browser, base, { viewport: { width: 320, height: 640 } });
    await answered(other.page, () => drop(other.page, image.bytes, image.type));
    const [content, screen] = await other.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    expect(content <= screen, `expected at most ${screen} pixels, found ${content}`);
    await shot(other.page, "loaded-320");
    await other.context.close();
  });

  await check("no console error, no exception, no request to another host", () => expect(watch.problems.length === 0, watch.problems.join("; ")));
  await context.close();
}

export async function largePhoto({ browser, base, photo }) {
  await check("a photo as phones take them is sent as it is and answered", async () => {
    const { page, context, watch } = await open(browser, base);
    await page.fill("#labels", LABELS.join("\n"));
    await recordUploads(page);
    await answered(page, () => drop(page, photo, "image/jpeg"));
    const size = await page.evaluate(() => window.uploads.at(-1).size);
    expect(size === photo.length, `expected an upload of ${photo.length} bytes, found ${size}`);
    expect((await table(page)).length === LABELS.length, "expected a row for each label");
    expect(await page.locator("#problem").isHidden(), "expected no error");
    expect(watch.problems.length === 0, watch.problems.join("; "));
    await context.close();
    return `${photo.length} bytes`;
  });
}
