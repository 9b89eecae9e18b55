//! What an architecture gives: facts, and towers that are loaded when they are first used.

use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::nn::gemm::Threads;
use crate::preprocess::Preprocess;
use crate::tokenizer::Tokenizer;

/// A model whose configuration has been read.
pub(crate) struct Opened {
    pub(crate) facts: Facts,
    pub(crate) loader: Box<dyn Loader>,
}

/// What is known of a model before its towers are loaded.
pub(crate) struct Facts {
    /// Length of the joint embedding.
    pub(crate) dim: usize,
    /// Of a cosine, before a softmax or sigmoid: the factor, and what is added.
    pub(crate) logit_scale: f32,
    pub(crate) logit_bias: f32,
    pub(crate) preprocess: Preprocess,
    /// What the towers are, image first.
    pub(crate) towers: [String; 2],
    pub(crate) context_length: usize,
    /// The files that the fingerprint is made of, in order.
    pub(crate) files: Vec<String>,
    /// Other files that are read, where they are there.
    pub(crate) beside: Vec<String>,
}

/// Loads the parts of an opened model.
pub(crate) trait Loader: Send + Sync {
    fn image(&self) -> Result<Encoder<dyn ImageTower>>;
    fn text(&self) -> Result<Encoder<dyn TextTower>>;
    fn tokenizer(&self) -> Result<Box<dyn Tokenizer>>;
}

/// A tower and the way from its features into the joint space.
pub(crate) struct Encoder<T: ?Sized> {
    pub(crate) tower: Box<T>,
    /// `None` where the tower ends in the joint space itself.
    pub(crate) head: Option<Box<dyn Head>>,
}

impl<T: ?Sized> Encoder<T> {
    /// Unit rows `[rows, dim]` from the tower's features.
    pub(crate) fn embed(&self, features: Vec<f32>, dim: usize) -> Embeddings {
        let mut rows = match &self.head {
            Some(head) => head.forward(&features),
            None => features,
        };
        normalize_rows(&mut rows, dim);
        Embeddings::new(rows, dim)
    }
}

/// Scales each row of `[rows, width]` to unit length; a row of zeros stays one.
pub(crate) fn normalize_rows(x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width) {
        let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
    }
}

/// An image tower.
pub(crate) trait ImageTower: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// How many images one thread had best take together.
    fn images_per_pass(&self) -> usize {
        1
    }

    /// Images `[size, size, 3]`, normalized, channels last; returns `[images, width]`.
    fn forward(&self, images: &[&[f32]], threads: Threads) -> Vec<f32>;
}

/// A text tower.
pub(crate) trait TextTower: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// How many tokens it has an embedding for.
    fn vocabulary(&self) -> usize;

    /// Token ids of each text, without padding; returns `[texts, width]`.
    fn forward(&self, texts: &[&[u32]], threads: Threads) -> Vec<f32>;

    /// The same with the tokens after each text's start replaced by `context`, `[tokens, width of a token]`. `None` if the tower does
    /// not support it.
    fn forward_with_context(
        &self,
        _texts: &[&[u32]],
        _context: &[f32],
        _threads: Threads,
    ) -> Option<Vec<f32>> {
        None
    }
}

/// A map from a tower's features into the joint space.
pub(crate) trait Head: Send + Sync {
    /// `features` is `[rows, inputs]`; returns `[rows, dim]`, of any length.
    fn forward(&self, features: &[f32]) -> Vec<f32>;
}

/// A linear map.
impl Head for crate::nn::linear::Linear {
    fn forward(&self, features: &[f32]) -> Vec<f32> {
        Self::forward(self, features, Threads::Pool)
    }
}
