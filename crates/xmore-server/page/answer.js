// Shows one result: the sentence, the table of bars, the balance, the captions.

import { $, count, el, keyed, lessMotion, percent, percent1, say } from "./dom.js";
import { thumb } from "./thumbs.js";
import { summary, tally, topOf, trust } from "./words.js";

/** What each method does, as the server tells it. */
let summaries = {};

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");

const FEW_LABELS = 12;
const FEW_CAPTIONS = 12;

let shown = null;
let allLabels = false;
let allCaptions = false;

$("all-labels").addEventListener("click", () => {
  allLabels = !allLabels;
  scores(shown);
});
$("all-captions").addEventListener("click", () => {
  allCaptions = !allCaptions;
  captions(shown);
});

/** Shows the result of a classification; `memory` is the server's, or null. */
export function show(answer, memory) {
  shown = { ...answer.result, memory };
  const of = (part) => el("strong", { className: `of-${part.of}` }, part.label);
  $("summary").replaceChildren(...summary(shown).map((part) => (typeof part === "string" ? part : of(part))));
  say($("note"), shown.note);
  say($("method-hint"), sentence(summaries[shown.method]));
  $("answer").classList.toggle("image-only", !shown.caption_distribution);
  scores(shown);
  balance(shown);
  captions(shown);
  say($("timings"), timings(answer.timings_ms));
  $("answer").hidden = false;
  $("answer").classList.remove("stale");
  $("answer").dataset.answers = Number($("answer").dataset.answers) + 1;
}

function timings(ms) {
  const parts = Object.entries(ms ?? {}).filter(([, t]) => typeof t === "number" && t >= 0.05);
  return parts.length ? `On the server: ${parts.map(([name, t]) => `${name} ${t < 10 ? t.toFixed(1) : Math.round(t)} ms`).join(", ")}.` : null;
}

/** Labels by their final score, the few first ones and whatever a column puts first. */
function rowsOf(result) {
  const { scores, image_distribution: image, caption_distribution: captions } = result;
  const labels = Object.keys(scores).sort((a, b) => scores[b] - scores[a]);
  if (allLabels || labels.length <= FEW_LABELS) return labels;
  const tops = new Set([topOf(image), topOf(captions)].map((top) => top?.label));
  return labels.filter((label, place) => place < FEW_LABELS || tops.has(label));
}

function scores(result) {
  const body = $("score-rows");
  const columns = [
    ["image", "Image alone", result.image_distribution],
    ["captions", "Captions alone", result.caption_distribution],
    ["final", "Final", result.scores],
  ];
  const tops = [topOf(result.image_distribution)?.label, topOf(result.caption_distribution)?.label, result.predictions[0].label];
  const before = new Map([...body.children].map((row) => [row, row.getBoundingClientRect().top]));
  const create = (label) =>
    el(
      "tr",
      { role: "row" },
      el("th", { scope: "row", role: "rowheader" }, label),
      ...columns.map(([of]) => el("td", { role: "cell", className: `of-${of}` }, el("span", { className: "bar", ariaHidden: "true" }, el("i")), el("span", { className: "value" }))),
    );
  keyed(body, rowsOf(result), (label) => label, create, (row, label) => {
    columns.forEach(([, , distribution], i) => {
      const cell = row.cells[i + 1];
      const score = distribution?.[label];
      cell.querySelector("i").style.width = `${100 * (score ?? 0)}%`;
      cell.querySelector(".value").textContent = score === undefined ? "–" : percent1(score);
      cell.classList.toggle("first", tops[i] === label);
    });
    row.classList.toggle("winner", tops[2] === label);
  });
  slide(before);
  const total = Object.keys(result.scores).length;
  $("all-labels").hidden = total <= FEW_LABELS;
  $("all-labels").textContent = allLabels ? "Show fewer labels" : `Show all ${total} labels`;
  $("all-labels").setAttribute("aria-expanded", String(allLabels));
}

/** Rows that changed places glide from where they were. */
function slide(before) {
  if (lessMotion()) return;
  for (const [row, top] of before) {
    if (!row.isConnected) continue;
    row.getAnimations().forEach((animation) => animation instanceof CSSTransition || animation.cancel());
    const way = top - row.getBoundingClientRect().top;
    if (Math.abs(way) > 1) row.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], { duration: 240, easing: "ease-out" });
  }
}

function balance(result) {
  const { image_confidence: image, caption_confidence: captions } = result;
  $("image-confidence").textContent = percent(image);
  $("caption-confidence").textContent = captions === null ? "–" : percent(captions);
  $("image-arm").style.width = `${100 * image}%`;
  $("caption-arm").style.width = `${100 * (captions ?? 0)}%`;
  const { words, share, left, right, of } = trust(result);
  $("trust").textContent = words;
  for (const id of ["share", "share-ends"]) $(id).hidden = share === null;
  if (share === null) return;
  $("share").dataset.of = of;
  $("share-fill").style.width = `${100 * share}%`;
  $("share-left").textContent = left;
  $("share-right").textContent = right;
}

function captions(result) {
  const all = result.captions ?? [];
  $("captions-card").hidden = all.length === 0;
  $("no-captions").hidden = all.length > 0 || result.memory === null;
  $("no-memory").hidden = result.memory !== null;
  if (!all.length) return keyed($("captions"), [], String);
  const winner = result.predictions[0].label;
  $("tally").textContent = tally(all);
  const create = (caption) =>
    el(
      "li",
      {},
      ...(result.memory.local === false ? [] : [thumb(caption.id, 160, "")]), // A remote index has no images.
      el("div", {}, el("p", { className: "text" }, caption.caption), el("p", { className: "fine numbers" }), el("p", { className: "vote" })),
    );
  keyed($("captions"), allCaptions ? all : all.slice(0, FEW_CAPTIONS), (caption) => caption.id, create, (item, caption) => {
    const numbers = [`match ${caption.similarity.toFixed(2)}`];
    if (typeof caption.image_similarity === "number") numbers.push(`look-alike ${caption.image_similarity.toFixed(2)}`);
    item.querySelector(".numbers").textContent = numbers.join(" · ");
    item.querySelector(".vote").textContent = `votes for ${caption.vote}`;
    item.classList.toggle("for-winner", caption.vote === winner);
  });
  $("all-captions").hidden = all.length <= FEW_CAPTIONS;
  $("all-captions").textContent = allCaptions ? "Show fewer captions" : `Show all ${count(all.length, "caption")}`;
  $("all-captions").setAttribute("aria-expanded", String(allCaptions));
}

/** What is shown no longer answers what is asked. */
export function stale() {
  $("answer").classList.add("stale");
}

/** Nothing to show: an error, or too few labels. */
export function hide() {
  $("answer").hidden = true;
}

/** Methods and K as the server has them. */
export function offer(info) {
  summaries = info.method_summaries;
  $("method").replaceChildren(...info.methods.map((name) => el("option", { value: name }, name)));
  $("method").value = info.default_method;
  const most = Math.max(1, Math.min(info.retrieval?.neighbors ?? 1, info.memory?.pairs ?? Infinity));
  $("k").max = most;
  setK(Math.min(info.retrieval?.k ?? 1, most));
  $("k-field").hidden = !info.memory;
}

export function setK(k) {
  $("k").value = k;
  $("k-value").textContent = $("k").value;
}
