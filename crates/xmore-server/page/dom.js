// Small helpers around the document. Text only ever goes in as text, so nothing needs escaping.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children (elements or strings). */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Shows `element` with a text, or hides it where there is none. */
export function say(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

/**
 * Makes the children of `parent` those of `items` in their order, keeping the element of a key that was there before: images are not
 * loaded again, bars move from where they were, focus stays. Only elements out of place are moved.
 */
export function keyed(parent, items, keyOf, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const focused = document.activeElement;
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    const element = old.get(key) ?? create(item);
    old.delete(key);
    element.dataset.key = key;
    update(element, item);
    return element;
  });
  old.forEach((element) => element.remove());
  let place = parent.firstElementChild;
  for (const element of wanted) {
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

export const lessMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** `n` with its noun: `1 caption`, `3 captions`. */
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** A share for prose: whole per cents, never a false 0 or 100. */
export function percent(share) {
  if (share > 0 && share < 0.005) return "<1\u202f%";
  if (share < 1 && share >= 0.995) return ">99\u202f%";
  return `${Math.round(100 * share)}\u202f%`;
}

/** A share for tables: one decimal. */
export const percent1 = (share) => `${(100 * share).toFixed(1)}\u202f%`;

/** What is remembered in this browser; nothing where storage is switched off. */
export function remember(key, value) {
  try {
    localStorage.setItem(`xmore.${key}`, value);
  } catch {
    // Not remembered then.
  }
}

export function remembered(key) {
  try {
    return localStorage.getItem(`xmore.${key}`);
  } catch {
    return null;
  }
}
