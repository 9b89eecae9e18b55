//! Pairs around a point, and the embeddings of their captions wherever they come from.

use std::sync::Arc;

use xmore_memory::Hit;
use xmore_memory::retriever::{Answer, Neighbour, Retriever};
use xmore_memory::store::Column;

use crate::captions::{CaptionStore, Encoded};
use crate::encoder::Encoder;
use crate::error::Result;

/// Pairs around a point of the joint space, nearest first by their images.
pub(crate) struct Surrounding<'a> {
    /// Cosine of the point and each pair's image.
    pub similarities: Vec<f32>,
    texts: Texts<'a>,
}

enum Texts<'a> {
    /// Rows of a memory, read when they are needed.
    Column(&'a Column, Vec<u64>),
    Rows(Vec<Arc<[f32]>>),
}

impl<'a> Surrounding<'a> {
    pub(crate) fn of_column(column: &'a Column, hits: Vec<Hit>) -> Self {
        let similarities = hits.iter().map(|hit| hit.similarity).collect();
        Self { similarities, texts: Texts::Column(column, hits.into_iter().map(|hit| hit.id).collect()) }
    }

    /// The embedding of a pair's caption by the classifying model, into `out`, `[dim]`.
    pub(crate) fn text(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        match &self.texts {
            Texts::Column(column, ids) => column.text_embedding(ids[pair], out)?,
            Texts::Rows(rows) => out.copy_from_slice(&rows[pair]),
        }
        Ok(())
    }
}

/// Caption embeddings of an engine's answers by one model: the engine's own where it is the model's, else encoded here.
pub(super) struct EngineTexts<'a> {
    stored: bool,
    encoded: Encoded<'a>,
}

impl<'a> EngineTexts<'a> {
    pub(super) fn encode(
        engine: &dyn Retriever,
        answers: &'a [Answer],
        model: &dyn Encoder,
        store: &CaptionStore,
    ) -> Result<Self> {
        let stored = engine.identity().is_some_and(|theirs| model.is(theirs));
        let all = answers.iter().flat_map(|answer| &answer.neighbours);
        let missing = all.filter(|n| !stored || n.text_embedding.is_none());
        let captions: Vec<&str> = missing.map(|n| n.caption.as_str()).collect();
        let encoded = store.embeddings(model, &captions)?;
        Ok(Self { stored, encoded })
    }

    pub(super) fn of<'n>(&'n self, neighbour: &'n Neighbour) -> &'n [f32] {
        match &neighbour.text_embedding {
            Some(embedding) if self.stored => embedding,
            _ => &self.encoded[neighbour.caption.as_str()],
        }
    }

    pub(super) fn surrounding<'n>(
        &self,
        neighbours: impl Iterator<Item = &'n Neighbour>,
    ) -> Surrounding<'static> {
        let (similarities, rows) = neighbours.map(|n| (n.similarity, Arc::from(self.of(n)))).unzip();
        Surrounding { similarities, texts: Texts::Rows(rows) }
    }
}
