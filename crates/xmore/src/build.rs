//! Building a memory: pairs from a source through the encoders onto disk.

use std::path::{Path, PathBuf};

use xmore_memory::ingest::{ImageReader, InputFormat, Pair, Skip, Source, SourceOptions};
use xmore_memory::store::{Manifest, MemoryWriter};

use crate::encode::{BATCH, encode_images};
use crate::error::{Result, XmoreError};
use crate::models::NamedModel;

/// What a build did, for the user to see.
#[derive(Debug)]
pub struct BuildReport {
    /// The finished memory's manifest.
    pub manifest: Manifest,
    /// What gave no pair, and why: files of the source, and images that would not decode.
    pub skipped: Vec<Skipped>,
    /// Captions longer than the model's context, which were cut.
    pub truncated: usize,
}

/// Something of the source that is not in the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl From<Skip> for Skipped {
    fn from(skip: Skip) -> Self {
        Self { reason: skip.reason.to_string(), path: skip.path }
    }
}

/// How far a build has come.
#[derive(Clone, Copy, Debug)]
pub struct BuildProgress {
    /// Images done, skipped ones included.
    pub images: usize,
    /// Images in all.
    pub total: usize,
    /// Things skipped so far.
    pub skipped: usize,
}

/// Encodes all pairs of the sources and writes them to `dir`.
///
/// `progress` is called after each batch and says whether to go on; if not, the build ends with [`XmoreError::Interrupted`] and the folder
/// holds no finished memory.
///
/// # Errors
/// Sources that cannot be read, a folder that cannot be written or holds something else already (`overwrite` allows a memory).
pub fn build_memory(
    model: &NamedModel,
    sources: &[PathBuf],
    dir: &Path,
    overwrite: bool,
    progress: &mut dyn FnMut(BuildProgress) -> bool,
) -> Result<BuildReport> {
    let (mut pairs, mut skipped) = (Vec::new(), Vec::new());
    for source in sources {
        let ingested = Source::detect(source, InputFormat::Auto, &SourceOptions::default())?.read()?;
        pairs.extend(ingested.pairs);
        skipped.extend(ingested.skipped.into_iter().map(Skipped::from));
    }
    let create = if overwrite { MemoryWriter::create_overwriting } else { MemoryWriter::create };
    let mut writer = create(dir, model.identity())?;
    let reader = ImageReader::new();
    let mut truncated = 0;
    let mut done = 0;
    for batch in pairs.chunks(BATCH) {
        truncated += encode_batch(model, &reader, batch, &mut writer, &mut skipped)?;
        done += batch.len();
        if !progress(BuildProgress { images: done, total: pairs.len(), skipped: skipped.len() }) {
            return Err(XmoreError::Interrupted);
        }
    }
    writer.set_skipped(skipped.len() as u64);
    Ok(BuildReport { manifest: writer.finish()?, skipped, truncated })
}

/// Encodes one batch; returns how many captions were cut.
fn encode_batch(
    model: &NamedModel,
    reader: &ImageReader,
    batch: &[Pair],
    writer: &mut MemoryWriter,
    skipped: &mut Vec<Skipped>,
) -> Result<usize> {
    let load = |pair: &Pair| -> Result<_> {
        let bytes = reader.read(&pair.image)?;
        Ok(model.preprocess().load_bytes(&bytes, Path::new(&pair.image.to_string()))?)
    };
    let images = encode_images(model, batch, load, &mut |_| {})?;
    skipped.extend(
        images.failed.iter().map(|(n, error)| Skipped {
            path: batch[*n].image.to_string().into(),
            reason: error.to_string(),
        }),
    );
    let kept: Vec<&Pair> = images.kept.iter().map(|&n| &batch[n]).collect();
    if kept.is_empty() {
        return Ok(0);
    }
    let captions: Vec<&str> = kept.iter().flat_map(|pair| &pair.captions).map(String::as_str).collect();
    let texts = model.encode_texts(&captions)?;
    let mut text = texts.embeddings.rows();
    for (pair, image) in kept.iter().zip(images.embeddings.rows()) {
        let path = pair.image.to_string();
        for (caption, text) in pair.captions.iter().zip(text.by_ref()) {
            writer.push(&path, caption, image, text)?;
        }
    }
    Ok(texts.truncated)
}
