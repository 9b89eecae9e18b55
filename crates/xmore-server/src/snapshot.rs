//! The pairs as they were when they were last opened. A request keeps the one that it began with; a reload replaces it for later ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use xmore::{CaptionStore, Method, OpenPairs, Pipeline, Retrieval, RetrievalOptions, XmoreError};
use xmore_memory::Memory;
use xmore_memory::ingest::ImageReader;
use xmore_memory::store::{EmbeddingSet, Modality};

use crate::api_error::ApiError;
use crate::error::ServerError;
use crate::served_models::ServedModels;

/// Open pairs and the encoders that embedded them.
pub(crate) struct Snapshot {
    pub(crate) pipeline: Pipeline,
    /// Counts openings, from 1.
    pub(crate) generation: u64,
    /// Reads the images that the pairs name.
    pub(crate) images: ImageReader,
    /// The name of the memory's folder, if it is on this machine.
    pub(crate) index_name: Option<String>,
    pub(crate) opened: SystemTime,
    /// Whether it was logged that search codes are damaged.
    logged_damaged_codes: AtomicBool,
}

impl Snapshot {
    /// Pairs that were just opened.
    pub(crate) fn new(
        models: &ServedModels,
        captions: Arc<CaptionStore>,
        pairs: Option<Arc<OpenPairs>>,
        generation: u64,
    ) -> Result<Self, ServerError> {
        let index_name = pairs.as_deref().and_then(OpenPairs::memory).map(index_name);
        let snapshot = Self {
            pipeline: models.pipeline(captions, pairs)?,
            index_name,
            generation,
            images: ImageReader::new(),
            opened: SystemTime::now(),
            logged_damaged_codes: AtomicBool::new(false),
        };
        snapshot.warm_up()?;
        Ok(snapshot)
    }

    /// Searches once where a GPU does: at its first search kernels are compiled and rows are copied.
    fn warm_up(&self) -> Result<(), XmoreError> {
        let Some(memory) = self.pairs().filter(|pairs| pairs.gpu().is_some()).and_then(OpenPairs::memory)
        else {
            return Ok(());
        };
        let encoder = self.pipeline.encoders()[self.pipeline.searcher(Modality::Image)];
        let mut query = vec![0.0; encoder.dim()];
        query[0] = 1.0;
        encoder.embedding_set(memory)?.search(Modality::Image, &query, 1)?;
        Ok(())
    }

    /// The pairs, if there are any.
    pub(crate) fn pairs(&self) -> Option<&OpenPairs> {
        self.pipeline.pairs().map(|pairs| &**pairs)
    }

    /// Whether xmore-kernel is possible.
    pub(crate) fn allows_kernel(&self) -> bool {
        self.pipeline.allows(Method::Kernel)
    }

    /// Logs, once, that searches found search codes damaged.
    pub(crate) fn log_damaged_codes(&self) {
        let damaged = self.pairs().map(OpenPairs::damaged_codes).unwrap_or_default();
        if !damaged.is_empty() && !self.logged_damaged_codes.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?damaged,
                "search codes are damaged and are not used: answers are right, and slower"
            );
        }
    }

    /// Logs that images are decoded with another orientation than those of the memory.
    pub(crate) fn log_other_orientation(&self) {
        let ours = self.pipeline.encoder().orientation();
        if let Some(memory) = self.pairs().and_then(OpenPairs::orientation).filter(|memory| *memory != ours) {
            tracing::warn!("images are decoded with orientation {ours}, the memory's were with {memory}");
        }
    }

    /// Whether an error is a remote index's absence that is tolerated, which is logged.
    pub(crate) fn is_tolerated(&self, error: &XmoreError) -> bool {
        let tolerated = self.pipeline.is_tolerated(error);
        if tolerated {
            tracing::warn!("{error}; answering zero-shot");
        }
        tolerated
    }

    /// Retrieval from the pairs with a request's options, if there are any.
    pub(crate) fn retrieval(&self, options: RetrievalOptions) -> Result<Option<Retrieval>, XmoreError> {
        self.pipeline.retrieval().map(|retrieval| retrieval.with_options(options)).transpose()
    }

    /// The memory on this machine.
    ///
    /// # Errors
    /// That there is none; `what` needs it.
    pub(crate) fn memory(&self, what: &str) -> Result<&Memory, ApiError> {
        self.pairs().and_then(OpenPairs::memory).ok_or_else(|| ApiError::needs_memory(what))
    }

    /// Whether a pair may be looked at.
    pub(crate) fn shows(&self, memory: &Memory, id: u64) -> bool {
        id < memory.len() && self.pipeline.looks_at(id)
    }

    /// The embeddings of a pair's image by each [encoder](Pipeline::encoders).
    pub(crate) fn pair_embeddings(&self, id: u64) -> Result<Vec<Vec<f32>>, ApiError> {
        let memory = self.memory("an image by its id")?;
        if !self.shows(memory, id) {
            return Err(no_pair(id));
        }
        let mut all = Vec::new();
        for encoder in self.pipeline.encoders() {
            let set = encoder.embedding_set(memory)?;
            set.require(Modality::Image)?;
            let mut row = vec![0.0; set.dim()];
            set.image_embedding(id, &mut row)?;
            all.push(row);
        }
        Ok(all)
    }

    /// The embeddings that are searched for one modality, and the index of the encoder that made them among
    /// [all of them](Pipeline::encoders).
    pub(crate) fn embedding_set(&self, modality: Modality) -> Result<(&EmbeddingSet, usize), ApiError> {
        let memory = self.memory("searching")?;
        let index = self.pipeline.searcher(modality);
        Ok((self.pipeline.encoders()[index].embedding_set(memory)?, index))
    }
}

/// The name of a memory's folder.
fn index_name(memory: &Memory) -> String {
    let dir = std::fs::canonicalize(memory.dir()).unwrap_or_else(|_| memory.dir().to_owned());
    dir.file_name().map_or_else(|| "memory".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// That the memory has no such pair, or none that is shown.
pub(crate) fn no_pair(id: u64) -> ApiError {
    ApiError::new(crate::api_error::ErrorCode::NotFound, format!("the memory has no pair {id}"))
}
