//! What retrieval asks of pairs, wherever they are kept.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use xmore_memory::store::{EmbeddingSet, Modality, ModelIdentity};
use xmore_memory::{Memory, Retriever, RowSet, SearchOptions};

use super::RetrievalModels;
use super::found::{CaptionRows, FoundPairs};
use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::Result;

/// Which pairs may be looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairFilter {
    /// Only these ids; all with `None`.
    pub rows: Option<Range<u64>>,
    /// Only ids in this set; all with `None`.
    pub allowed: Option<Arc<RowSet>>,
}

impl PairFilter {
    /// How a memory's rows are searched under the filter.
    pub(crate) fn options(&self, n: usize) -> SearchOptions<'_> {
        SearchOptions { n, rows: self.rows.clone(), allowed: self.allowed.as_deref() }
    }

    /// The first pair of an image that may be looked at; `id` is one of its pairs.
    pub(super) fn first_of_image(&self, memory: &Memory, id: u64) -> Result<u64> {
        let (mut first, mut at) = (id, id);
        while memory.continues_image(at)? {
            at -= 1;
            if self.contains(at) {
                first = at;
            }
        }
        Ok(first)
    }

    /// Whether a pair may be looked at.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains(&id))
            && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(id))
    }
}

/// A search of pairs by their images or captions.
pub(super) struct PairSearch<'a> {
    pub modality: Modality,
    /// The model that embedded the queries, and by which pairs are compared with them.
    pub model: &'a dyn Encoder,
    /// `[queries, dim]`, unit rows.
    pub queries: &'a [f32],
    /// Pairs of each query.
    pub n: usize,
    pub filter: &'a PairFilter,
}

/// What retrieval asks of pairs. To keep pairs in another way, implement it and add a line to [`OpenPairs::open`](super::OpenPairs::open); a further remote index
/// needs neither, but a [`Retriever`].
pub(super) trait PairIndex: Send + Sync {
    /// The folder or URL.
    fn location(&self) -> Cow<'_, str>;

    /// The memory, where the pairs are on this machine.
    fn memory(&self) -> Option<&Memory> {
        None
    }

    /// The memory, to choose how it is searched.
    fn memory_mut(&mut self) -> Option<&mut Memory> {
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

    /// What a search finds, for each of its queries.
    fn search(&self, search: &PairSearch<'_>) -> Result<Vec<FoundPairs<'_>>>;

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
