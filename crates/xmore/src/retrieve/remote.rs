//! Retrieval from a remote index: only what a search finds is known, and captions are encoded here where the index has no embeddings of them.

use std::borrow::Cow;
use std::sync::Arc;

use xmore_memory::Retriever;
use xmore_memory::retriever::Neighbor;
use xmore_memory::store::{EmbeddingSet, Modality, ModelIdentity};

use super::RetrievalModels;
use super::error::RetrievalError;
use super::found::{CaptionRows, FoundPairs};
use super::pairs::{PairFilter, PairIndex, PairSearch};
use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::Result;

/// Pairs of a remote index.
pub(super) struct RemotePairs(pub Box<dyn Retriever>);

impl RemotePairs {
    fn location_owned(&self) -> String {
        self.0.location().into_owned()
    }
}

impl PairIndex for RemotePairs {
    fn location(&self) -> Cow<'_, str> {
        self.0.location()
    }

    fn remote(&self) -> Option<&dyn Retriever> {
        Some(&*self.0)
    }

    fn identity(&self) -> Option<&ModelIdentity> {
        self.0.identity()
    }

    fn count(&self) -> Option<u64> {
        // One that is away now may be back for the first query.
        self.0.pairs().ok().flatten()
    }

    fn check_models(&self, models: &RetrievalModels) -> Result<()> {
        models.search.check_remote(&*self.0)
    }

    fn check_filter(&self, filter: &PairFilter) -> Result<()> {
        if filter.rows.is_some() && !self.0.filters_rows() || filter.allowed.is_some() {
            return Err(RetrievalError::RemoteFilter { location: self.location_owned() }.into());
        }
        Ok(())
    }

    fn check_kernel(&self, models: &RetrievalModels) -> Result<()> {
        if models.classify.is(models.search.identity()) {
            return Ok(());
        }
        Err(RetrievalError::KernelNeedsOneModel { location: self.location_owned() }.into())
    }

    fn one_search(&self, _: &RetrievalModels) -> bool {
        true
    }

    fn neighborhood_size(&self, _: usize, neighbors: usize) -> usize {
        neighbors
    }

    fn search(&self, search: &PairSearch<'_>) -> Result<Vec<FoundPairs<'_>>> {
        if search.modality == Modality::Text {
            return Err(RetrievalError::RemoteRanking { location: self.location_owned() }.into());
        }
        let (dim, rows) = (search.model.dim(), search.filter.rows.clone());
        let answers = self.0.nearest_images_in(search.queries, dim, search.n, rows)?;
        Ok(answers.into_iter().map(|answer| FoundPairs::remote(answer.pairs, answer.note)).collect())
    }

    fn caption_rows(
        &self,
        model: &dyn Encoder,
        found: &[FoundPairs<'_>],
        store: &CaptionStore,
    ) -> Result<Vec<CaptionRows<'_>>> {
        // The index's own embeddings are used where they are this model's.
        let stored = self.0.identity().is_some_and(|theirs| model.is(theirs));
        let own = |neighbor: &'_ Neighbor| stored && neighbor.text_embedding.is_some();
        let all = found.iter().flat_map(FoundPairs::neighbors);
        let captions: Vec<&str> = all.filter(|n| !own(n)).map(|n| n.caption.as_str()).collect();
        let encoded = store.embeddings(model, &captions)?;
        let row = |neighbor: &Neighbor| match &neighbor.text_embedding {
            Some(embedding) if stored => Arc::from(embedding.as_slice()),
            _ => encoded[neighbor.caption.as_str()].clone(),
        };
        Ok(found.iter().map(|found| CaptionRows::Held(found.neighbors().iter().map(row).collect())).collect())
    }

    fn images(&self, _: &dyn Encoder) -> Result<&EmbeddingSet> {
        Err(RetrievalError::RemoteRanking { location: self.location_owned() }.into())
    }
}
