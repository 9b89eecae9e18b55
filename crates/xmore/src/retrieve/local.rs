//! Retrieval from a memory on this machine: every row can be read, and each model has embeddings of its own.

use std::borrow::Cow;

use xmore_memory::Memory;
use xmore_memory::store::{EmbeddingSet, Modality, ModelIdentity};

use super::RetrievalModels;
use super::found::{CaptionRows, FoundPairs};
use super::pairs::{PairFilter, PairIndex, PairSearch};
use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::Result;

impl PairIndex for Memory {
    fn location(&self) -> Cow<'_, str> {
        self.dir().to_string_lossy()
    }

    fn memory(&self) -> Option<&Memory> {
        Some(self)
    }

    fn memory_mut(&mut self) -> Option<&mut Memory> {
        Some(self)
    }

    fn identity(&self) -> Option<&ModelIdentity> {
        Some(&self.manifest().model)
    }

    fn count(&self) -> Option<u64> {
        Some(self.len())
    }

    fn check_models(&self, models: &RetrievalModels) -> Result<()> {
        models.search.embedding_set(self)?.require(Modality::Image)?;
        models.rerank.embedding_set(self)?.require(Modality::Text)?;
        Ok(models.classify.embedding_set(self)?.require(Modality::Text)?)
    }

    fn check_filter(&self, _: &PairFilter) -> Result<()> {
        Ok(())
    }

    fn check_kernel(&self, models: &RetrievalModels) -> Result<()> {
        Ok(models.classify.embedding_set(self)?.require(Modality::Image)?)
    }

    fn one_search(&self, models: &RetrievalModels) -> bool {
        models.classify.is(models.search.identity())
    }

    fn neighborhood_size(&self, near: usize, _: usize) -> usize {
        near
    }

    fn search(&self, search: &PairSearch<'_>) -> Result<Vec<FoundPairs<'_>>> {
        let options = search.filter.options(search.n);
        let set = search.model.embedding_set(self)?;
        let found = set.search_with(search.modality, search.queries, &options)?.hits;
        Ok(found.into_iter().map(|hits| FoundPairs::in_memory(self, hits)).collect())
    }

    fn caption_rows(
        &self,
        model: &dyn Encoder,
        found: &[FoundPairs<'_>],
        _: &CaptionStore,
    ) -> Result<Vec<CaptionRows<'_>>> {
        Ok(vec![CaptionRows::Stored(model.embedding_set(self)?); found.len()])
    }

    fn images(&self, model: &dyn Encoder) -> Result<&EmbeddingSet> {
        model.embedding_set(self)
    }
}
