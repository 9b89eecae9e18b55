// The two dialogs: the key of the server, and the name of a list of labels.

import { $, say } from "./dom.js";

/** Shows a dialog; `submit(value)` settles it unless it throws. Resolves to the value, or null where it was closed. */
function ask(name, input, submit) {
  const dialog = $(`${name}-dialog`);
  const form = $(`${name}-form`);
  const done = new AbortController();
  const { signal } = done;
  return new Promise((resolve) => {
    const settle = (value) => {
      done.abort();
      dialog.close();
      resolve(value);
    };
    form.addEventListener(
      "submit",
      async (event) => {
        event.preventDefault();
        const value = input.value.trim();
        if (value && (await submit(value))) settle(value);
      },
      { signal },
    );
    $(`${name}-cancel`).addEventListener("click", () => settle(null), { signal });
    // Escape, where a dialog closes by itself.
    dialog.addEventListener("close", () => settle(null), { signal });
    dialog.showModal();
    input.focus();
  });
}

/** The key of the server, or null. */
export function askForKey(first) {
  $("key").value = "";
  $("key").setAttribute("aria-invalid", String(!first));
  $("key-reason").textContent = first
    ? "The person who started it with --api-key knows the key."
    : "That key was not accepted. Check it for missing characters and try again.";
  return ask("key", $("key"), async () => true);
}

/** The name under which `save(name)` saved a list, or null. */
export function askForName(save) {
  say($("save-problem"), null);
  return ask("save", $("save-name"), async (name) => {
    try {
      await save(name);
      return true;
    } catch (error) {
      say($("save-problem"), error.message);
      return false;
    }
  });
}
