// The search over the memory: by words, or by the image that is loaded.

import * as api from "./api.js";
import { $, count, el, keyed, say } from "./dom.js";
import { thumb } from "./thumbs.js";

const PAGE = 48;
const MOST = 384;

/** The search. `classify(pair)` takes a result over; `withLoaded(options)` is a request's body with the loaded image. */
export class Search {
  #classify;
  #withLoaded;
  #running = null;
  #last = null;

  constructor(classify, withLoaded) {
    this.#classify = classify;
    this.#withLoaded = withLoaded;
    $("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("search-text").value.trim();
      if (text) this.#start({ body: { text }, words: `“${text}”` });
      else $("search-text").focus();
    });
    $("find-similar").addEventListener("click", () => this.#start({ words: "the loaded image" }));
    for (const id of ["search-images", "search-captions"]) {
      $(id).addEventListener("change", () => this.#last && this.#start({ ...this.#last, n: PAGE }));
    }
    $("found-more").addEventListener("click", () => this.#start({ ...this.#last, n: Math.min(MOST, this.#last.n * 2) }));
  }

  /** `body` has the text; without one the loaded image is looked for. */
  async #start({ body, words, n = PAGE }) {
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    say($("search-problem"), null);
    $("search").setAttribute("aria-busy", "true");
    const modality = $("search-captions").checked ? "text" : "image";
    try {
      const options = { n, modality };
      const answer = await api.retrieve(body ? { ...body, ...options } : this.#withLoaded(options), running.signal);
      this.#last = { body, words, n };
      this.#show(answer.result.pairs, words, modality, n);
    } catch (error) {
      if (running.signal.aborted) return;
      this.#show([], null);
      say($("search-problem"), error.message);
    } finally {
      if (this.#running === running) $("search").removeAttribute("aria-busy");
    }
  }

  #show(pairs, words, modality, n) {
    const groups = grouped(pairs);
    const what = modality === "text" ? "captions" : "images";
    const images = groups.length < pairs.length ? ` of ${count(groups.length, "image")}` : "";
    $("found-summary").textContent =
      words === null ? "" : pairs.length ? `The ${count(pairs.length, "pair")}${images} whose ${what} are nearest to ${words}.` : `Nothing in the memory for ${words}.`;
    keyed($("found"), groups, (group) => group.map((pair) => pair.id).join(","), (group) => this.#card(group), () => {});
    $("found-more").hidden = words === null || pairs.length < n || n >= MOST;
  }

  #card(group) {
    const [first] = group;
    const name = first.caption || `pair ${first.id}`;
    const button = el("button", { type: "button", className: "quiet", ariaLabel: `Classify this one: ${name}` }, "Classify this one");
    button.addEventListener("click", () => this.#classify(first));
    const others = group.length > 1 ? [el("p", { className: "fine" }, `and ${count(group.length - 1, "more caption")}`)] : [];
    return el(
      "li",
      {},
      thumb(first.id, 320, ""),
      el("p", { className: "text" }, first.caption || "(no caption)"),
      ...others,
      el("p", { className: "fine numbers" }, `similarity ${first.similarity.toFixed(2)}`),
      button,
    );
  }
}

/** Pairs with the same image together, at the place of the best one. */
function grouped(pairs) {
  const groups = new Map();
  for (const pair of pairs) {
    const key = pair.image_path || `pair ${pair.id}`;
    if (groups.has(key)) groups.get(key).push(pair);
    else groups.set(key, [pair]);
  }
  return [...groups.values()];
}
