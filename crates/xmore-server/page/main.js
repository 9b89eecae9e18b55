// The page: what is asked, when it is asked, and what is shown while it is not answered yet.

import * as answer from "./answer.js";
import * as api from "./api.js";
import { askForKey } from "./dialogs.js";
import { $, count, el, lessMotion, say } from "./dom.js";
import { fitting, imagesOf, onDrop, onPaste, thumbnail } from "./image.js";
import { LabelBox } from "./labels.js";
import * as permalink from "./permalink.js";
import { Search } from "./search.js";
import { thumb } from "./thumbs.js";
import { asText, summary } from "./words.js";

/** Typing is over when nothing came for this long. */
const TYPING_MS = 450;
/** An answer is read out when nothing changed for this long, so that a moving slider is not a stream of words. */
const SPEAK_MS = 700;
/** Shorter waits are not shown. */
const BUSY_MS = 200;

let info = null;
/** The image: `{ blob }`, sent once, then known by its `embedding`; `{ embedding }` of a link; or `{ id }` of a pair. */
let input = null;
/** The image of the answer that is shown. */
let answered = null;
/** The request under way, and whether another has to follow it. */
let running = null;
let again = false;
let speakTimer;
let typingTimer;

api.setHooks({ askForKey, tellWaiting: (text) => say($("waiting"), text) });
const labels = new LabelBox(labelsChanged, fail);
new Search(classifyPair, (options) => withImage(input, options));

// ---- Asking

/** Asks for an answer. A newer question of the same image waits for the running one, so that bars follow a slider; all else cancels it. */
function ask({ follow = false } = {}) {
  clearTimeout(typingTimer);
  if (!info || !input) return;
  if (follow && running) {
    again = true;
    return;
  }
  running?.abort();
  again = false;
  const wanted = labels.labels;
  $("needs-labels").hidden = wanted.length >= 2;
  if (wanted.length < 2) {
    running = null;
    busy(false);
    nothing();
    return;
  }
  run(wanted, (running = new AbortController()));
}

async function run(wanted, mine) {
  const asked = input;
  const isNew = answered !== asked;
  busy(true);
  try {
    const got = await api.classify(questionOf(asked, wanted), mine.signal);
    if (asked.blob) asked.embedding ??= got.result.embedding;
    fine();
    answered = asked;
    answer.show(got, info.memory);
    if (isNew) reveal();
    speak(asText(summary(got.result)));
    if (info.memory && got.generation !== info.memory.generation) learn().catch(fail);
  } catch (error) {
    if (mine.signal.aborted) return;
    fail(error);
    // What was answered before about this image stays, pale, with the controls that led here; another image's answer goes.
    if (!isNew) return answer.stale();
    nothing();
    reveal();
  } finally {
    if (running === mine) {
      running = null;
      busy(false);
      if (again) ask();
    }
  }
}

/** The options of a classification with its image. */
function questionOf(asked, wanted) {
  const options = { labels: wanted, method: $("method").value, explain: true };
  if (info.memory) options.k = Number($("k").value);
  if (asked.blob && !asked.embedding) options.return_embedding = true;
  return withImage(asked, options);
}

/** A body with options and an image: its bytes the first time, its embedding from then on. */
function withImage(asked, options) {
  if (asked.id !== undefined) return { image: { id: asked.id }, ...options };
  if (asked.embedding) return { image: { embedding: asked.embedding }, ...options };
  const form = new FormData();
  for (const [name, value] of Object.entries(options)) form.append(name, Array.isArray(value) ? JSON.stringify(value) : value);
  form.append("image", asked.blob, asked.original.name || "image");
  return form;
}

function busy(is) {
  clearTimeout(busy.timer);
  $("results").setAttribute("aria-busy", String(is));
  if (is) busy.timer = setTimeout(() => $("results").classList.add("busy"), BUSY_MS);
  else $("results").classList.remove("busy");
}

function speak(text) {
  clearTimeout(speakTimer);
  speakTimer = setTimeout(() => ($("announce").textContent = text), SPEAK_MS);
}

function fail(error) {
  say($("problem"), error.code === "unauthorized" ? `${error.message} Reload the page to give the key.` : error.message);
  $("again").hidden = !(input && [0, 429, 503].includes(error.status));
}

function fine() {
  say($("problem"), null);
  $("again").hidden = true;
}

/** On a small screen the answer to a new image is below what was asked. */
function reveal() {
  const results = $("results");
  if (results.getBoundingClientRect().top > 0.6 * innerHeight) results.scrollIntoView({ behavior: lessMotion() ? "auto" : "smooth" });
}

/** No answer to show. */
function nothing() {
  answered = null;
  answer.hide();
}

// ---- The image

function load(next, { preview, caption, note }) {
  input = next;
  $("empty").hidden = true;
  leaveLink();
  fine();
  $("find-similar").disabled = false;
  const old = $("preview");
  if (old.src?.startsWith("blob:")) URL.revokeObjectURL(old.src);
  old.replaceWith(preview);
  preview.id = "preview";
  $("preview-frame").classList.toggle("no-image", !preview.src && !preview.querySelector?.("img"));
  $("preview-none").hidden = true;
  say($("preview-caption"), caption);
  say($("image-note"), note);
  $("choose").textContent = "Choose another";
  ask();
}

const pictureOf = (blob, alt) => {
  const img = el("img", { alt, draggable: false, src: URL.createObjectURL(blob) });
  img.addEventListener("error", () => $("preview-frame").classList.add("no-image"));
  return img;
};

async function take(transfer) {
  const { images, others } = imagesOf(transfer);
  if (!images.length) return say($("problem"), others ? "This is not an image file." : "No image in there: save it as a file first, then drop that.");
  await takeFile(images[0], images.length > 1 ? `${images.length} images came at once; this is the first.` : null);
}

async function takeFile(file, remark = null) {
  if (!info) return;
  const { blob, note } = await fitting(file, info.limits.body_bytes);
  load({ blob, original: file }, { preview: pictureOf(file, "The image to classify"), note: [remark, note].filter(Boolean).join(" ") });
}

/** A pair of the memory: the id says it all. */
function showPair(pair) {
  const frame = thumb(pair.id, 640, pair.caption ? `Image of the memory: ${pair.caption}` : `Image ${pair.id} of the memory`);
  load({ id: pair.id }, { preview: frame, caption: pair.caption ? `Pair ${pair.id} of the memory: ${pair.caption}` : `Pair ${pair.id} of the memory` });
}

function classifyPair(pair) {
  showPair(pair);
  $("results").focus({ preventScroll: true });
  $("results").scrollIntoView({ behavior: lessMotion() ? "auto" : "smooth" });
}

/** A random pair, with an image if some tries find one. */
async function random() {
  try {
    let pair = null;
    let image = null;
    for (let tries = 0; tries < 8 && !image; tries++) {
      const id = Math.floor(Math.random() * info.memory.pairs);
      // Not every row need be shown, and not every pair has an image.
      const found = await api.pair(id).catch((error) => error.status === 404 ? null : Promise.reject(error));
      image = found && (await api.pairImage(id, 640).catch(() => null));
      pair = found ?? pair;
    }
    if (pair) showPair(pair);
    else fail(new Error("No pair of the memory was found by chance. Search it below instead."));
  } catch (error) {
    fail(error);
  }
}

// ---- Labels, method, K

function labelsChanged(now) {
  leaveLink();
  clearTimeout(typingTimer);
  typingTimer = setTimeout(ask, now ? 0 : TYPING_MS);
}

$("method").addEventListener("change", () => {
  leaveLink();
  ask();
});
$("k").addEventListener("input", () => {
  $("k-value").textContent = $("k").value;
  leaveLink();
  ask({ follow: true });
});

// ---- Links

/** The address no longer says what the page shows. */
function leaveLink() {
  $("link-field").hidden = true;
  if (permalink.isPermalink(location.hash.slice(1))) history.replaceState(null, "", location.pathname + location.search);
}

async function copyLink() {
  // What is shown, even if another image is on its way.
  const { id, embedding, original } = answered;
  const linked = { id, embedding };
  if (id === undefined) linked.thumbnail = answered.thumbnail ?? (original && (await thumbnail(original)));
  const fragment = permalink.write({ labels: labels.labels, method: $("method").value, k: Number($("k").value), input: linked }, info);
  history.replaceState(null, "", `#${fragment}`);
  $("link").value = location.href;
  const button = $("copy-link");
  if (await copied(location.href)) {
    button.textContent = "Link copied";
    $("announce").textContent = "Link copied";
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  } else {
    $("link-field").hidden = false;
    $("link").select();
  }
}

/** The clipboard needs https or localhost; the older way works elsewhere, where it still does. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    $("link-field").hidden = false;
    $("link").select();
    const done = document.execCommand("copy");
    $("link-field").hidden = done;
    if (done) focused?.focus();
    return done;
  }
}

/** Shows what the fragment asks, where it asks something. */
function openLink() {
  const fragment = location.hash.slice(1);
  if (!info || !permalink.isPermalink(fragment)) return;
  const link = permalink.read(fragment, info);
  if (link.problem) return say($("problem"), link.problem);
  labels.show(link.labels);
  $("method").value = link.method;
  answer.setK(link.k);
  const { id, embedding, thumbnail } = link.input;
  if (id !== undefined) {
    const show = (pair) => keepLink(fragment, () => showPair(pair));
    api.pair(id).then(show, () => show({ id }));
    return;
  }
  const preview = thumbnail ? pictureOf(new Blob([thumbnail], { type: "image/jpeg" }), "Small copy of the image to classify") : el("span");
  keepLink(fragment, () =>
    load({ embedding, thumbnail }, { preview, caption: "From a link: a small copy; the answer is that of the original." }),
  );
}

/** Loading something leaves the link; here it is what is shown. */
function keepLink(fragment, show) {
  show();
  history.replaceState(null, "", `#${fragment}`);
}

// ---- Start

/** What the server is, at the start and after it loaded another memory. */
async function learn() {
  info = await api.info();
  const { memory, model, version } = info;
  labels.offer(info);
  // A remote index neither counts its pairs nor has their images.
  const pairs = memory?.pairs ?? null;
  const memoryIs = memory === null ? "no memory" : pairs === null ? `memory at ${memory.location}` : `memory of ${count(pairs, "pair")}`;
  $("about").textContent = `xmore ${version}, model ${model.name}, ${memoryIs}.`;
  if (pairs !== null) $("empty-pairs").textContent = count(pairs, "image–caption pair");
  for (const id of ["random", "try", "search"]) $(id).hidden = !pairs;
  $("empty-memory").hidden = memory === null;
  $("empty-alone").hidden = memory !== null;
}

async function start() {
  try {
    await learn();
    answer.offer(info);
    openLink();
  } catch (error) {
    fail(error);
  }
  document.body.dataset.ready = "true";
}

$("choose").addEventListener("click", () => $("file").click());
$("empty-choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) takeFile(file);
  $("file").value = "";
});
$("random").addEventListener("click", random);
$("try").addEventListener("click", random);
$("again").addEventListener("click", () => ask());
$("copy-link").addEventListener("click", copyLink);
$("link").addEventListener("focus", () => $("link").select());
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // The fragment is for links.
  $("results").focus();
});
onDrop(take, (visible) => ($("curtain").hidden = !visible));
onPaste(take);
addEventListener("hashchange", openLink);
start();
