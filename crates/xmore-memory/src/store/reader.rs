//! Opening a memory: embeddings memory-mapped, metadata read on first need.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::manifest::Manifest;
use super::metadata::Metadata;
use super::npy::NpyMatrix;
use super::{BUILDING_DIR, IMAGE_CODES, IMAGES, MANIFEST_FILE, METADATA, Series, TEXT_CODES, TEXTS};
use crate::error::{AtPath, MemoryError, Result};
use crate::search::codes::Codes;

/// Which of a pair's two embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Modality {
    /// The image embedding.
    Image,
    /// The caption's embedding.
    Text,
}

/// An open memory. Cheap to open and to share between threads; a pair's id is its row, from 0.
///
/// The embedding files are memory-mapped: they must not be truncated or changed in place while they are open.
pub struct Memory {
    dir: PathBuf,
    manifest: Manifest,
    parts: Vec<Part>,
}

/// One part of an open memory.
pub(crate) struct Part {
    /// Id of its first row.
    first_id: u64,
    images: NpyMatrix,
    texts: NpyMatrix,
    image_codes: Option<Codes>,
    text_codes: Option<Codes>,
    metadata_path: PathBuf,
    metadata: OnceLock<Metadata>,
    /// Held while the metadata is read, so that it is read once.
    loading: Mutex<()>,
}

impl Memory {
    /// Opens the memory in `dir` and checks every part's header and size against the manifest.
    ///
    /// # Errors
    /// [`MemoryError::Incomplete`] for an interrupted build, [`MemoryError::NotAMemory`] for another directory,
    /// [`MemoryError::Manifest`], [`MemoryError::Version`], [`MemoryError::Damaged`], [`MemoryError::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Memory> {
        let dir = dir.as_ref();
        let manifest_path = dir.join(MANIFEST_FILE);
        fs::read_dir(dir).at("open", dir)?;
        if !manifest_path.try_exists().at("open", &manifest_path)? {
            if dir.join(BUILDING_DIR).exists() {
                return Err(MemoryError::Incomplete { path: dir.to_owned() });
            }
            let hint = if dir.join(IMAGES.name).is_dir() {
                "it looks like the output of clip-retrieval, which cannot be opened yet"
            } else {
                "build one first"
            };
            return Err(MemoryError::NotAMemory { path: dir.to_owned(), hint });
        }
        let manifest = Manifest::read(&manifest_path)?;

        let images = list_parts(dir, IMAGES, manifest.parts.len())?;
        let texts = list_parts(dir, TEXTS, manifest.parts.len())?;
        let metadata = list_parts(dir, METADATA, manifest.parts.len())?;
        let mut parts = Vec::with_capacity(manifest.parts.len());
        let mut first_id = 0;
        for (i, info) in manifest.parts.iter().enumerate() {
            let (image, text, meta) = (&images[i], &texts[i], &metadata[i]);
            for other in [text, meta] {
                if other.digits != image.digits {
                    return Err(MemoryError::Damaged {
                        path: other.path.clone(),
                        expected: format!("part {} to go with {}", image.digits, image.path.display()),
                        found: format!("part {}", other.digits),
                    });
                }
            }
            parts.push(Part {
                first_id,
                images: NpyMatrix::open(&image.path, info.rows, manifest.model.dim)?,
                texts: NpyMatrix::open(&text.path, info.rows, manifest.model.dim)?,
                image_codes: open_codes(dir, IMAGE_CODES, &image.digits, info.rows, manifest.model.dim)?,
                text_codes: open_codes(dir, TEXT_CODES, &image.digits, info.rows, manifest.model.dim)?,
                metadata_path: meta.path.clone(),
                metadata: OnceLock::new(),
                loading: Mutex::new(()),
            });
            // The sum was checked not to overflow when the manifest was read.
            first_id += info.rows;
        }
        Ok(Memory { dir: dir.to_owned(), manifest, parts })
    }

    /// Number of pairs.
    pub fn len(&self) -> u64 {
        self.manifest.pairs
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Embedding length.
    pub fn dim(&self) -> usize {
        self.manifest.model.dim
    }

    /// The manifest: model, counts, parts.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory the memory was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Caption of pair `id`. The first call for a part reads the part's metadata.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPair`], or what reading the metadata gives.
    pub fn caption(&self, id: u64) -> Result<&str> {
        let (part, row) = self.locate(id)?;
        part.metadata()?.captions.get(row).ok_or_else(|| self.no_such_pair(id))
    }

    /// Image path of pair `id`, as it was recorded. The first call for a part reads the part's metadata.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPair`], or what reading the metadata gives.
    pub fn image_path(&self, id: u64) -> Result<&str> {
        let (part, row) = self.locate(id)?;
        part.metadata()?.image_paths.get(row).ok_or_else(|| self.no_such_pair(id))
    }

    /// Writes the image embedding of pair `id` to `out`, `[dim]`.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPair`], or [`MemoryError::Length`] if `out` has another length.
    pub fn image_embedding(&self, id: u64, out: &mut [f32]) -> Result<()> {
        self.embedding(Modality::Image, id, out)
    }

    /// Writes the caption embedding of pair `id` to `out`, `[dim]`.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPair`], or [`MemoryError::Length`] if `out` has another length.
    pub fn text_embedding(&self, id: u64, out: &mut [f32]) -> Result<()> {
        self.embedding(Modality::Text, id, out)
    }

    fn embedding(&self, modality: Modality, id: u64, out: &mut [f32]) -> Result<()> {
        let (part, row) = self.locate(id)?;
        if out.len() != self.dim() {
            let (expected, found) = (self.dim(), out.len());
            return Err(MemoryError::Length { what: "output buffer", expected, found });
        }
        part.matrix(modality).read_row(row, out);
        Ok(())
    }

    /// The parts in id order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Part and row of a pair.
    fn locate(&self, id: u64) -> Result<(&Part, usize)> {
        if id >= self.len() {
            return Err(self.no_such_pair(id));
        }
        // Part 0 begins at id 0, so the point is at least 1. An empty part is never the last to begin at an id.
        let part = &self.parts[self.parts.partition_point(|p| p.first_id <= id) - 1];
        Ok((part, (id - part.first_id) as usize))
    }

    fn no_such_pair(&self, id: u64) -> MemoryError {
        MemoryError::NoSuchPair { id, len: self.len(), path: self.dir.clone() }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("dir", &self.dir)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

impl Part {
    /// Id of its first row.
    pub fn first_id(&self) -> u64 {
        self.first_id
    }

    /// Embeddings `[rows, dim]`.
    pub fn matrix(&self, modality: Modality) -> &NpyMatrix {
        match modality {
            Modality::Image => &self.images,
            Modality::Text => &self.texts,
        }
    }

    /// Codes of the embeddings, if there are any.
    pub fn codes(&self, modality: Modality) -> Option<&Codes> {
        match modality {
            Modality::Image => self.image_codes.as_ref(),
            Modality::Text => self.text_codes.as_ref(),
        }
    }

    fn metadata(&self) -> Result<&Metadata> {
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        // A thread that panicked in here has left nothing half done.
        let _guard = self.loading.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let metadata = Metadata::read(&self.metadata_path, self.images.rows() as u64)?;
        Ok(self.metadata.get_or_init(|| metadata))
    }
}

/// A part's codes; a memory is whole without them, and searched exactly all the same.
fn open_codes(dir: &Path, series: Series, digits: &str, rows: u64, dim: usize) -> Result<Option<Codes>> {
    let path = dir.join(series.name).join(format!("{}_{digits}{}", series.name, series.extension));
    if !path.try_exists().at("open", &path)? {
        return Ok(None);
    }
    // The rows were mapped, so their number is a usize.
    Codes::open(&path, rows as usize, dim).map(Some)
}

/// A part's file.
struct PartFile {
    digits: String,
    path: PathBuf,
}

/// The part files of a series sorted by name, as many as the manifest says.
fn list_parts(dir: &Path, series: Series, expected: usize) -> Result<Vec<PartFile>> {
    let folder = dir.join(series.name);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).at("read", &folder)? {
        let path = entry.at("read", &folder)?.path();
        if let Some(digits) = path.file_name().and_then(|n| n.to_str()).and_then(|n| series.digits(n)) {
            files.push(PartFile { digits: digits.to_owned(), path: path.clone() });
        }
    }
    if files.len() != expected {
        return Err(MemoryError::Damaged {
            path: folder,
            expected: format!("{expected} files {}_….{}", series.name, &series.extension[1..]),
            found: files.len().to_string(),
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
