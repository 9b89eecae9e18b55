//! All that a build's sources list, in one order, and its digest.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

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
        let mut sources = Sources::named(arguments, options)?;
        for source in detect(arguments, options)? {
            sources.read(source, None)?;
        }
        Ok(sources)
    }

    /// Sources that go by these arguments, of which none has been read.
    pub fn named(arguments: &[impl AsRef<OsStr>], options: &BuildOptions) -> Result<Sources> {
        let mut from = Vec::new();
        for argument in arguments {
            from.push(path_to_text(&absolute(Path::new(argument))?).into_owned());
        }
        if options.format != InputFormat::Auto {
            from.push(format!("as {}", options.format));
        }
        if let Some(root) = &options.source.image_root {
            from.push(format!("images in {}", path_to_text(&absolute(root)?)));
        }
        Ok(Sources {
            from,
            skipped: Vec::new(),
            pairs: Vec::new(),
            embedded: Vec::new(),
            notes: Vec::new(),
            left_out: LeftOut::default(),
        })
    }

    /// Adds what a source lists, or what a range of its files does.
    pub fn read(&mut self, source: Source, files: Option<Range<usize>>) -> Result<()> {
        let source = match source {
            Source::Embeddings(folder) => {
                self.embedded.push(folder);
                return Ok(());
            }
            source => source,
        };
        let ingested = match files {
            Some(files) => source.read_files(files)?,
            None => source.read()?,
        };
        self.pairs.extend(ingested.pairs);
        self.notes.extend(ingested.notes);
        self.left_out.merge(ingested.left_out);
        let skipped = ingested.skipped.into_iter();
        self.skipped.extend(skipped.map(|skip| Skipped {
            path: skip.path,
            kind: skip.reason.kind(),
            reason: skip.reason.to_string(),
        }));
        Ok(())
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

/// The kind of each source that the arguments name.
pub(super) fn detect(arguments: &[impl AsRef<OsStr>], options: &BuildOptions) -> Result<Vec<Source>> {
    let image_root = options.source.image_root.as_deref().map(absolute).transpose()?;
    let source_options = SourceOptions { image_root, ..options.source.clone() };
    let detect = |path: PathBuf| Ok(Source::detect(absolute(&path)?, options.format, &source_options)?);
    expand(arguments)?.into_iter().map(detect).collect()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| XmoreError::io("find", path, e))
}

/// Appends the bytes by which something that was skipped while listing goes into a digest.
pub(super) fn append_skip(bytes: &mut Vec<u8>, skip: &Skipped) {
    append(bytes, &["skip", &skip.path, &skip.reason]);
}

/// The same of a pair.
pub(super) fn append_pair(bytes: &mut Vec<u8>, pair: &Pair) {
    append(bytes, &["pair", &pair.image.to_string()]);
    bytes.extend_from_slice(&(pair.captions.len() as u64).to_le_bytes());
    pair.captions.iter().for_each(|caption| append(bytes, &[caption]));
}

/// Appends strings with their lengths.
fn append(bytes: &mut Vec<u8>, strings: &[&str]) {
    for string in strings {
        bytes.extend_from_slice(&(string.len() as u64).to_le_bytes());
        bytes.extend_from_slice(string.as_bytes());
    }
}

/// SHA-256 of all that sources list.
#[derive(Clone, Default)]
pub(super) struct Digest {
    hash: Sha256,
    /// Reused.
    bytes: Vec<u8>,
}

impl Digest {
    fn add_skip(&mut self, skip: &Skipped) {
        self.add_appended(|bytes| append_skip(bytes, skip));
    }

    fn add_pair(&mut self, pair: &Pair) {
        self.add_appended(|bytes| append_pair(bytes, pair));
    }

    pub fn add_embedded(&mut self, batch: &EmbeddingsBatch) {
        self.add(&batch.skipped.total().to_le_bytes());
        for (path, caption) in batch.image_paths.iter().zip(&batch.captions) {
            self.add_strings(&["row", path, caption]);
        }
        for values in [Some(&batch.images), batch.texts.as_ref()].into_iter().flatten() {
            values.iter().for_each(|value| self.hash.update(value.to_le_bytes()));
        }
    }

    /// Adds bytes as they are.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// Adds strings with their lengths.
    pub fn add_strings(&mut self, strings: &[&str]) {
        self.add_appended(|bytes| append(bytes, strings));
    }

    /// In hexadecimal.
    pub fn value(&self) -> String {
        hex(self.hash.clone().finalize())
    }

    fn add_appended(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.clear();
        append(&mut self.bytes);
        self.hash.update(&self.bytes);
    }
}
