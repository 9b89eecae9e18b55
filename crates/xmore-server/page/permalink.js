// A whole question in the fragment of a URL, which no server sees: labels, method, K, and the image as its embedding with a small
// thumbnail, or the id of a pair. What comes in may come from anybody: everything is bounded and checked.

import { base64, base64url, bytesOf, isEmbedding, jpegSize } from "./codec.js";

const LONGEST_FRAGMENT = 256 * 1024;
const LONGEST_LABEL = 500;
const MOST_THUMBNAIL_BYTES = 16 * 1024;
const LARGEST_THUMBNAIL_SIDE = 512;

/** What embeddings of this server are: those of all its models, one behind another. */
function space({ model, search_model, rerank_model }) {
  const models = new Map([model, search_model, rerank_model].filter(Boolean).map((model) => [model.fingerprint, model.dim]));
  return { models: [...models.keys()].map((fingerprint) => fingerprint.slice(0, 16)).join("."), dim: [...models.values()].reduce((a, b) => a + b, 0) };
}

/** The fragment, without its `#`. `input` has `id`, or `embedding` (base64) and perhaps `thumbnail` (JPEG bytes). */
export function write({ labels, method, k, input }, info) {
  const fields = new URLSearchParams([...labels.map((label) => ["label", label]), ["method", method]]);
  if (info.memory) fields.set("k", k);
  if (input.id !== undefined) fields.set("id", input.id);
  else {
    const { models, dim } = space(info);
    fields.set("model", models);
    fields.set("embedding", base64url(bytesOf(input.embedding, 4 * dim)));
    if (input.thumbnail) fields.set("thumbnail", base64url(input.thumbnail));
  }
  return fields.toString();
}

/** Whether a fragment means to be a permalink at all, and not the target of some link. */
export const isPermalink = (fragment) => /(^|&)label=/.test(fragment);

/** What a fragment asks, or `{ problem }` in words. */
export function read(fragment, info) {
  const problem = (what) => ({ problem: `This link cannot be opened: ${what}. Ask for a new one, or start with an image of your own.` });
  if (fragment.length > LONGEST_FRAGMENT) return problem(`it is longer than ${LONGEST_FRAGMENT} characters`);
  const fields = new URLSearchParams(fragment);

  const labels = fields.getAll("label");
  if (labels.length < 2 || labels.length > info.limits.labels || new Set(labels).size < labels.length) {
    return problem(`expected 2 to ${info.limits.labels} different labels`);
  }
  if (labels.some((label) => label !== label.trim() || !label || /\n/.test(label) || label.length > LONGEST_LABEL)) return problem(`a label is empty, padded, or longer than ${LONGEST_LABEL} characters`);

  const method = fields.get("method");
  if (!info.methods.includes(method)) return problem("this server does not have its method");
  const k = Number(fields.get("k") ?? info.retrieval?.k ?? 1);
  if (!Number.isInteger(k) || k < 1) return problem("K is not a whole number from 1");

  if (fields.has("id")) {
    const id = Number(fields.get("id"));
    if (!Number.isInteger(id) || id < 0 || id >= (info.memory?.pairs ?? 0)) return problem("this server's memory does not have its pair");
    return { labels, method, k, input: { id } };
  }
  const { models, dim } = space(info);
  if (fields.get("model") !== models) {
    return problem(`it was made with another model than ${info.model.name}, whose embeddings mean something else`);
  }
  const embedding = bytesOf(fields.get("embedding"), 4 * dim);
  if (!isEmbedding(embedding, dim)) return problem(`expected an embedding of ${dim} numbers`);
  const thumbnail = bytesOf(fields.get("thumbnail"), MOST_THUMBNAIL_BYTES);
  const size = jpegSize(thumbnail);
  const fits = size && Math.max(size.width, size.height) <= LARGEST_THUMBNAIL_SIDE;
  return { labels, method, k, input: { embedding: base64(embedding), thumbnail: fits ? thumbnail : undefined } };
}
