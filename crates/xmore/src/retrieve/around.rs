//! Pairs around a point, and the embeddings of their captions wherever they come from.

use std::sync::Arc;

use xmore_memory::Hit;
use xmore_memory::retriever::{Answer, Neighbor, Retriever};
use xmore_memory::store::EmbeddingSet;

use crate::captions::{CaptionStore, Encoded};
use crate::encoder::Encoder;
use crate::error::Result;

/// Pairs around a point of the joint space, nearest first by their images.
pub(crate) struct Neighborhood<'a> {
    /// Cosine of the point and each pair's image.
    pub similarities: Vec<f32>,
    texts: Texts<'a>,
}

enum Texts<'a> {
    /// Rows of a memory, read when they are needed.
    EmbeddingSet(&'a EmbeddingSet, Vec<u64>),
    Rows(Vec<Arc<[f32]>>),
}

impl<'a> Neighborhood<'a> {
    pub(crate) fn of_column(column: &'a EmbeddingSet, hits: Vec<Hit>) -> Self {
        let similarities = hits.iter().map(|hit| hit.similarity).collect();
        Self {
            similarities,
            texts: Texts::EmbeddingSet(column, hits.into_iter().map(|hit| hit.id).collect()),
        }
    }

    /// The embedding of a pair's caption by the classifying model, into `out`, `[dim]`.
    pub(crate) fn text(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        match &self.texts {
            Texts::EmbeddingSet(column, ids) => column.text_embedding(ids[pair], out)?,
            Texts::Rows(rows) => out.copy_from_slice(&rows[pair]),
        }
        Ok(())
    }
}

/// Caption embeddings of a remote index's answers by one model: the remote index's own where it is the model's, else encoded here.
pub(super) struct RemoteTexts<'a> {
    stored: bool,
    encoded: Encoded<'a>,
}

impl<'a> RemoteTexts<'a> {
    pub(super) fn encode(
        index: &dyn Retriever,
        answers: &'a [Answer],
        model: &dyn Encoder,
        store: &CaptionStore,
    ) -> Result<Self> {
        let stored = index.identity().is_some_and(|theirs| model.is(theirs));
        let all = answers.iter().flat_map(|answer| &answer.neighbors);
        let missing = all.filter(|n| !stored || n.text_embedding.is_none());
        let captions: Vec<&str> = missing.map(|n| n.caption.as_str()).collect();
        let encoded = store.embeddings(model, &captions)?;
        Ok(Self { stored, encoded })
    }

    pub(super) fn of<'n>(&'n self, neighbor: &'n Neighbor) -> &'n [f32] {
        match &neighbor.text_embedding {
            Some(embedding) if self.stored => embedding,
            _ => &self.encoded[neighbor.caption.as_str()],
        }
    }

    pub(super) fn neighborhood<'n>(
        &self,
        neighbors: impl Iterator<Item = &'n Neighbor>,
    ) -> Neighborhood<'static> {
        let (similarities, rows) = neighbors.map(|n| (n.similarity, Arc::from(self.of(n)))).unzip();
        Neighborhood { similarities, texts: Texts::Rows(rows) }
    }
}
