//! Many image files or texts to embeddings, a batch at a time; broken images are told apart.

use std::path::PathBuf;

use rayon::prelude::*;
use xmore_clip::{ClipError, Embeddings, Pixels, TextEmbeddings};

use crate::error::Result;
use crate::models::NamedModel;

/// Images that are decoded and encoded together: bounds memory, changes no number.
pub(crate) const BATCH: usize = 32;
/// Texts that are encoded together.
const TEXT_BATCH: usize = 256;

/// The embeddings of the images that could be read.
#[derive(Debug)]
pub struct EncodedImages<E = ClipError> {
    /// Unit rows `[kept, dim]`.
    pub embeddings: Embeddings,
    /// For each row, the index of its file.
    pub kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub failed: Vec<(usize, E)>,
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
    encode_images(model, files, |path| model.preprocess().load(path), progress)
}

/// Encodes images that `load` prepares, in order, as [`encode_files`] does; [`EncodedImages::kept`] and
/// [`EncodedImages::failed`] index `images`.
pub(crate) fn encode_images<T: Sync, E: Send>(
    model: &NamedModel,
    images: &[T],
    load: impl Fn(&T) -> Result<Pixels, E> + Sync,
    progress: &mut dyn FnMut(usize),
) -> Result<EncodedImages<E>> {
    let (mut rows, mut kept, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (n, batch) in images.chunks(BATCH).enumerate() {
        let loaded: Vec<_> = batch.par_iter().map(&load).collect();
        let mut pixels = Vec::with_capacity(batch.len());
        for (i, result) in loaded.into_iter().enumerate() {
            match result {
                Ok(image) => {
                    kept.push(n * BATCH + i);
                    pixels.push(image);
                }
                Err(error) => failed.push((n * BATCH + i, error)),
            }
        }
        if !pixels.is_empty() {
            rows.extend_from_slice(model.encode_images(&pixels)?.as_slice());
        }
        progress(n * BATCH + batch.len());
    }
    Ok(EncodedImages { embeddings: Embeddings::new(rows, model.dim()), kept, failed })
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
