//! Pairs wherever they are kept: one trait, which retrieval stands on, and what users open.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use regex::Regex;
use xmore_files::image::Orientation;
use xmore_memory::retriever::{Location, RemoteOptions};
use xmore_memory::store::{EmbeddingSet, Modality, ModelIdentity};
use xmore_memory::{Memory, MemoryError, Retriever, RowSet};

use super::RetrievalModels;
use super::found::{CaptionRows, FoundPairs};
use super::remote::RemotePairs;
use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::{Result, RetrievalError};

/// Which pairs may be looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairFilter {
    /// Only these ids; all with `None`.
    pub rows: Option<Range<u64>>,
    /// Only ids in this set; all with `None`.
    pub allowed: Option<Arc<RowSet>>,
}

impl PairFilter {
    /// Whether a pair may be looked at.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains(&id))
            && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(id))
    }
}

/// What retrieval asks of pairs. To keep pairs in another way, implement it and add a line to [`OpenPairs::open`]; a further remote index
/// needs neither, but a [`Retriever`].
pub(super) trait PairIndex: Send + Sync {
    /// The folder or URL.
    fn location(&self) -> Cow<'_, str>;

    /// The memory, where the pairs are on this machine.
    fn memory(&self) -> Option<&Memory> {
        None
    }

    /// The remote index, where they are not.
    fn remote(&self) -> Option<&dyn Retriever> {
        None
    }

    /// The model whose embeddings they are, as far as is known.
    fn identity(&self) -> Option<&ModelIdentity>;

    /// How many there are, as far as is known.
    fn count(&self) -> Option<u64>;

    /// That the models find what they need.
    fn check_models(&self, models: &RetrievalModels) -> Result<()>;

    /// That a filter can be kept to.
    fn check_filter(&self, filter: &PairFilter) -> Result<()>;

    /// That labels can be sent to the pairs' images by the model that classifies.
    fn check_kernel(&self, models: &RetrievalModels) -> Result<()>;

    /// Whether a search by one model's images also tells the neighborhood by the model that classifies.
    fn one_search(&self, models: &RetrievalModels) -> bool;

    /// How many pairs around a point are asked for where `near` would be best and `neighbors` are looked at otherwise.
    fn neighborhood_size(&self, near: usize, neighbors: usize) -> usize;

    /// The `n` pairs whose images, or captions, are most similar to each of `queries`, `[queries, dim]` by `model`.
    fn search(
        &self,
        modality: Modality,
        model: &dyn Encoder,
        queries: &[f32],
        n: usize,
        filter: &PairFilter,
    ) -> Result<Vec<FoundPairs<'_>>>;

    /// The embeddings of the captions of what was found by a model, in the order of `found`.
    fn caption_rows(
        &self,
        model: &dyn Encoder,
        found: &[FoundPairs<'_>],
        store: &CaptionStore,
    ) -> Result<Vec<CaptionRows<'_>>>;

    /// The embeddings of the pairs' images by a model; they can be read of a memory only.
    fn images(&self, model: &dyn Encoder) -> Result<&EmbeddingSet>;
}

/// Pairs that are held open: a memory on this machine, or a remote index that answered.
pub struct OpenPairs(Box<dyn PairIndex>);

impl From<Memory> for OpenPairs {
    fn from(memory: Memory) -> Self {
        Self(Box::new(memory))
    }
}

impl From<Box<dyn Retriever>> for OpenPairs {
    fn from(index: Box<dyn Retriever>) -> Self {
        Self(Box::new(RemotePairs(index)))
    }
}

impl OpenPairs {
    /// Opens a memory's folder, or a remote index by its URL.
    ///
    /// # Errors
    /// Those of [`Memory::open`], of [`Location`]'s parsing, and of [`xmore_memory::retriever::open`].
    pub fn open(location: &str, options: &RemoteOptions) -> Result<Self, MemoryError> {
        match location.parse()? {
            Location::Local(path) => Ok(Memory::open(path)?.into()),
            remote => Ok(remote.open(options)?.into()),
        }
    }

    pub(super) fn index(&self) -> &dyn PairIndex {
        &*self.0
    }

    /// The memory, where the pairs are on this machine.
    pub fn memory(&self) -> Option<&Memory> {
        self.0.memory()
    }

    /// The remote index, where they are not.
    pub fn remote(&self) -> Option<&dyn Retriever> {
        self.0.remote()
    }

    /// The folder or URL.
    pub fn location(&self) -> Cow<'_, str> {
        self.0.location()
    }

    /// Files of a memory's search codes that searches have found damaged; see [`Memory::damaged_codes`].
    pub fn damaged_codes(&self) -> Vec<PathBuf> {
        self.memory().map(Memory::damaged_codes).unwrap_or_default()
    }

    /// The model whose embeddings they are, as far as is known.
    pub fn identity(&self) -> Option<&ModelIdentity> {
        self.0.identity()
    }

    /// Which way up its images were decoded, as far as is known.
    pub fn orientation(&self) -> Option<Orientation> {
        self.memory().map(|memory| memory.manifest().orientation)
    }

    /// How many pairs there are, as far as is known.
    pub fn count(&self) -> Option<u64> {
        self.0.count()
    }

    /// The rows whose caption matches a pattern.
    ///
    /// # Errors
    /// [`RetrievalError::RemoteFilter`] for a remote index; [`RetrievalError::NoCaptionMatches`] where nothing would be left.
    pub fn rows_with_caption(&self, pattern: &Regex) -> Result<RowSet> {
        let Some(memory) = self.memory() else {
            return Err(RetrievalError::RemoteFilter { location: self.location().into_owned() }.into());
        };
        let rows = memory.rows_with_caption(pattern)?;
        if rows.is_empty() {
            return Err(RetrievalError::NoCaptionMatches { pattern: pattern.to_string() }.into());
        }
        Ok(rows)
    }
}
