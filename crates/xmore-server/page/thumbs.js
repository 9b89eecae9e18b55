// Images of pairs, loaded when they come near the screen; a quiet placeholder where there is none.

import * as api from "./api.js";
import { el } from "./dom.js";

/** An `img` cannot send a key, so with one images are fetched, and shown as blobs. */
const waiting = new WeakMap();
const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      fetchInto(target, waiting.get(target));
    }
  },
  { rootMargin: "300px" },
);

async function fetchInto(img, { id, size }) {
  try {
    const url = URL.createObjectURL(await api.pairImage(id, size));
    img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    img.src = url;
  } catch {
    none(img);
  }
}

const none = (img) => img.parentElement?.classList.add("no-image");

/** A frame with the image of a pair, not larger than `size` pixels. */
export function thumb(id, size, alt) {
  const img = el("img", { alt, decoding: "async", draggable: false });
  img.addEventListener("error", () => none(img));
  if (api.hasKey()) {
    waiting.set(img, { id, size });
    observer.observe(img);
  } else {
    img.loading = "lazy";
    img.src = api.pairImagePath(id, size);
  }
  return el("span", { className: "thumb" }, img);
}
