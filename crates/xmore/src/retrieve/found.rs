//! What searches find, wherever the pairs are: similarities, captions, and the captions' embeddings when they are needed.

use std::sync::Arc;

use xmore_memory::retriever::Neighbor;
use xmore_memory::store::EmbeddingSet;
use xmore_memory::{Hit, Memory};

use crate::error::Result;

/// The pairs found for one query, most similar first.
pub(crate) struct FoundPairs<'a> {
    /// Similarity of the query and what was searched, an image or a caption.
    pub similarities: Vec<f32>,
    /// What a remote index has to say.
    pub note: Option<String>,
    contents: Contents<'a>,
}

enum Contents<'a> {
    /// Rows of a memory, read when they are needed.
    Rows(&'a Memory, Vec<u64>),
    /// Pairs that came over a network.
    Neighbors(Vec<Neighbor>),
}

impl<'a> FoundPairs<'a> {
    pub(super) fn in_memory(memory: &'a Memory, hits: Vec<Hit>) -> Self {
        let (similarities, ids) = hits.into_iter().map(|hit| (hit.similarity, hit.id)).unzip();
        Self { similarities, note: None, contents: Contents::Rows(memory, ids) }
    }

    pub(super) fn remote(neighbors: Vec<Neighbor>, note: Option<String>) -> Self {
        let similarities = neighbors.iter().map(|neighbor| neighbor.similarity).collect();
        Self { similarities, note, contents: Contents::Neighbors(neighbors) }
    }

    pub(super) fn len(&self) -> usize {
        self.similarities.len()
    }

    pub(super) fn id(&self, index: usize) -> u64 {
        match &self.contents {
            Contents::Rows(_, ids) => ids[index],
            Contents::Neighbors(neighbors) => neighbors[index].id,
        }
    }

    pub(super) fn caption(&self, index: usize) -> Result<&str> {
        match &self.contents {
            Contents::Rows(memory, ids) => Ok(memory.caption(ids[index])?),
            Contents::Neighbors(neighbors) => Ok(&neighbors[index].caption),
        }
    }

    pub(super) fn image_path(&self, index: usize) -> Result<&str> {
        match &self.contents {
            Contents::Rows(memory, ids) => Ok(memory.image_path(ids[index])?),
            Contents::Neighbors(neighbors) => Ok(&neighbors[index].image_path),
        }
    }

    /// What came over a network; nothing of a memory.
    pub(super) fn neighbors(&self) -> &[Neighbor] {
        match &self.contents {
            Contents::Rows(..) => &[],
            Contents::Neighbors(neighbors) => neighbors,
        }
    }
}

/// The embeddings of the captions of one query's pairs, by one encoder.
#[derive(Clone)]
pub(crate) enum CaptionRows<'a> {
    /// A memory's, read when they are needed.
    Stored(&'a EmbeddingSet),
    /// One for each pair.
    Held(Vec<Arc<[f32]>>),
}

impl CaptionRows<'_> {
    /// The row of the pair at `index` among those found, whose id is `id`, into `out`, `[dim]`.
    fn read(&self, index: usize, id: u64, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Stored(set) => set.text_embedding(id, out)?,
            Self::Held(rows) => out.copy_from_slice(&rows[index]),
        }
        Ok(())
    }

    /// The row of the pair at `index` among those found, `[dim]`.
    pub(super) fn row(&self, found: &FoundPairs<'_>, index: usize, dim: usize) -> Result<Vec<f32>> {
        let mut row = vec![0.0; dim];
        self.read(index, found.id(index), &mut row)?;
        Ok(row)
    }
}

/// Pairs around a point of the joint space, nearest first by their images, with their captions' embeddings by the model that classifies.
pub(crate) struct Neighborhood<'a> {
    /// Cosine of the point and each pair's image.
    pub similarities: Vec<f32>,
    /// Place among those found, and id.
    pairs: Vec<(usize, u64)>,
    texts: CaptionRows<'a>,
}

impl<'a> Neighborhood<'a> {
    /// The first `limit` of those found that are wanted by their similarity.
    pub(super) fn new(
        found: &FoundPairs<'_>,
        texts: CaptionRows<'a>,
        limit: usize,
        wanted: impl Fn(f32) -> bool,
    ) -> Self {
        let places = (0..found.len()).filter(|&i| wanted(found.similarities[i])).take(limit);
        let (similarities, pairs) = places.map(|i| (found.similarities[i], (i, found.id(i)))).unzip();
        Self { similarities, pairs, texts }
    }

    /// Rows of a memory's embeddings.
    pub(crate) fn of_set(set: &'a EmbeddingSet, hits: Vec<Hit>) -> Self {
        let (similarities, pairs) =
            hits.iter().enumerate().map(|(i, hit)| (hit.similarity, (i, hit.id))).unzip();
        Self { similarities, pairs, texts: CaptionRows::Stored(set) }
    }

    /// The embedding of a pair's caption, into `out`, `[dim]`.
    pub(crate) fn text(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        let (index, id) = self.pairs[pair];
        self.texts.read(index, id, out)
    }
}
