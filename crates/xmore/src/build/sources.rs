//! All that a build's sources list, in one order, and its digest.

use std::ffi::OsStr;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use xmore_files::{LeftOut, hex, path_to_text};
use xmore_memory::ingest::{
    EmbeddingsBatch, EmbeddingsFolder, InputFormat, Note, Pair, Source, SourceOptions, expand,
};

use super::report::Skipped;
use super::{BuildOptions, EMBEDDED_BATCH};
use crate::error::{Result, XmoreError};

/// What the sources have: things skipped while listing, then pairs, then rows of embeddings.
pub(super) struct Sources {
    /// The arguments made absolute, and what else says which pairs they list: what the sources are known by when they have changed.
    pub from: Vec<String>,
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
    pub fn open(arguments: &[impl AsRef<OsStr>], options: &BuildOptions) -> Result<Sources> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| XmoreError::io("find", path, e));
        let image_root = options.source.image_root.as_deref().map(absolute).transpose()?;
        let mut from = Vec::new();
        for argument in arguments {
            from.push(path_to_text(&absolute(Path::new(argument))?).into_owned());
        }
        if options.format != InputFormat::Auto {
            from.push(format!("as {}", options.format));
        }
        if let Some(root) = &image_root {
            from.push(format!("images in {}", path_to_text(root)));
        }
        let mut sources = Sources {
            from,
            skipped: Vec::new(),
            pairs: Vec::new(),
            embedded: Vec::new(),
            notes: Vec::new(),
            left_out: LeftOut::default(),
        };
        let source_options = SourceOptions { image_root, ..options.source.clone() };
        for path in expand(arguments)? {
            match Source::detect(absolute(&path)?, options.format, &source_options)? {
                Source::Embeddings(folder) => sources.embedded.push(folder),
                source => {
                    let ingested = source.read()?;
                    sources.pairs.extend(ingested.pairs);
                    sources.notes.extend(ingested.notes);
                    sources.left_out.merge(ingested.left_out);
                    let skipped = ingested.skipped.into_iter();
                    sources.skipped.extend(skipped.map(|skip| Skipped {
                        path: skip.path,
                        kind: skip.reason.kind(),
                        reason: skip.reason.to_string(),
                    }));
                }
            }
        }
        Ok(sources)
    }

    /// Images and rows of embeddings, and what failed while they were listed.
    pub fn things(&self) -> u64 {
        let failed = self.skipped.iter().filter(|skip| skip.kind.is_failure()).count() as u64;
        self.pairs.len() as u64 + self.rows() + failed
    }

    /// Rows of embeddings.
    pub fn rows(&self) -> u64 {
        self.embedded.iter().map(EmbeddingsFolder::rows).sum()
    }

    /// Digest of everything.
    pub fn digest(&self) -> Result<String> {
        let mut digest = self.listed();
        for folder in &self.embedded {
            for batch in folder.batches(EMBEDDED_BATCH) {
                digest.add_embedded(&batch?);
            }
        }
        Ok(digest.value())
    }

    /// Digest of everything but the rows of embeddings, which follow it batch by batch.
    pub fn listed(&self) -> Digest {
        let mut digest = Digest::default();
        self.skipped.iter().for_each(|skip| digest.add_skip(skip));
        self.pairs.iter().for_each(|pair| digest.add_pair(pair));
        digest
    }
}

/// SHA-256 over strings with their lengths.
#[derive(Clone, Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    fn add_skip(&mut self, skip: &Skipped) {
        self.add(&["skip", &skip.path, &skip.reason]);
    }

    fn add_pair(&mut self, pair: &Pair) {
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
        hex(self.0.clone().finalize())
    }

    fn add(&mut self, strings: &[&str]) {
        for string in strings {
            self.0.update((string.len() as u64).to_le_bytes());
            self.0.update(string.as_bytes());
        }
    }
}
