//! The pairs as they were when they were last opened. Requests hold on to the one they began with; a reload puts another in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use xmore::{
    CaptionStore, NamedModel, OpenPairs, Queries, Retrieval, RetrievalModels, RetrievalOptions, XmoreError,
};
use xmore_clip::Embeddings;
use xmore_memory::ingest::ImageReader;
use xmore_memory::store::{Column, Modality};
use xmore_memory::{Memory, MemoryError, RowSet};

use crate::error::{ApiError, ServerError};
use crate::options::Backend;

/// Open pairs and the models that know them.
pub(crate) struct Snapshot {
    backend: Arc<Backend>,
    captions: Arc<CaptionStore>,
    /// Counts openings, from 1.
    pub(crate) generation: u64,
    pub(crate) pairs: Option<OpenPairs>,
    /// Reads the images that the pairs name.
    pub(crate) images: ImageReader,
    /// The name of the memory's folder, if it is on this machine.
    pub(crate) index_name: Option<String>,
    allowed: Option<RowSet>,
    pub(crate) opened: SystemTime,
    /// Whether xmore-calibrated is possible.
    pub(crate) calibrates: bool,
    /// Whether the log has that search codes are damaged.
    told_of_codes: AtomicBool,
}

impl Snapshot {
    /// Pairs that were just opened.
    pub(crate) fn new(
        backend: Arc<Backend>,
        captions: Arc<CaptionStore>,
        pairs: Option<OpenPairs>,
        generation: u64,
    ) -> Result<Self, ServerError> {
        let filter = backend.pairs.as_ref().and_then(|source| source.caption_filter.as_ref());
        let filter = filter.zip(pairs.as_ref());
        let allowed = filter.map(|(pattern, pairs)| pairs.rows_with_caption(pattern)).transpose()?;
        let index_name = match &pairs {
            Some(OpenPairs::Memory(memory)) => Some(index_name(memory)),
            _ => None,
        };
        let mut snapshot = Self {
            index_name,
            captions,
            generation,
            pairs,
            images: ImageReader::new(),
            allowed,
            opened: SystemTime::now(),
            calibrates: false,
            told_of_codes: AtomicBool::new(false),
            backend,
        };
        let retrieval = snapshot.retrieval(snapshot.backend.retrieval)?;
        snapshot.calibrates = retrieval.is_some_and(|retrieval| retrieval.check_calibrated().is_ok());
        Ok(snapshot)
    }

    /// Logs, once, that searches found search codes damaged.
    pub(crate) fn tell_damaged_codes(&self) {
        let damaged = self.pairs.as_ref().map(OpenPairs::damaged_codes).unwrap_or_default();
        if !damaged.is_empty() && !self.told_of_codes.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?damaged,
                "search codes are damaged and are not used: answers are right, and slower"
            );
        }
    }

    /// Logs that images are decoded with another orientation than those of the memory.
    pub(crate) fn tell_other_orientation(&self) {
        let ours = self.backend.model.preprocess().orientation();
        if let Some(memory) =
            self.pairs.as_ref().and_then(OpenPairs::orientation).filter(|memory| *memory != ours)
        {
            tracing::warn!("images are decoded with orientation {ours}, the memory's were with {memory}");
        }
    }

    /// Retrieval from the pairs, if there are any.
    pub(crate) fn retrieval(&self, options: RetrievalOptions) -> Result<Option<Retrieval<'_>>, XmoreError> {
        let Some(pairs) = &self.pairs else { return Ok(None) };
        let backend = &self.backend;
        let models = RetrievalModels {
            search: backend.search.as_ref().unwrap_or(&backend.model),
            rerank: backend.rerank.as_ref().unwrap_or(&backend.model),
            classify: &backend.model,
        };
        let rows = backend.pairs.as_ref().and_then(|source| source.rows.clone());
        let retrieval = Retrieval::new(pairs.as_pairs(), models, options)?;
        Ok(Some(retrieval.only(rows, self.allowed.as_ref())?.keeping_captions(&self.captions)))
    }

    /// The memory on this machine.
    ///
    /// # Errors
    /// That there is none; `what` needs it.
    pub(crate) fn memory(&self, what: &str) -> Result<&Memory, ApiError> {
        match &self.pairs {
            Some(OpenPairs::Memory(memory)) => Ok(memory),
            _ => Err(ApiError::needs_memory(what)),
        }
    }

    /// Rows of the memory that may be looked at.
    pub(crate) fn rows(&self) -> (Option<std::ops::Range<u64>>, Option<&RowSet>) {
        (self.backend.pairs.as_ref().and_then(|source| source.rows.clone()), self.allowed.as_ref())
    }

    /// Whether a pair may be looked at.
    pub(crate) fn shows(&self, memory: &Memory, id: u64) -> bool {
        let (rows, allowed) = self.rows();
        id < memory.len()
            && rows.is_none_or(|rows| rows.contains(&id))
            && allowed.is_none_or(|allowed| allowed.contains(id))
    }

    /// The embeddings of a pair's image by each [distinct model](Backend::models).
    pub(crate) fn pair_embeddings(&self, id: u64) -> Result<Vec<Vec<f32>>, ApiError> {
        let memory = self.memory("an image by its id")?;
        if !self.shows(memory, id) {
            return Err(no_pair(id));
        }
        let mut all = Vec::new();
        for model in self.backend.models() {
            let column = model.column_of(memory)?;
            column.require(Modality::Image)?;
            let mut row = vec![0.0; column.dim()];
            column.image_embedding(id, &mut row)?;
            all.push(row);
        }
        Ok(all)
    }

    /// The embeddings that are searched for one modality, and the index of the model that made them among the
    /// [distinct ones](Backend::models).
    pub(crate) fn column(&self, modality: Modality) -> Result<(&Column, usize), ApiError> {
        let memory = self.memory("searching")?;
        let index = self.backend.searcher(modality);
        Ok((self.backend.models()[index].column_of(memory)?, index))
    }
}

/// The name of a memory's folder.
fn index_name(memory: &Memory) -> String {
    let dir = std::fs::canonicalize(memory.dir()).unwrap_or_else(|_| memory.dir().to_owned());
    dir.file_name().map_or_else(|| "memory".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// That the memory has no such pair, or none that is shown.
pub(crate) fn no_pair(id: u64) -> ApiError {
    ApiError::new(crate::error::ErrorCode::NotFound, format!("the memory has no pair {id}"))
}

impl Backend {
    /// The different models: the one that classifies first, then those that search and choose, if they are others.
    pub(crate) fn models(&self) -> Vec<&NamedModel> {
        [Some(&self.model), self.search.as_ref(), self.rerank.as_ref()].into_iter().flatten().collect()
    }

    /// Whether an error is an engine's absence that is to be done without; tells the log so.
    pub(crate) fn forgives(&self, error: &XmoreError) -> bool {
        let forgiven = matches!(error, XmoreError::Memory(MemoryError::Unreachable { .. }))
            && self.pairs.as_ref().is_some_and(|source| source.zero_shot_without);
        if forgiven {
            tracing::warn!("{error}; answering zero-shot");
        }
        forgiven
    }

    /// Lengths of the models' embeddings.
    pub(crate) fn dims(&self) -> Vec<usize> {
        self.models().iter().map(|model| model.dim()).collect()
    }

    /// Index of the model that searches images or captions.
    fn searcher(&self, modality: Modality) -> usize {
        match modality {
            Modality::Image => usize::from(self.search.is_some()),
            Modality::Text if self.rerank.is_some() => 1 + usize::from(self.search.is_some()),
            Modality::Text => 0,
        }
    }

    /// Query embeddings from rows by each distinct model.
    pub(crate) fn queries(&self, mut rows: Vec<Embeddings>) -> Queries {
        let rerank = self.rerank.as_ref().and_then(|_| rows.pop());
        let search = self.search.as_ref().and_then(|_| rows.pop());
        Queries { classify: rows.swap_remove(0), search, rerank }
    }
}
