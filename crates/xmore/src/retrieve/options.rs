//! How pairs are found and captions chosen among theirs.

use super::error::RetrievalError;
use crate::error::Result;

/// How many pairs are looked at and how many captions are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrievalOptions {
    /// Pairs of the first stage; the paper's 128.
    pub neighbors: usize,
    /// Captions kept, K; the paper's 16.
    pub k: usize,
    /// Pairs whose image is more similar to the query image than this are left out: they are the query itself, or copies of it.
    pub query_duplicates_above: Option<f32>,
    /// A caption more similar than this to one that is kept already is left out; exact duplicates always are.
    pub near_duplicates_above: Option<f32>,
    /// How captions are found and put in order.
    pub ranking: Ranking,
}

/// How captions are found and put in order before the first K are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranking {
    /// The paper's two stages: pairs by their images, then their captions by the query image · caption.
    #[default]
    TwoStages,
    /// The first stage alone: captions in the order of their images.
    ByImage,
    /// Captions searched with the query image directly, over the whole memory.
    Direct,
}

impl Default for RetrievalOptions {
    fn default() -> Self {
        Self {
            neighbors: 128,
            k: 16,
            query_duplicates_above: None,
            near_duplicates_above: None,
            ranking: Ranking::TwoStages,
        }
    }
}

impl RetrievalOptions {
    /// Above this cosine two images are taken for copies of one another, where nothing else is said.
    pub const SAME_IMAGE: f32 = 0.98;

    /// # Errors
    /// [`RetrievalError::NoCaptionsAsked`] for K = 0, [`RetrievalError::TooFewNeighbors`] if fewer pairs are looked at than kept.
    pub fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(RetrievalError::NoCaptionsAsked.into());
        }
        if self.neighbors < self.k {
            return Err(RetrievalError::TooFewNeighbors { k: self.k, neighbors: self.neighbors }.into());
        }
        Ok(())
    }

    /// Whether a pair with an image this similar to the query image is left out as a copy of it.
    pub(super) fn is_query(&self, image_similarity: f32) -> bool {
        self.query_duplicates_above.is_some_and(|limit| image_similarity > limit)
    }
}
