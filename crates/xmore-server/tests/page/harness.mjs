// What the checks of the page share: a browser, a page that is watched for errors and foreign requests, and a line for each check.

import { chromium } from "playwright-core";

/** Longest wait for anything; a tiny model answers in milliseconds, a shared machine takes its time. */
export const TIME_LIMIT = 30_000;

export function fail(message) {
  throw new Error(message);
}

export function expect(condition, message) {
  if (!condition) fail(message);
}

export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

let passed = 0;
const failures = [];

/** Runs one check and prints its line. Others go on after a failure, so that one run tells all. */
export async function check(name, run) {
  try {
    const remark = await run();
    passed++;
    console.log(`ok    ${name}${remark ? ` (${remark})` : ""}`);
  } catch (error) {
    failures.push(name);
    console.log(`FAIL  ${name}: ${error.message}`);
  }
}

/** Prints the sum; the exit status. */
export function verdict() {
  console.log(failures.length ? `${failures.length} of ${passed + failures.length} checks failed: ${failures.join("; ")}` : `${passed} checks passed`);
  return failures.length ? 1 : 0;
}

export async function launch() {
  const executablePath = process.env.CHROMIUM ?? "chromium";
  try {
    // A name is looked up by the system; playwright wants a path.
    const { execFileSync } = await import("node:child_process");
    const path = executablePath.includes("/") ? executablePath : execFileSync("which", [executablePath], { encoding: "utf8" }).trim();
    return await chromium.launch({ executablePath: path, args: ["--no-sandbox"] });
  } catch (error) {
    return fail(`expected a Chromium at ${executablePath} (set CHROMIUM to its path): ${error.message}`);
  }
}

/**
 * A page of its own with nothing remembered. `watch.problems` gathers console errors, exceptions, and requests to other hosts;
 * `watch.asked` the requests to the API.
 */
export async function open(browser, url, { tolerate = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(TIME_LIMIT);
  const page = await context.newPage();
  const watch = { problems: [], asked: [] };
  const { origin } = new URL(url);
  page.on("pageerror", (error) => watch.problems.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() !== "error") return;
    const from = message.location().url ?? "";
    // A pair need not have an image; the browser reports the 404 all the same.
    const expected = /\/v1\/pairs\/\d+\/image/.test(from) || tolerate.some((pattern) => pattern.test(`${message.text()} ${from}`));
    if (!expected) watch.problems.push(`console: ${message.text()} ${from}`);
  });
  page.on("request", (request) => {
    const target = new URL(request.url());
    if (["blob:", "data:"].includes(target.protocol)) return;
    if (target.origin !== origin) watch.problems.push(`request to another host: ${request.url().slice(0, 100)}`);
    if (target.pathname.includes("/v1/")) watch.asked.push(request);
  });
  await page.goto(url);
  await page.locator("body[data-ready=true]").waitFor();
  return { page, context, watch };
}

export const answers = (page) => page.locator("#answer").evaluate((answer) => Number(answer.dataset.answers));

/** Does something and waits until an answer to it is shown and nothing is under way. */
export async function answered(page, act) {
  const before = await answers(page);
  await act();
  await page.waitForFunction(
    (before) => {
      const answer = document.getElementById("answer");
      return !answer.hidden && Number(answer.dataset.answers) > before && document.getElementById("results").ariaBusy === "false";
    },
    before,
    { timeout: TIME_LIMIT },
  );
}

/** What the table says: for each label its three texts, and the exact widths of its bars. */
export const table = (page) =>
  page.locator("#score-rows tr").evaluateAll((rows) =>
    rows
      .map((row) => ({
        label: row.cells[0].textContent,
        texts: [...row.querySelectorAll(".value")].map((value) => value.textContent),
        widths: [...row.querySelectorAll(".bar i")].map((bar) => bar.style.width),
      }))
      .sort((a, b) => (a.label < b.label ? -1 : 1)),
  );

/** One column of bars: 0 image, 1 captions, 2 final. */
export const column = async (page, i) => (await table(page)).map((row) => row.widths[i]);

/** Drops a file of these bytes on the page, as a person would. */
export async function drop(page, bytes, type, name = "image") {
  const transfer = await page.evaluateHandle(
    ({ base64, type, name }) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, { type }));
      return transfer;
    },
    { base64: bytes.toString("base64"), type, name },
  );
  for (const event of ["dragenter", "dragover", "drop"]) await page.dispatchEvent("#drop", event, { dataTransfer: transfer });
}

export const isUpload = (request) => (request.headers()["content-type"] ?? "").startsWith("multipart/");

/** From now on `window.uploads` has every image that the page sends; the browser does not show its bodies otherwise. */
export const recordUploads = (page) =>
  page.evaluate(() => {
    const append = FormData.prototype.append;
    window.uploads = [];
    FormData.prototype.append = function (name, value, ...rest) {
      if (value instanceof Blob) window.uploads.push(value);
      return append.call(this, name, value, ...rest);
    };
  });
