//! Cross-modal retrieval in two stages: image → image among the pairs, then image → text among their captions.
//!
//! METHOD: nearest neighbours of the query image among the images of the memory (128 of them); exact duplicates among their captions
//! dropped; captions scored by query image · caption; the best K kept. Both features are unit vectors here; the authors' code
//! leaves them unnormalised in the second stage.

use std::collections::HashSet;

use rayon::prelude::*;
use xmore_clip::Embeddings;
use xmore_memory::{Hit, Memory};

use crate::error::{Result, XmoreError};
use crate::math::dot;

/// How many pairs are looked at and how many captions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrievalOptions {
    /// Pairs of the first stage; the paper's 128.
    pub neighbours: usize,
    /// Captions kept, K; the paper's 16.
    pub k: usize,
}

impl Default for RetrievalOptions {
    fn default() -> Self {
        Self { neighbours: 128, k: 16 }
    }
}

impl RetrievalOptions {
    /// # Errors
    /// [`XmoreError::NoCaptionsAsked`] for K = 0, [`XmoreError::TooFewNeighbours`] if fewer pairs are looked at than kept.
    pub fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(XmoreError::NoCaptionsAsked);
        }
        if self.neighbours < self.k {
            return Err(XmoreError::TooFewNeighbours { k: self.k, neighbours: self.neighbours });
        }
        Ok(())
    }
}

/// A caption that was kept for a query image.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrievedCaption {
    /// Row of the pair in the memory.
    pub id: u64,
    /// The caption.
    pub caption: String,
    /// The pair's image, as the memory names it.
    pub image_path: String,
    /// Cosine of the query image and the caption.
    pub similarity: f32,
    /// Cosine of the query image and the pair's image.
    pub image_similarity: f32,
}

/// The captions kept for one query, best first, and their unit embeddings `[captions, dim]`.
#[derive(Clone, Debug, Default)]
pub struct Retrieved {
    /// Captions by falling similarity, ties by id.
    pub captions: Vec<RetrievedCaption>,
    /// One row a caption; empty if there is none.
    pub embeddings: Vec<f32>,
}

/// Retrieves captions for each query image, `[queries, dim]`.
///
/// # Errors
/// Those of [`RetrievalOptions::check`] and of reading the memory.
pub fn retrieve(memory: &Memory, queries: &Embeddings, options: RetrievalOptions) -> Result<Vec<Retrieved>> {
    options.check()?;
    let neighbours = memory.search_images(queries.as_slice(), options.neighbours)?;
    let queries: Vec<&[f32]> = queries.rows().collect();
    queries
        .into_par_iter()
        .zip(neighbours)
        .map(|(query, hits)| rerank(memory, query, &hits, options.k))
        .collect()
}

fn rerank(memory: &Memory, query: &[f32], hits: &[Hit], k: usize) -> Result<Retrieved> {
    let mut seen = HashSet::new();
    let mut candidates = Vec::with_capacity(hits.len());
    for hit in hits {
        let caption = memory.caption(hit.id)?;
        if !seen.insert(caption) {
            continue;
        }
        let mut embedding = vec![0.0; memory.dim()];
        memory.text_embedding(hit.id, &mut embedding)?;
        candidates.push((dot(query, &embedding), hit, caption, embedding));
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.id.cmp(&b.1.id)));
    candidates.truncate(k);
    let mut retrieved = Retrieved::default();
    for (similarity, hit, caption, embedding) in candidates {
        retrieved.captions.push(RetrievedCaption {
            id: hit.id,
            caption: caption.to_owned(),
            image_path: memory.image_path(hit.id)?.to_owned(),
            similarity,
            image_similarity: hit.similarity,
        });
        retrieved.embeddings.extend(embedding);
    }
    Ok(retrieved)
}
