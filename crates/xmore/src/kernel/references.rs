//! Images of the memory itself that stand for query images: they have no labels, and are in no test set.

use rayon::prelude::*;
use xmore_memory::Memory;
use xmore_memory::store::{EmbeddingSet, Modality};

use crate::error::Result;
use crate::retrieve::{Neighborhood, PairFilter};
use crate::row_hash::row_hash;

/// More pairs than wanted that are looked at for an image of the memory, whose own pairs are then left out.
const OWN_PAIRS: usize = 64;
/// Captions among which different images are looked for.
const CAPTIONS_SEARCHED: usize = 64;

/// A memory on this machine, its embeddings by the model that classifies, and which of its pairs may be looked at.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub memory: &'a Memory,
    pub set: &'a EmbeddingSet,
    pub filter: &'a PairFilter,
}

/// Images of a memory, each by the first of its rows that may be looked at.
pub(super) struct Images {
    pub rows: Vec<u64>,
    /// Their embeddings, `[images, dim]`.
    pub embeddings: Vec<f32>,
    dim: usize,
}

impl Images {
    /// The first `count` of them.
    pub fn first(&self, count: usize) -> &[f32] {
        &self.embeddings[..self.dim * count.min(self.rows.len())]
    }

    /// The embedding of one.
    pub fn at(&self, place: usize) -> &[f32] {
        &self.embeddings[place * self.dim..][..self.dim]
    }

    /// The embedding of each.
    pub fn each(&self) -> std::slice::ChunksExact<'_, f32> {
        self.embeddings.chunks_exact(self.dim)
    }
}

impl<'a> Pairs<'a> {
    /// At most `count` of the memory's images, the same ones on every machine: those whose first row has the smallest
    /// [`row_hash`], in that order.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn sample(self, count: usize) -> Result<Images> {
        let mut first = Vec::new();
        let mut last = None;
        for id in (0..self.memory.len()).filter(|&id| self.filter.contains(id)) {
            let path = self.memory.image_path(id)?;
            // An image's rows follow one another.
            if last != Some(path) {
                first.push(id);
                last = Some(path);
            }
        }
        let mut hashed: Vec<_> = first.into_par_iter().map(|id| (row_hash(id), id)).collect();
        if hashed.len() > count {
            hashed.select_nth_unstable(count);
            hashed.truncate(count);
        }
        hashed.sort_unstable();
        self.images(hashed.into_iter().map(|(_, id)| id))
    }

    /// The images of these rows. Those that this embedding set lacks are left out.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn images(self, ids: impl IntoIterator<Item = u64>) -> Result<Images> {
        let dim = self.set.dim();
        let mut images = Images { rows: Vec::new(), embeddings: Vec::new(), dim };
        let mut row = vec![0.0; dim];
        for id in ids {
            self.set.image_embedding(id, &mut row)?;
            // An embedding set may lack an image that could not be read again.
            if row.iter().all(|v| v.is_finite()) {
                images.rows.push(id);
                images.embeddings.extend_from_slice(&row);
            }
        }
        Ok(images)
    }

    /// The caption embeddings of these rows, `[rows, dim]`.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn captions(self, rows: &[u64]) -> Result<Vec<f32>> {
        let dim = self.set.dim();
        let mut captions = vec![0.0; rows.len() * dim];
        for (&row, caption) in rows.iter().zip(captions.chunks_exact_mut(dim)) {
            self.set.text_embedding(row, caption)?;
        }
        Ok(captions)
    }

    /// The `near` pairs around each image of the memory, its own left out; `rows` are the images' rows, `embeddings` `[rows, dim]`.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn around_own(self, rows: &[u64], embeddings: &[f32], near: usize) -> Result<Vec<Neighborhood<'a>>> {
        let options = self.filter.options(near + OWN_PAIRS);
        let found = self.set.search_with(Modality::Image, embeddings, &options)?.hits;
        let mut neighborhoods = Vec::with_capacity(found.len());
        for (&id, mut hits) in rows.iter().zip(found) {
            let own = self.memory.image_path(id)?;
            let mut others = Vec::with_capacity(near);
            for hit in hits.drain(..) {
                if others.len() < near && self.memory.image_path(hit.id)? != own {
                    others.push(hit);
                }
            }
            neighborhoods.push(Neighborhood::of_set(self.set, others));
        }
        Ok(neighborhoods)
    }

    /// The rows of the first `count` images among the captions most similar to each point of the joint space, `[points, dim]`.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn images_by_captions(self, points: &[f32], count: usize) -> Result<Vec<Vec<u64>>> {
        let options = self.filter.options(CAPTIONS_SEARCHED);
        let found = self.set.search_with(Modality::Text, points, &options)?.hits;
        let images = found.into_iter().map(|hits| {
            let mut images: Vec<(&str, u64)> = Vec::with_capacity(count);
            for hit in hits {
                let path = self.memory.image_path(hit.id)?;
                if images.len() < count && images.iter().all(|(other, _)| *other != path) {
                    images.push((path, hit.id));
                }
            }
            Ok(images.into_iter().map(|(_, id)| id).collect())
        });
        images.collect()
    }
}
