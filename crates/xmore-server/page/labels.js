// The labels: what was typed, lists to start from, lists saved on the server.

import * as api from "./api.js";
import { $, count, el, remember, remembered } from "./dom.js";
import { askForName } from "./dialogs.js";

const EXAMPLES = {
  "Everyday things": ["dog", "cat", "child", "bicycle", "car", "boat", "flower", "food"],
  "Places": ["beach", "mountains", "city street", "forest", "kitchen", "snow", "playground", "stage"],
  "Activities": ["running", "swimming", "climbing", "playing football", "riding a bike", "sitting and talking", "jumping", "sleeping"],
};

/** Labels of a text: one a line or with commas between; one in double quotes may have commas. */
export function parse(text) {
  const all = [];
  for (const [token, inQuotes] of text.matchAll(/[^\S\n]*"([^"\n]*)"[^\S\n]*(?=,|\n|$)|[^,\n]+/g)) {
    const label = (inQuotes ?? token).trim().replace(/\s+/g, " ");
    if (label) all.push(label);
  }
  const labels = [...new Set(all)];
  return { labels, repeated: all.length - labels.length };
}

const unparse = (labels) => labels.map((label) => (label.includes(",") ? `"${label.replaceAll('"', "")}"` : label)).join("\n");

/** The box of labels. `changed(now)` is called after every change; `now` where no more typing is to be waited for. */
export class LabelBox {
  #info;
  #changed;
  #fail;

  constructor(changed, fail) {
    this.#changed = changed;
    this.#fail = fail;
    $("labels").value = remembered("labels") ?? unparse(EXAMPLES["Everyday things"]);
    this.#count();
    $("labels").addEventListener("input", () => {
      $("label-set").value = "";
      this.#edited(false);
    });
    $("labels").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#edited(true);
    });
    $("label-set").addEventListener("change", () => this.#choose($("label-set").value));
    $("save-set").addEventListener("click", () => this.#save());
    $("delete-set").addEventListener("click", () => this.#delete());
  }

  get labels() {
    return parse($("labels").value).labels;
  }

  /** Shows labels without remembering them: those of somebody's link. */
  show(labels) {
    if (this.labels.join("\n") !== labels.join("\n")) $("labels").value = unparse(labels);
    $("label-set").value = "";
    this.#count();
  }

  /** Offers the lists that the server has. */
  offer(info) {
    this.#info = info;
    const group = (label, options) => el("optgroup", { label }, ...options);
    const groups = [group("Examples", Object.keys(EXAMPLES).map((name) => el("option", { value: `example:${name}` }, name)))];
    if (info.label_sets.length) {
      groups.push(group("Saved on this server", info.label_sets.map((set) => el("option", { value: `saved:${set.name}` }, `${set.name} (${set.labels})`))));
    }
    const select = $("label-set");
    const chosen = select.value;
    select.replaceChildren(el("option", { value: "" }, "your own"), ...groups);
    select.value = chosen;
    if (select.selectedIndex < 0) select.value = "";
    this.#count();
  }

  #count() {
    const { labels, repeated } = parse($("labels").value);
    $("labels-count").textContent = `${count(labels.length, "label")}${repeated ? `, ${repeated} repeated left out` : ""}.`;
    const canSave = this.#info?.features.save_label_sets;
    $("label-set-actions").hidden = !canSave;
    $("save-set").disabled = labels.length < 2;
    $("delete-set").hidden = !(canSave && $("label-set").value.startsWith("saved:"));
  }

  #edited(now) {
    remember("labels", $("labels").value);
    this.#count();
    this.#changed(now);
  }

  async #choose(value) {
    const [kind, name] = [value.slice(0, value.indexOf(":")), value.slice(value.indexOf(":") + 1)];
    if (value === "") return this.#count();
    try {
      const labels = kind === "example" ? EXAMPLES[name] : (await api.labelSet(name)).labels;
      if ($("label-set").value !== value) return; // Another was chosen meanwhile.
      $("labels").value = unparse(labels);
      this.#edited(true);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #save() {
    const labels = this.labels;
    const name = await askForName((name) => api.saveLabelSet(name, labels));
    if (name === null) return;
    const sets = this.#info.label_sets.filter((set) => set.name !== name);
    this.offer({ ...this.#info, label_sets: [...sets, { name, labels: labels.length }] });
    $("label-set").value = `saved:${name}`;
    this.#count();
  }

  async #delete() {
    const name = $("label-set").value.slice("saved:".length);
    if (!confirm(`Delete the list “${name}” from the server, for everyone?`)) return;
    try {
      await api.deleteLabelSet(name);
      $("label-set").value = "";
      this.offer({ ...this.#info, label_sets: this.#info.label_sets.filter((set) => set.name !== name) });
      $("label-set").focus();
    } catch (error) {
      this.#fail(error);
    }
  }
}
