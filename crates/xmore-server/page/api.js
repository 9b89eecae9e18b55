// The HTTP API: one error type, the key where one is wanted, and waiting where the server asks for it.

const RETRIES = 4;
const LONGEST_WAIT = 30;
const KEY = "xmore.key";

/** What went wrong, in the API's own words. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

// Set by the page: asks a person for the key (null where there is none), and tells of waiting (null where it is over).
let askForKey = async () => null;
let tellWaiting = () => {};
export function setHooks(hooks) {
  ({ askForKey, tellWaiting } = hooks);
}

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // Asked for again after a reload then.
}
let asking = null;

export const hasKey = () => key !== null;

/** Asks once, however many requests were refused at the same time. */
function newKey(refused) {
  if (key !== refused) return Promise.resolve(key !== null);
  asking ??= askForKey(refused === null)
    .then((given) => {
      if (given === null) return false;
      key = given;
      try {
        sessionStorage.setItem(KEY, given);
      } catch {
        // Kept for this page only then.
      }
      return true;
    })
    .finally(() => (asking = null));
  return asking;
}

/** Seconds to wait, of a Retry-After header in either of its forms. */
function secondsOf(header, attempt) {
  const seconds = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header ?? "") - Date.now()) / 1000;
  return Math.min(LONGEST_WAIT, Math.max(0.5, Number.isFinite(seconds) ? seconds : 2 ** attempt));
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

async function errorOf(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // Not from the API: a proxy, perhaps.
  }
  return new ApiError(response.status, error?.code ?? "http", error?.message ?? `the server answered ${response.status} ${response.statusText}`.trim());
}

/** The response to a request; rejects with an [`ApiError`], or as fetch does when aborted. `body` is FormData or what becomes JSON. */
async function send(method, path, { body, signal } = {}) {
  const isForm = body instanceof FormData;
  let waited = false;
  try {
    for (let attempt = 1; ; attempt++) {
      const used = key;
      const headers = {};
      if (used !== null) headers.Authorization = `Bearer ${used}`;
      if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
      let response;
      try {
        // Relative, so that the page also works under a prefix of a proxy.
        response = await fetch(path, { method, headers, signal, body: body === undefined || isForm ? body : JSON.stringify(body) });
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new ApiError(0, "unreachable", "The server cannot be reached. Is it still running?");
      }
      if (response.ok) return response;
      if (response.status === 401 && (await newKey(used))) {
        signal?.throwIfAborted();
        attempt = 0;
        continue;
      }
      const error = await errorOf(response);
      if (![429, 503].includes(response.status) || attempt > RETRIES) throw error;
      const seconds = secondsOf(response.headers.get("Retry-After"), attempt);
      waited = true;
      tellWaiting(`${error.message} (trying again in ${Math.ceil(seconds)} s, ${attempt} of ${RETRIES})`);
      await sleep(seconds, signal);
    }
  } finally {
    if (waited) tellWaiting(null);
  }
}

const json = async (...request) => (await send(...request)).json();

/** The one result of an answer on one image or text; its timings and generation come along. */
async function single(path, body, signal) {
  const answer = await json("POST", path, { body, signal });
  const result = answer.results[0];
  if (result.error) throw new ApiError(200, result.error.code, result.error.message);
  return { ...answer, result };
}

const setPath = (name) => `v1/label-sets/${encodeURIComponent(name)}`;

export const info = () => json("GET", "v1/info");
export const classify = (body, signal) => single("v1/classify", body, signal);
export const retrieve = (body, signal) => single("v1/retrieve", body, signal);
export const pair = (id) => json("GET", `v1/pairs/${id}`);
export const pairImagePath = (id, size) => `v1/pairs/${id}/image?size=${size}`;
export const pairImage = async (id, size, signal) => (await send("GET", pairImagePath(id, size), { signal })).blob();
export const labelSet = (name) => json("GET", setPath(name));
export const saveLabelSet = (name, labels) => send("PUT", setPath(name), { body: { labels } });
export const deleteLabelSet = (name) => send("DELETE", setPath(name));
