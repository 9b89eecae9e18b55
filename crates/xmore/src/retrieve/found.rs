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
    /// The row of the pair at `place` among those found, whose id is `id`, into `out`, `[dim]`.
    fn read(&self, place: usize, id: u64, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Stored(set) => set.text_embedding(id, out)?,
            Self::Held(rows) => out.copy_from_slice(&rows[place]),
        }
        Ok(())
    }

    /// The row of the pair at `place` among those found, `[dim]`.
    pub(super) fn row(&self, found: &FoundPairs<'_>, place: usize, dim: usize) -> Result<Vec<f32>> {
        let mut row = vec![0.0; dim];
        self.read(place, found.id(place), &mut row)?;
        Ok(row)
    }

    /// The rows at these places.
    fn select(&self, places: &[usize]) -> Self {
        match self {
            Self::Stored(set) => Self::Stored(set),
            Self::Held(rows) => Self::Held(places.iter().map(|&place| rows[place].clone()).collect()),
        }
    }
}

/// Pairs around a point of the joint space, nearest first by their images, with their captions' embeddings by the model that classifies.
pub(crate) struct Neighborhood<'a> {
    /// Cosine of the point and each pair's image.
    pub similarities: Vec<f32>,
    ids: Vec<u64>,
    texts: CaptionRows<'a>,
    /// Images of a memory that are left out as copies of the query image: their first row that may be looked at, and their embedding.
    left_out: Vec<(u64, Vec<f32>)>,
}

impl<'a> Neighborhood<'a> {
    /// The first `limit` of those found that are wanted by their similarity.
    pub(super) fn new(
        found: &FoundPairs<'_>,
        texts: &CaptionRows<'a>,
        limit: usize,
        wanted: impl Fn(f32) -> bool,
    ) -> Self {
        let places: Vec<usize> =
            (0..found.len()).filter(|&place| wanted(found.similarities[place])).take(limit).collect();
        Self {
            similarities: places.iter().map(|&place| found.similarities[place]).collect(),
            ids: places.iter().map(|&place| found.id(place)).collect(),
            texts: texts.select(&places),
            left_out: Vec::new(),
        }
    }

    /// The same with images that are left out as copies of the query image.
    pub(super) fn without_images(self, left_out: Vec<(u64, Vec<f32>)>) -> Self {
        Self { left_out, ..self }
    }

    /// Images of a memory that are left out as copies of the query image: their first row that may be looked at, and their embedding.
    pub(crate) fn left_out(&self) -> &[(u64, Vec<f32>)] {
        &self.left_out
    }

    /// Rows of a memory's embeddings.
    pub(crate) fn of_set(set: &'a EmbeddingSet, hits: Vec<Hit>) -> Self {
        let (similarities, ids) = hits.into_iter().map(|hit| (hit.similarity, hit.id)).unzip();
        Self { similarities, ids, texts: CaptionRows::Stored(set), left_out: Vec::new() }
    }

    /// The embedding of a pair's caption, into `out`, `[dim]`.
    pub(crate) fn text(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        self.texts.read(pair, self.ids[pair], out)
    }
}
