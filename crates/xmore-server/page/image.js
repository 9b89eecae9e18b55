// Pictures in the browser: how they come in, small copies for permalinks, smaller ones where the server's limit is passed.

const THUMBNAIL_SIDE = 144;
const MOST_THUMBNAIL_BYTES = 6 * 1024;
/** Room for the other parts of the request. */
const OVERHEAD = 256 * 1024;

export const isImage = (file) => file.type.startsWith("image/");

/** Images of a drop or of the clipboard, and whether there was anything else. */
export function imagesOf(transfer) {
  const files = [...(transfer?.files ?? [])];
  return { images: files.filter(isImage), others: files.length > 0 };
}

/** Calls `take(files)` for a drop anywhere on the page, and `curtain(visible)` while one is dragged over it. */
export function onDrop(take, curtain) {
  let depth = 0;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth++;
    curtain(true);
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (depth === 0) curtain(false);
  });
  addEventListener("drop", (event) => {
    depth = 0;
    curtain(false);
    if (!hasFiles(event)) return;
    event.preventDefault();
    take(event.dataTransfer);
  });
}

/** Calls `take(files)` for a pasted image. Text goes where it was meant to. */
export function onPaste(take) {
  addEventListener("paste", (event) => {
    const isText = event.target.matches?.("input, textarea") && event.clipboardData?.types.includes("text/plain");
    if (isText || !imagesOf(event.clipboardData).images.length) return;
    event.preventDefault();
    take(event.clipboardData);
  });
}

function scaled(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const jpegOf = (canvas, quality) => new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));

/** A few kilobytes of JPEG that show what an image was, or undefined where the browser cannot read it. */
export async function thumbnail(blob) {
  try {
    const bitmap = await createImageBitmap(blob);
    const canvas = scaled(bitmap, Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height)));
    bitmap.close();
    for (const quality of [0.7, 0.5, 0.3, 0.1]) {
      const jpeg = await jpegOf(canvas, quality);
      if (jpeg && jpeg.size <= MOST_THUMBNAIL_BYTES) return new Uint8Array(await jpeg.arrayBuffer());
    }
  } catch {
    // Not a picture that this browser knows; the server may.
  }
  return undefined;
}

/**
 * The blob to send: the very bytes wherever they fit, so that the answer is that of the command line, else a smaller JPEG and a note
 * that says so. The server does not turn photos by their EXIF orientation, so neither does this.
 */
export async function fitting(blob, bodyBytes) {
  const most = bodyBytes - Math.min(OVERHEAD, bodyBytes / 4);
  if (blob.size <= most) return { blob, note: null };
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "none" });
  } catch {
    return { blob, note: null };
  }
  const { width, height } = bitmap;
  try {
    for (let scale = 1; Math.max(width, height) * scale >= 224; scale *= 0.75) {
      const canvas = scaled(bitmap, scale);
      const jpeg = await jpegOf(canvas, 0.92);
      if (jpeg && jpeg.size <= most) {
        const note =
          `This file (${megabytes(blob.size)}) is over the server's limit of ${megabytes(bodyBytes)}; the browser made a smaller copy of it, ` +
          `${canvas.width} × ${canvas.height}, so scores can differ by a hair from those of the original.`;
        return { blob: jpeg, note };
      }
    }
  } finally {
    bitmap.close();
  }
  return { blob, note: null };
}

const megabytes = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
