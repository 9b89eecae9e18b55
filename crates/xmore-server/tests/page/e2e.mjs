// End to end: the page in a real browser against a real server. Prints a line for each check and exits with 1 if one failed.
//
//     node e2e.mjs BASE_URL IMAGE_FILE SCREENSHOT_FOLDER [KEYED_URL [KEY]] [--without-memory=URL] [--photo=FILE]
//
// BASE_URL has a memory and no key, KEYED_URL wants KEY. The photo is as large as a phone's. CHROMIUM is the browser's path. Nothing depends on a model's numbers.

import { mkdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";

import { answering, largePhoto } from "./answering.mjs";
import { errors } from "./errors.mjs";
import { launch, verdict } from "./harness.mjs";
import { keyboard } from "./keyboard.mjs";
import { keyed, withoutMemory } from "./servers.mjs";

const option = (name) => process.argv.find((argument) => argument.startsWith(`--${name}=`))?.slice(`--${name}=`.length);
const [alone, photo] = [option("without-memory"), option("photo")];
const [base, file, folder, keyedBase, key] = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
if (!folder) {
  console.error("expected BASE_URL IMAGE_FILE SCREENSHOT_FOLDER [KEYED_URL [KEY]] [--without-memory=URL] [--photo=FILE]");
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
  if (photo) await largePhoto({ ...given, photo: readFileSync(photo) });
  await keyboard(given);
  await errors(given);
  if (keyedBase) await keyed({ ...given, base: keyedBase, key });
  if (alone) await withoutMemory({ ...given, base: alone });
} finally {
  await browser.close();
}
process.exit(verdict());
