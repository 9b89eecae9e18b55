//! All that is to come of a build's sources, in one order, and its digest.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use xmore_files::LeftOut;
use xmore_memory::ingest::{
    EmbeddingsBatch, EmbeddingsFolder, InputFormat, Note, Pair, Source, SourceOptions, expand,
};

use super::{EMBEDDED_BATCH, Skipped};
use crate::error::{Result, XmoreError};

/// What the sources have: things skipped while listing, then pairs, then rows of embeddings. They are counted in this order.
pub(super) struct Sources {
    pub skipped: Vec<Skipped>,
    pub pairs: Vec<Pair>,
    pub embedded: Vec<EmbeddingsFolder>,
    /// What is worth knowing of how the sources were read.
    pub notes: Vec<Note>,
    /// Files of folders that were not looked at; they are not counted among what is to come.
    pub left_out: LeftOut,
}

impl Sources {
    /// Lists all sources. Paths are made absolute, so that a memory's images are found from anywhere.
    pub fn open(arguments: &[String], format: InputFormat, options: &SourceOptions) -> Result<Sources> {
        let mut sources = Sources {
            skipped: Vec::new(),
            pairs: Vec::new(),
            embedded: Vec::new(),
            notes: Vec::new(),
            left_out: LeftOut::default(),
        };
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| XmoreError::io("find", path, e));
        let image_root = options.image_root.as_deref().map(absolute).transpose()?;
        let options = SourceOptions { image_root, ..options.clone() };
        for path in expand(arguments)? {
            match Source::detect(absolute(&path)?, format, &options)? {
                Source::Embeddings(folder) => sources.embedded.push(folder),
                source => {
                    let ingested = source.read()?;
                    sources.pairs.extend(ingested.pairs);
                    sources.notes.extend(ingested.notes);
                    sources.left_out.merge(ingested.left_out);
                    let skipped = ingested.skipped.into_iter();
                    sources.skipped.extend(skipped.map(|skip| Skipped {
                        path: skip.path.display().to_string(),
                        reason: skip.reason.to_string(),
                    }));
                }
            }
        }
        Ok(sources)
    }

    /// Images and rows of embeddings in all.
    pub fn total(&self) -> u64 {
        self.pairs.len() as u64 + self.embedded.iter().map(EmbeddingsFolder::rows).sum::<u64>()
    }

    /// Digest of everything.
    pub fn digest(&self) -> Result<String> {
        let mut digest = Digest::default();
        self.add_prefix(u64::MAX, &mut digest)?;
        Ok(digest.value())
    }

    /// Digest of the first `things`, `None` if there are fewer.
    pub fn prefix_digest(&self, things: u64) -> Result<Option<String>> {
        let mut digest = Digest::default();
        let added = self.add_prefix(things, &mut digest)?;
        Ok((added == things).then(|| digest.value()))
    }

    /// Adds the first `things` to a digest; returns how many there were. Rows of embeddings are added in whole batches, as they
    /// are consumed.
    pub fn add_prefix(&self, things: u64, digest: &mut Digest) -> Result<u64> {
        let mut added = 0;
        for skip in &self.skipped {
            if added == things {
                return Ok(added);
            }
            digest.add_skip(skip);
            added += 1;
        }
        for pair in &self.pairs {
            if added == things {
                return Ok(added);
            }
            digest.add_pair(pair);
            added += 1;
        }
        for folder in &self.embedded {
            for batch in folder.batches(EMBEDDED_BATCH) {
                if added >= things {
                    return Ok(added);
                }
                let batch = batch?;
                digest.add_embedded(&batch);
                added += batch.len() as u64 + batch.skipped.total();
            }
        }
        Ok(added)
    }
}

/// SHA-256 over strings with their lengths.
#[derive(Clone, Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    pub fn add_skip(&mut self, skip: &Skipped) {
        self.add(&["skip", &skip.path, &skip.reason]);
    }

    pub fn add_pair(&mut self, pair: &Pair) {
        self.add(&["pair", &pair.image.to_string()]);
        self.0.update((pair.captions.len() as u64).to_le_bytes());
        pair.captions.iter().for_each(|caption| self.add(&[caption]));
    }

    pub fn add_embedded(&mut self, batch: &EmbeddingsBatch) {
        self.0.update(batch.skipped.total().to_le_bytes());
        for (path, caption) in batch.image_paths.iter().zip(&batch.captions) {
            self.add(&["row", path, caption]);
        }
        for values in [Some(&batch.images), batch.texts.as_ref()].into_iter().flatten() {
            values.iter().for_each(|value| self.0.update(value.to_le_bytes()));
        }
    }

    /// In hexadecimal.
    pub fn value(&self) -> String {
        self.0.clone().finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn add(&mut self, strings: &[&str]) {
        for string in strings {
            self.0.update((string.len() as u64).to_le_bytes());
            self.0.update(string.as_bytes());
        }
    }
}
