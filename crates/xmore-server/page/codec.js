// Bytes and base64, in both alphabets; never more than the caller allows.

/** Bytes of base64 or base64url, or null where it is not that or decodes to more than `most` bytes. */
export function bytesOf(text, most) {
  if (typeof text !== "string" || text.length > Math.ceil(most / 3) * 4 || !/^[A-Za-z0-9+/_-]*={0,2}$/.test(text)) return null;
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return binary.length > most ? null : Uint8Array.from(binary, (c) => c.charCodeAt(0));
  } catch {
    return null;
  }
}

export function base64(bytes) {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(binary);
}

export const base64url = (bytes) => base64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

/** Whether bytes are `dim` little-endian f32 that can be a direction: finite and not all zero. */
export function isEmbedding(bytes, dim) {
  if (bytes?.length !== 4 * dim) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let square = 0;
  for (let i = 0; i < dim; i++) square += view.getFloat32(4 * i, true) ** 2;
  return Number.isFinite(square) && square > 0;
}

/** Width and height in a JPEG's header, or null. Looked at before a stranger's thumbnail is decoded. */
export function jpegSize(bytes) {
  if (bytes?.[0] !== 0xff || bytes[1] !== 0xd8) return null;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return { height: (bytes[at + 5] << 8) | bytes[at + 6], width: (bytes[at + 7] << 8) | bytes[at + 8] };
    at += 2 + ((bytes[at + 2] << 8) | bytes[at + 3]);
  }
  return null;
}
