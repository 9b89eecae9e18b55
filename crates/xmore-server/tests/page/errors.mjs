// Checks of what goes wrong: errors in the API's words, waiting, late answers, images too large, bad links.

import { answered, check, drop, expect, open, recordUploads, table } from "./harness.mjs";

const EXPECTED = [/status of (422|429|503|400|404)/];

export async function errors({ browser, base, image, shot }) {
  const { page, context, watch } = await open(browser, base, { tolerate: EXPECTED });
  const classify = "**/v1/classify";
  const refuse = (status, code, message, headers = {}) => ({ status, headers, contentType: "application/json", body: JSON.stringify({ error: { code, message } }) });

  await check("an image that is none is refused in the server's words", async () => {
    const [said] = await Promise.all([
      page.waitForResponse((response) => response.url().endsWith("/v1/classify")),
      drop(page, Buffer.from("no picture at all"), "image/png"),
    ]);
    const { error } = await said.json();
    await page.locator("#problem").waitFor();
    expect((await page.locator("#problem").textContent()) === error.message, `expected “${error.message}”`);
    expect(await page.locator("#answer").isHidden(), "expected no answer");
    await shot(page, "error-light");
  });

  await check("a file that is no image is not sent", async () => {
    await drop(page, Buffer.from("text"), "text/plain", "notes.txt");
    await page.getByText("This is not an image").waitFor();
  });

  await check("the next image is answered and the error is gone", async () => {
    await answered(page, () => drop(page, image.bytes, image.type));
    expect(await page.locator("#problem").isHidden(), "expected no error any more");
  });

  await check("fewer than two labels are asked for, not sent", async () => {
    const asked = watch.asked.length;
    await page.fill("#labels", "dog");
    await page.locator("#needs-labels").waitFor();
    expect(watch.asked.length === asked, "expected no request");
    await answered(page, () => page.fill("#labels", "dog, cat"));
  });

  for (const status of [429, 503]) {
    await check(`after ${status} the page waits as long as it is told, says so, and tries again`, async () => {
      let refused = 0;
      await page.route(classify, (route) => (refused++ < 1 ? route.fulfill(refuse(status, "overloaded", "too many requests", { "Retry-After": "2" })) : route.continue()));
      const start = Date.now();
      await Promise.all([
        page.locator("#waiting").filter({ hasText: "too many requests" }).waitFor(),
        answered(page, () => page.selectOption("#method", status === 429 ? "zero-shot" : "captions")),
      ]);
      expect(Date.now() - start >= 1900, `expected 2 s of waiting, found ${Date.now() - start} ms`);
      expect(await page.locator("#waiting").isHidden(), "expected the notice to go");
      await page.unroute(classify);
    });
  }

  await check("a server that stays away is told after some tries", async () => {
    let tries = 0;
    await page.route(classify, (route) => {
      tries++;
      return route.fulfill(refuse(503, "shutting_down", "going down", { "Retry-After": "0" }));
    });
    await page.selectOption("#method", "equal");
    await page.locator("#problem").filter({ hasText: "going down" }).waitFor();
    expect(tries === 5, `expected 5 requests, found ${tries}`);
    expect(await page.locator("#answer.stale").isVisible(), "expected the older answer to stay, marked as such");
    await page.unroute(classify);
    await answered(page, () => page.click("#again"));
    expect(await page.locator("#problem, #again, .stale").evaluateAll((found) => found.every((element) => element.hidden)), "expected the error to be gone");
  });

  await check("a late answer never replaces a newer one", async () => {
    let first = true;
    await page.route(classify, async (route) => {
      if (first) {
        first = false;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
      await route.continue().catch(() => {}); // Cancelled by the page.
    });
    await page.selectOption("#method", "captions");
    await answered(page, () => page.selectOption("#method", "zero-shot"));
    const now = await table(page);
    await page.waitForTimeout(1500);
    expect(JSON.stringify(now) === JSON.stringify(await table(page)), "expected the newer answer to stay");
    await page.unroute(classify);
  });

  await check("errors: nothing unforeseen in the console", () => expect(watch.problems.length === 0, watch.problems.join("; ")));
  await context.close();

  await check("an image over the server's limit is made smaller, and the page says so", async () => {
    const most = 300_000;
    const small = await browser.newContext();
    const page = await small.newPage();
    await page.route("**/v1/info", async (route) => {
      const response = await route.fetch();
      const info = await response.json();
      info.limits.body_bytes = most;
      await route.fulfill({ response, json: info });
    });
    await page.goto(base);
    await page.locator("body[data-ready=true]").waitFor();
    const noise = await page.evaluate(async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 900, height: 700 });
      const context = canvas.getContext("2d");
      const data = context.createImageData(900, 700);
      for (let i = 0, seed = 1; i < data.data.length; i++) {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        data.data[i] = i % 4 === 3 ? 255 : seed >>> 24;
      }
      context.putImageData(data, 0, 0);
      return canvas.toDataURL("image/png").split(",")[1];
    });
    const bytes = Buffer.from(noise, "base64");
    expect(bytes.length > most, `expected a test image over ${most} bytes, found ${bytes.length}`);
    await recordUploads(page);
    await answered(page, () => drop(page, bytes, "image/png"));
    const size = await page.evaluate(() => window.uploads.at(-1).size);
    expect(size > 0 && size <= most, `expected an upload of at most ${most} bytes, found ${size}`);
    expect(/smaller copy/.test(await page.locator("#image-note").textContent()), "expected a note");
    await small.close();
    return `${bytes.length} became ${size} bytes`;
  });

  await check("bad links are refused in words and harm nothing", async () => {
    const { page, context, watch } = await open(browser, base, { tolerate: EXPECTED });
    const info = await (await context.request.get(new URL("v1/info", base).href)).json();
    const model = info.model.fingerprint.slice(0, 16);
    const zeros = Buffer.alloc(4 * info.model.dim).toString("base64url");
    const start = `label=a&label=b&method=zero-shot`;
    const links = {
      "one label": "label=a&method=zero-shot&id=0",
      "an unknown method": "label=a&label=b&method=__proto__&id=0",
      "a pair that is not there": `${start}&id=${info.memory.pairs}`,
      "an id that is no number": `${start}&id=1e999`,
      "no image": start,
      "a short embedding": `${start}&model=${model}&embedding=AAAA`,
      "an embedding of zeros": `${start}&model=${model}&embedding=${zeros}`,
      "another model": `${start}&model=other&embedding=${zeros}`,
      "broken base64": `${start}&model=${model}&embedding=%00%ff<svg onload=1>`,
      "a label of a megabyte": `label=${"x".repeat(1 << 20)}&label=b&method=zero-shot&id=0`,
    };
    for (const [what, link] of Object.entries(links)) {
      await page.evaluate((link) => {
        document.getElementById("problem").hidden = true;
        location.hash = link;
      }, link);
      await page.locator("#problem").filter({ hasText: "This link cannot be opened" }).waitFor({ timeout: 5000 }).catch(() => {
        throw new Error(`expected a link with ${what} to be refused`);
      });
      expect(await page.locator("#answer").isHidden(), `expected no answer to a link with ${what}`);
    }
    expect(watch.problems.length === 0, watch.problems.join("; "));
    await context.close();
    return `${Object.keys(links).length} links`;
  });
}
