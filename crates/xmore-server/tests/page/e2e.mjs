// End to end: the page in a real browser against a real server. Prints a line for each check and exits with 1 if one failed.
//
//     node e2e.mjs BASE_URL IMAGE_FILE SCREENSHOT_FOLDER [KEYED_URL [KEY]] [--without-memory=URL]
//
// BASE_URL has a memory and no key, KEYED_URL wants KEY. CHROMIUM is the browser's path. Nothing depends on a model's numbers.

import { mkdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";

import { answering } from "./answering.mjs";
import { errors } from "./errors.mjs";
import { launch, verdict } from "./harness.mjs";
import { keyboard } from "./keyboard.mjs";
import { keyed, withoutMemory } from "./servers.mjs";

const alone = process.argv.find((argument) => argument.startsWith("--without-memory="))?.slice("--without-memory=".length);
const [base, file, folder, keyedBase, key] = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
if (!folder) {
  console.error("expected BASE_URL IMAGE_FILE SCREENSHOT_FOLDER [KEYED_URL [KEY]] [--without-memory=URL]");
  process.exit(2);
}
mkdirSync(folder, { recursive: true });
const types = { ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp" };
const image = { file, bytes: readFileSync(file), type: types[extname(file).toLowerCase()] ?? "image/jpeg" };
const shot = (page, name) => page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });

const browser = await launch();
try {
  const given = { browser, base, image, shot };
  await answering(given);
  await keyboard(given);
  await errors(given);
  if (keyedBase) await keyed({ ...given, base: keyedBase, key });
  if (alone) await withoutMemory({ ...given, base: alone });
} finally {
  await browser.close();
}
process.exit(verdict());
