//! Many images or texts to embeddings, a batch at a time; broken images are told apart.
//!
//! Reading, decoding and encoding overlap: a thread reads the files of the batch after next, and the pool decodes the next batch
//! beside the encoder, so that neither disk nor decoder is waited for. Batches change no number.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::prelude::*;
use xmore_clip::{Embeddings, Pixels, TextEmbeddings};
use xmore_memory::ingest::{ImageReader, ImageRef};

use crate::error::{Result, XmoreError};
use crate::models::NamedModel;

/// Images that are decoded and encoded together: bounds memory.
const BATCH: usize = 32;
/// A batch with this many bytes of files is complete, however few they are.
const BATCH_BYTES: usize = 64 << 20;
/// Texts that are encoded together.
const TEXT_BATCH: usize = 256;

/// The embeddings of the images that could be read.
#[derive(Debug)]
pub struct EncodedImages {
    /// Unit rows `[kept, dim]`.
    pub embeddings: Embeddings,
    /// For each row, the index of its file.
    pub kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub failed: Vec<(usize, XmoreError)>,
}

/// Encodes image files in order. `progress` is told how many are done.
///
/// # Errors
/// Those of loading the image tower; a broken image is no error but counted in [`EncodedImages::failed`].
pub fn encode_files(
    model: &NamedModel,
    files: &[PathBuf],
    progress: &mut dyn FnMut(usize),
) -> Result<EncodedImages> {
    struct Collect<'a> {
        rows: Vec<f32>,
        kept: Vec<usize>,
        failed: Vec<(usize, XmoreError)>,
        progress: &'a mut dyn FnMut(usize),
    }
    impl Sink for Collect<'_> {
        fn take(&mut self, batch: Batch, images: Embeddings, _: TextEmbeddings) -> Result<bool> {
            self.rows.extend_from_slice(images.as_slice());
            self.kept.extend(batch.kept);
            self.failed.extend(batch.failed);
            (self.progress)(batch.end);
            Ok(true)
        }
    }
    let images: Vec<ImageRef> = files.iter().cloned().map(ImageRef::File).collect();
    let mut sink = Collect { rows: Vec::new(), kept: Vec::new(), failed: Vec::new(), progress };
    encode_images(model, &images, &mut sink)?;
    let Collect { rows, kept, failed, .. } = sink;
    Ok(EncodedImages { embeddings: Embeddings::new(rows, model.dim()), kept, failed })
}

/// What becomes of batches of images, in their order.
pub(crate) trait Sink {
    /// Texts to be encoded together with a batch of images.
    fn texts(&mut self, _batch: &Batch) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Takes a batch with the embeddings of the images that could be read and of the texts; says whether to go on.
    fn take(&mut self, batch: Batch, images: Embeddings, texts: TextEmbeddings) -> Result<bool>;
}

/// Consecutive images, decoded.
pub(crate) struct Batch {
    /// Index of the first image behind it.
    pub end: usize,
    /// Indices of the images that could be read.
    pub kept: Vec<usize>,
    /// Indices of the others, and why.
    pub failed: Vec<(usize, XmoreError)>,
    pixels: Vec<Pixels>,
}

/// Encodes images in order and hands them to `sink` batch by batch.
///
/// # Errors
/// Those of loading the towers, and the sink's.
pub(crate) fn encode_images(model: &NamedModel, images: &[ImageRef], sink: &mut dyn Sink) -> Result<()> {
    std::thread::scope(|scope| {
        let (send, mut receive) = sync_channel(1);
        scope.spawn(move || read_ahead(images, &send));
        let mut next = decode_next(model, &mut receive);
        while let Some(batch) = next {
            let texts = sink.texts(&batch)?;
            let (encoded, following) = rayon::join(
                || {
                    Ok::<_, XmoreError>((
                        encode_pixels(model, &batch.pixels)?,
                        encode_texts(model, &texts, &mut |_| {})?,
                    ))
                },
                || decode_next(model, &mut receive),
            );
            let (images, texts) = encoded?;
            if !sink.take(batch, images, texts)? {
                break;
            }
            next = following;
        }
        // The reader, if it is not done, finds nobody to send to.
        Ok(())
    })
}

/// Bytes of consecutive images, with the index of each.
type ReadBatch = Vec<(usize, Result<Vec<u8>>, PathBuf)>;

fn read_ahead(images: &[ImageRef], send: &SyncSender<ReadBatch>) {
    let reader = ImageReader::new();
    let (mut batch, mut bytes) = (ReadBatch::new(), 0);
    for (i, image) in images.iter().enumerate() {
        let read = reader.read(image).map_err(XmoreError::from);
        bytes += read.as_ref().map_or(0, Vec::len);
        batch.push((i, read, PathBuf::from(image.to_string())));
        if batch.len() == BATCH || bytes >= BATCH_BYTES || i + 1 == images.len() {
            if send.send(std::mem::take(&mut batch)).is_err() {
                return;
            }
            bytes = 0;
        }
    }
}

/// Waits for the next batch to be read, and decodes it.
fn decode_next(model: &NamedModel, receive: &mut Receiver<ReadBatch>) -> Option<Batch> {
    let read = receive.recv().ok()?;
    let end = read.last().map_or(0, |(i, ..)| i + 1);
    let preprocess = model.preprocess();
    let decoded: Vec<_> = read
        .into_par_iter()
        .map(|(i, bytes, name)| (i, bytes.and_then(|bytes| Ok(preprocess.load_bytes(&bytes, &name)?))))
        .collect();
    let mut batch = Batch { end, kept: Vec::new(), failed: Vec::new(), pixels: Vec::new() };
    for (i, result) in decoded {
        match result {
            Ok(pixels) => {
                batch.kept.push(i);
                batch.pixels.push(pixels);
            }
            Err(error) => batch.failed.push((i, error)),
        }
    }
    Some(batch)
}

fn encode_pixels(model: &NamedModel, pixels: &[Pixels]) -> Result<Embeddings> {
    // Without an image the tower need not even be loaded.
    if pixels.is_empty() {
        Ok(Embeddings::new(Vec::new(), model.dim()))
    } else {
        Ok(model.encode_images(pixels)?)
    }
}

/// Encodes texts in order. `progress` is told how many are done.
///
/// # Errors
/// Those of [`xmore_clip::Model::encode_texts`].
pub fn encode_texts<S: AsRef<str> + Sync>(
    model: &NamedModel,
    texts: &[S],
    progress: &mut dyn FnMut(usize),
) -> Result<TextEmbeddings> {
    let mut rows = Vec::with_capacity(texts.len() * model.dim());
    let (mut truncated, mut done) = (0, 0);
    for batch in texts.chunks(TEXT_BATCH) {
        let encoded = model.encode_texts(batch)?;
        rows.extend_from_slice(encoded.embeddings.as_slice());
        truncated += encoded.truncated;
        done += batch.len();
        progress(done);
    }
    Ok(TextEmbeddings { embeddings: Embeddings::new(rows, model.dim()), truncated })
}
