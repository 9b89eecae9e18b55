//! Opening a memory: embeddings and strings memory-mapped, nothing read before it is asked for.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use half::f16;

use super::identity::ModelIdentity;
use super::layout::{BUILDING_DIR, EMBEDDING_SETS_DIR, IMAGES, LOOKUP, MANIFEST_FILE, METADATA, Modality};
use super::lookup::Lookup;
use super::manifest::{EmbeddingSetInfo, Manifest};
use super::metadata::Metadata;
use super::npy::NpyMatrix;
use crate::error::{AtPath, MemoryError, Result};
use crate::search::VectorError;
use crate::search::codes::Codes;
use crate::store::StoreError;

/// An open memory. Cheap to open and to share between threads; a pair's id is its row, from 0.
///
/// The files are memory-mapped: they must not be truncated or changed in place while they are open.
pub struct Memory {
    dir: PathBuf,
    manifest: Manifest,
    /// The primary embedding set, then the further ones.
    embedding_sets: Vec<EmbeddingSet>,
    strings: Vec<Strings>,
}

/// Embeddings of a memory's rows by one model.
pub struct EmbeddingSet {
    /// The memory's folder.
    memory: PathBuf,
    /// The embedding set's folder.
    dir: PathBuf,
    model: ModelIdentity,
    /// In the order of their ids; some of the memory's parts may be lacking.
    parts: Vec<Part>,
    /// Rows of the memory.
    len: u64,
    /// The card that searches, if it is not this machine.
    #[cfg(feature = "cuda")]
    pub(crate) gpu: Option<crate::search::gpu::GpuSearch>,
}

/// One part of an embedding set.
pub(crate) struct Part {
    /// Number in the names of its files.
    number: usize,
    /// Id of its first row.
    first_id: u64,
    rows: u64,
    images: Option<Embeddings>,
    texts: Embeddings,
}

/// The embeddings of one modality in one part.
pub(crate) struct Embeddings {
    pub matrix: NpyMatrix,
    /// Their 8-bit copy, where there is one.
    pub codes: Option<Codes>,
}

/// The embeddings of one part of a memory as they are stored.
pub(super) struct StoredPart<'a> {
    /// Id of its first row.
    pub first_id: u64,
    /// Image embeddings `[rows, dim]`.
    pub images: &'a [f16],
    /// Caption embeddings `[rows, dim]`.
    pub texts: &'a [f16],
}

/// The strings of one part.
struct Strings {
    first_id: u64,
    rows: u64,
    lookup: Option<Lookup>,
    metadata_path: PathBuf,
    /// Read from the parquet file where there is no lookup file.
    metadata: OnceLock<Metadata>,
    /// Held while the metadata is read, so that it is read once.
    loading: Mutex<()>,
}

impl Memory {
    /// Opens the memory in `dir` and checks every file's header and size against the manifest.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] for an interrupted build, [`StoreError::NotAMemory`] for another directory,
    /// [`StoreError::Manifest`], [`StoreError::Version`], [`StoreError::Damaged`], [`MemoryError::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Memory> {
        let dir = dir.as_ref();
        let manifest_path = dir.join(MANIFEST_FILE);
        fs::read_dir(dir).at("open", dir)?;
        if !manifest_path.try_exists().at("open", &manifest_path)? {
            if dir.join(BUILDING_DIR).exists() {
                return Err(StoreError::Incomplete { path: dir.to_owned() }.into());
            }
            let holds_embeddings = dir.join(IMAGES.name).is_dir();
            return Err(StoreError::NotAMemory { path: dir.to_owned(), holds_embeddings }.into());
        }
        let manifest = Manifest::read(&manifest_path)?;

        let mut embedding_sets = vec![EmbeddingSet::open_primary(dir, &manifest)?];
        for set in &manifest.embedding_sets {
            embedding_sets.push(EmbeddingSet::open_further(dir, &manifest, set)?);
        }
        let mut strings = Vec::with_capacity(manifest.parts.len());
        let mut first_id = 0;
        for info in &manifest.parts {
            let lookup = LOOKUP.path(dir, info.number);
            let lookup = if lookup.exists() { Some(Lookup::open(&lookup, info.rows)?) } else { None };
            let metadata_path = METADATA.path(dir, info.number);
            require_file(&metadata_path)?;
            strings.push(Strings {
                first_id,
                rows: info.rows,
                lookup,
                metadata_path,
                metadata: OnceLock::new(),
                loading: Mutex::new(()),
            });
            // The sum was checked not to overflow when the manifest was read.
            first_id += info.rows;
        }
        Ok(Memory { dir: dir.to_owned(), manifest, embedding_sets, strings })
    }

    /// Number of pairs.
    pub fn len(&self) -> u64 {
        self.manifest.pairs
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Embedding length of the primary embedding set.
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

    /// The embedding sets: the primary one, by the model that the memory was built with, and the further ones.
    pub fn embedding_sets(&self) -> &[EmbeddingSet] {
        &self.embedding_sets
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn embedding_sets_mut(&mut self) -> &mut [EmbeddingSet] {
        &mut self.embedding_sets
    }

    /// The primary embedding set.
    pub fn primary(&self) -> &EmbeddingSet {
        &self.embedding_sets[0]
    }

    /// The embedding set by a model, known by its fingerprint.
    pub fn embedding_set(&self, model: &ModelIdentity) -> Option<&EmbeddingSet> {
        self.embedding_sets.iter().find(|set| set.model.is_same(model))
    }

    /// Files of search codes that searches have found damaged. Their answers came from the embeddings instead, more slowly.
    pub fn damaged_codes(&self) -> Vec<PathBuf> {
        self.embedding_sets.iter().flat_map(EmbeddingSet::damaged_codes).collect()
    }

    /// Caption of pair `id`.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`], or what reading the strings gives.
    pub fn caption(&self, id: u64) -> Result<&str> {
        let (strings, row) = self.locate(id)?;
        match &strings.lookup {
            Some(lookup) => lookup.caption(row),
            None => strings.metadata()?.captions.get(row).ok_or_else(|| self.no_such_pair(id)),
        }
    }

    /// Image path of pair `id`, as it was recorded.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`], or what reading the strings gives.
    pub fn image_path(&self, id: u64) -> Result<&str> {
        let (strings, row) = self.locate(id)?;
        match &strings.lookup {
            Some(lookup) => lookup.image_path(row),
            None => strings.metadata()?.image_paths.get(row).ok_or_else(|| self.no_such_pair(id)),
        }
    }

    /// Whether pair `id` is of the same image as the pair before it: the pairs of one image follow one another.
    ///
    /// # Errors
    /// As [`Memory::image_path`].
    pub fn continues_image(&self, id: u64) -> Result<bool> {
        Ok(id > 0 && self.image_path(id)? == self.image_path(id - 1)?)
    }

    /// Writes the image embedding of pair `id` in the primary embedding set to `out`, `[dim]`.
    ///
    /// # Errors
    /// As [`EmbeddingSet::image_embedding`].
    pub fn image_embedding(&self, id: u64, out: &mut [f32]) -> Result<()> {
        self.primary().image_embedding(id, out)
    }

    /// Writes the caption embedding of pair `id` in the primary embedding set to `out`, `[dim]`.
    ///
    /// # Errors
    /// As [`EmbeddingSet::text_embedding`].
    pub fn text_embedding(&self, id: u64, out: &mut [f32]) -> Result<()> {
        self.primary().text_embedding(id, out)
    }

    /// The embeddings of the part in a place below the number of parts.
    pub(super) fn stored_part(&self, place: usize) -> StoredPart<'_> {
        let part = &self.primary().parts[place];
        let images = part.images.as_ref().map_or(&[][..], |images| images.matrix.data());
        StoredPart { first_id: part.first_id, images, texts: part.texts.matrix.data() }
    }

    /// Part and row of a pair.
    fn locate(&self, id: u64) -> Result<(&Strings, usize)> {
        if id >= self.len() {
            return Err(self.no_such_pair(id));
        }
        // Part 0 begins at id 0, so the point is at least 1. An empty part is never the last to begin at an id.
        let part = &self.strings[self.strings.partition_point(|p| p.first_id <= id) - 1];
        Ok((part, (id - part.first_id) as usize))
    }

    fn no_such_pair(&self, id: u64) -> MemoryError {
        StoreError::NoSuchPair { id, len: self.len(), path: self.dir.clone() }.into()
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

impl EmbeddingSet {
    /// The embedding set of the model that the memory was built with.
    fn open_primary(memory: &Path, manifest: &Manifest) -> Result<EmbeddingSet> {
        EmbeddingSet::open(memory, memory.to_owned(), manifest, &manifest.model, true, |_| true)
    }

    fn open_further(memory: &Path, manifest: &Manifest, set: &EmbeddingSetInfo) -> Result<EmbeddingSet> {
        let dir = memory.join(EMBEDDING_SETS_DIR).join(&set.name);
        EmbeddingSet::open(memory, dir, manifest, &set.model, set.images, |place| set.has_part(place))
    }

    fn open(
        memory: &Path,
        dir: PathBuf,
        manifest: &Manifest,
        model: &ModelIdentity,
        images: bool,
        has_part: impl Fn(usize) -> bool,
    ) -> Result<EmbeddingSet> {
        let mut parts = Vec::with_capacity(manifest.parts.len());
        let mut next_id = 0;
        for (place, info) in manifest.parts.iter().enumerate() {
            let first_id = next_id;
            next_id += info.rows;
            if !has_part(place) {
                continue;
            }
            let open = |modality: Modality| -> Result<Embeddings> {
                let path = modality.series().path(&dir, info.number);
                require_file(&path)?;
                let matrix = NpyMatrix::open(&path, info.rows, model.dim)?;
                let codes = modality.codes().path(&dir, info.number);
                let codes = if codes.exists() {
                    Some(Codes::open(&codes, info.rows as usize, model.dim)?)
                } else {
                    None
                };
                Ok(Embeddings { matrix, codes })
            };
            let images = if images { Some(open(Modality::Image)?) } else { None };
            parts.push(Part {
                number: info.number,
                first_id,
                rows: info.rows,
                images,
                texts: open(Modality::Text)?,
            });
        }
        Ok(EmbeddingSet {
            memory: memory.to_owned(),
            dir,
            model: model.clone(),
            parts,
            len: manifest.pairs,
            #[cfg(feature = "cuda")]
            gpu: None,
        })
    }

    /// The model whose embeddings these are.
    pub fn model(&self) -> &ModelIdentity {
        &self.model
    }

    /// Embedding length.
    pub fn dim(&self) -> usize {
        self.model.dim
    }

    /// Number of rows that have embeddings: fewer than the memory has if it has grown since the embedding set was made, or if a repair took
    /// some out.
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Checks that every row of the memory has an embedding of this modality.
    ///
    /// # Errors
    /// [`StoreError::NoEmbeddings`].
    pub fn require(&self, modality: Modality) -> Result<()> {
        if self.rows_with(modality) == self.len { Ok(()) } else { Err(self.incomplete(modality)) }
    }

    /// Number of rows that have an embedding of this modality.
    fn rows_with(&self, modality: Modality) -> u64 {
        let there = self.parts.iter().all(|part| part.embeddings(modality).is_some());
        if there { self.rows() } else { 0 }
    }

    /// The error for a row without an embedding of this modality.
    fn incomplete(&self, modality: Modality) -> MemoryError {
        let what = match modality {
            Modality::Image => "image embeddings",
            Modality::Text => "text embeddings",
        };
        let (path, model) = (self.memory.clone(), self.model.to_string());
        StoreError::NoEmbeddings { path, what, model, have: self.rows_with(modality), len: self.len }.into()
    }

    /// The stored rows of a modality, part by part: the id of a part's first row, and its rows `[rows, dim]` as its file has them, which is
    /// mapped. Nothing of a modality that the embedding set lacks.
    pub fn stored_rows(&self, modality: Modality) -> impl Iterator<Item = (u64, &[f16])> {
        self.parts
            .iter()
            .filter_map(move |part| Some((part.first_id, part.embeddings(modality)?.matrix.data())))
    }

    /// Writes the image embedding of pair `id` to `out`, `[dim]`.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`] beyond the memory's rows, [`StoreError::NoEmbeddings`] for a row that the embedding set lacks,
    /// [`VectorError::Length`] if `out` has another length.
    pub fn image_embedding(&self, id: u64, out: &mut [f32]) -> Result<()> {
        self.embedding(Modality::Image, id, out)
    }

    /// Writes the caption embedding of pair `id` to `out`, `[dim]`.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`] beyond the memory's rows, [`StoreError::NoEmbeddings`] for a row that the embedding set lacks,
    /// [`VectorError::Length`] if `out` has another length.
    pub fn text_embedding(&self, id: u64, out: &mut [f32]) -> Result<()> {
        self.embedding(Modality::Text, id, out)
    }

    fn embedding(&self, modality: Modality, id: u64, out: &mut [f32]) -> Result<()> {
        if out.len() != self.dim() {
            let (expected, found) = (self.dim(), out.len());
            return Err(VectorError::Length { what: "output buffer", expected, found }.into());
        }
        let part = self.parts.partition_point(|p| p.first_id <= id).checked_sub(1).map(|i| &self.parts[i]);
        let part = part.filter(|part| id - part.first_id < part.rows);
        let Some((part, embeddings)) = part.and_then(|part| Some((part, part.embeddings(modality)?))) else {
            return Err(if id < self.len {
                self.incomplete(modality)
            } else {
                StoreError::NoSuchPair { id, len: self.len, path: self.memory.clone() }.into()
            });
        };
        embeddings.matrix.read_row((id - part.first_id) as usize, out);
        Ok(())
    }

    fn damaged_codes(&self) -> impl Iterator<Item = PathBuf> {
        let of = |part: &Part, modality: Modality| {
            let codes = part.embeddings(modality)?.codes.as_ref()?;
            codes.found_damaged().then(|| modality.codes().path(&self.dir, part.number))
        };
        self.parts
            .iter()
            .flat_map(move |part| [Modality::Image, Modality::Text].map(|modality| of(part, modality)))
            .flatten()
    }

    /// The parts in id order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl fmt::Debug for EmbeddingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingSet")
            .field("dir", &self.dir)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Part {
    /// Id of its first row.
    pub fn first_id(&self) -> u64 {
        self.first_id
    }

    /// Embeddings `[rows, dim]`; `None` if the embedding set has none of this modality.
    pub fn embeddings(&self, modality: Modality) -> Option<&Embeddings> {
        match modality {
            Modality::Image => self.images.as_ref(),
            Modality::Text => Some(&self.texts),
        }
    }
}

impl Strings {
    fn metadata(&self) -> Result<&Metadata> {
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        // A thread that panicked in here has left nothing half done.
        let _guard = self.loading.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let metadata = Metadata::read(&self.metadata_path, self.rows)?;
        Ok(self.metadata.get_or_init(|| metadata))
    }
}

/// A file that the manifest speaks of must be there.
fn require_file(path: &Path) -> Result<()> {
    if path.try_exists().at("open", path)? {
        return Ok(());
    }
    let expected = "a file of the memory, as its manifest says".to_owned();
    Err(StoreError::Damaged { path: path.to_owned(), expected, found: "none".to_owned() }.into())
}
