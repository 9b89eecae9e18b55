//! The encoders of the stages, and the query images' embeddings by each of them.

use std::ops::Range;
use std::sync::Arc;

use xmore_clip::Embeddings;

use crate::encoder::Encoder;

/// The models of the stages.
#[derive(Clone)]
pub struct RetrievalModels {
    /// Encodes the query image for image → image.
    pub search: Arc<dyn Encoder>,
    /// Encodes query image and captions for image → text.
    pub rerank: Arc<dyn Encoder>,
    /// Encodes captions and labels to classify them.
    pub classify: Arc<dyn Encoder>,
}

impl RetrievalModels {
    /// One model for all.
    pub fn one(model: Arc<dyn Encoder>) -> Self {
        Self { search: model.clone(), rerank: model.clone(), classify: model }
    }
}

/// Embeddings of query images, `[queries, dim]`, by each model that needs one.
#[derive(Clone, Debug)]
pub struct Queries {
    /// By the model that classifies.
    pub classify: Embeddings,
    /// By the model that searches, if it is another.
    pub search: Option<Embeddings>,
    /// By the model that ranks captions, if it is another.
    pub rerank: Option<Embeddings>,
}

impl From<Embeddings> for Queries {
    fn from(classify: Embeddings) -> Self {
        Self { classify, search: None, rerank: None }
    }
}

impl Queries {
    /// Puts further queries behind these; they must be embedded by the same models.
    ///
    /// # Panics
    /// If a model's vectors differ in length.
    pub fn append(&mut self, next: Self) {
        self.classify.append(&next.classify);
        for (rows, next) in [(&mut self.search, &next.search), (&mut self.rerank, &next.rerank)] {
            if let (Some(rows), Some(next)) = (rows, next) {
                rows.append(next);
            }
        }
    }

    /// The queries of a range.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let slice = |all: &Embeddings| {
            let dim = all.dim();
            Embeddings::new(all.as_slice()[range.start * dim..range.end * dim].to_vec(), dim)
        };
        Self {
            classify: slice(&self.classify),
            search: self.search.as_ref().map(slice),
            rerank: self.rerank.as_ref().map(slice),
        }
    }

    pub(super) fn search(&self) -> &Embeddings {
        self.search.as_ref().unwrap_or(&self.classify)
    }

    pub(super) fn rerank(&self) -> &Embeddings {
        self.rerank.as_ref().unwrap_or(&self.classify)
    }
}
