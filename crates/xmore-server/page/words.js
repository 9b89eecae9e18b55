// Answers in words. Pure functions: a result of the API in, sentences out.

import { percent } from "./dom.js";

/** The label with most of a distribution, or null where there is none. */
export function topOf(distribution) {
  let top = null;
  for (const [label, score] of Object.entries(distribution ?? {})) {
    if (top === null || score > top.score) top = { label, score };
  }
  return top;
}

const KERNEL = "xmore-kernel";
const usesCaptions = (method) => !["zero-shot", "templates"].includes(method);

/** What the captions changed: strings and `{ label, of }`, where `of` is `image`, `captions` or `final`. */
export function summary(result) {
  const image = topOf(result.image_distribution);
  const captions = topOf(result.caption_distribution);
  const [final] = result.predictions;
  const say = (top, of) => [{ label: top.label, of }, ` (${percent(top.score)})`];
  const alone = ["The image alone says ", ...say(image, "image")];

  if (!captions) return [...alone, "."];
  if (!usesCaptions(result.method)) {
    const words = captions.label === image.label ? ["agree"] : ["say ", ...say(captions, "captions")];
    return [...alone, "; the captions, which are not asked here, ", ...words, "."];
  }
  if (result.method === KERNEL && result.memory_gate === 0 && result.prototype_weight === 0) {
    return ["The memory does not know these labels well enough, so the image alone decides: ", ...say(final, "final"), "."];
  }
  const agrees = captions.label === image.label;
  const second = agrees ? ["; the captions agree", ` (${percent(captions.score)})`] : ["; the captions say ", ...say(captions, "captions")];
  if (result.method === "captions") return [...alone, ...second, ". Final, by the captions only: ", ...say(final, "final"), "."];
  if (final.label === image.label) return [...alone, ...second, agrees ? ". Together: " : ". Together it stays ", ...say(final, "final"), "."];
  const together = [...alone, ...second, "; together: ", ...say(final, "final")];
  if (final.label === captions.label) return [...together, ". The captions changed the answer."];
  return [...together, ", which neither puts first."];
}

/** The same as one string, for those who listen. */
export const asText = (parts) => parts.map((part) => (typeof part === "string" ? part : part.label)).join("");

function extent(share) {
  if (share < 0.2) return "a little";
  if (share < 0.5) return "in part";
  if (share < 0.8) return "for the most part";
  return share < 0.995 ? "almost fully" : "fully";
}

function opened(result) {
  const why = result.memory?.opened_because;
  const share = `${extent(result.memory_gate)} (${percent(result.memory_gate)})`;
  return `What the memory says of such images was taken into account ${share}${why ? `: ${why}` : ""}.`;
}

function closed(result) {
  const alone = result.prototype_weight > 0 ? "" : " The image alone answers.";
  return `What captions say of such images was not taken into account (0\u202f%): too little shows that the memory knows these labels.${alone}`;
}

/** How much each modality counted: words, and a share for the picture beside them (null where there is none). */
export function trust(result) {
  const gate = result.memory_gate;
  if (result.method === KERNEL && gate !== null) {
    const words = [gate === 0 ? closed(result) : opened(result)];
    if (result.prototype_weight > 0) words.push(`Its images whose captions name the labels count ${percent(result.prototype_weight)}.`);
    const named = result.memory?.named;
    if (named !== undefined && named !== null) words.push(`Captions name ${named} of ${result.memory.labels} labels.`);
    return { words: words.join(" "), share: gate, left: "memory ignored", right: "memory fully used", of: "memory" };
  }
  if (!usesCaptions(result.method) || result.image_weight === null) return { words: "The image alone is trusted.", share: null };
  if (result.method === "captions") return { words: "This method trusts the captions only.", share: null };
  const weight = result.method === "equal" ? 0.5 : result.image_weight;
  const more = Math.abs(weight - 0.5) < 0.005 ? "Both count the same" : weight > 0.5 ? "The image counts more" : "The captions count more";
  const words = `${more}: ${percent(weight)} image, ${percent(1 - weight)} captions.`;
  return { words, share: weight, left: `image ${percent(weight)}`, right: `captions ${percent(1 - weight)}`, of: "image" };
}

/** From this cosine on, two images are the same one; stored embeddings have 16 bits. */
const SAME_IMAGE = 0.999;

/** Who votes for what, and whether the image was in the memory all along. */
export function tally(captions) {
  const votes = new Map();
  for (const { vote } of captions) votes.set(vote, (votes.get(vote) ?? 0) + 1);
  const order = [...votes].sort((a, b) => b[1] - a[1]);
  const named = order.slice(0, 4);
  const rest = order.slice(4).reduce((sum, [, n]) => sum + n, 0);
  const words = named.map(([label, n], i) => (i === 0 ? `${n} of ${captions.length} vote for “${label}”` : `${n} for “${label}”`));
  if (rest) words.push(`${rest} for others`);
  const own = captions.filter((caption) => caption.image_similarity >= SAME_IMAGE).length;
  const remark = own ? ` The memory has this very image: ${own === 1 ? "one caption is" : `${own} captions are`} its own.` : "";
  return `${words.join(", ")}.${remark}`;
}
