//! The networks that turn pixels and tokens into features, before the projection into the joint space.

pub(crate) mod bert;
pub(crate) mod clip_text;
pub(crate) mod efficientnet;
pub(crate) mod head;
pub(crate) mod resnet;
pub(crate) mod transformer;
pub(crate) mod vit;

use crate::nn::gemm::Threads;

/// An image tower.
pub(crate) trait ImageTower: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// How many images one thread had best take together.
    fn images_per_pass(&self) -> usize {
        1
    }

    /// Images `[size, size, 3]`, normalised, channels last; returns `[images, width]`.
    fn forward(&self, images: &[&[f32]], threads: Threads) -> Vec<f32>;
}

/// A text tower.
pub(crate) trait TextTower: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// Token ids of each text; returns `[texts, width]`.
    fn forward(&self, texts: &[&[u32]], threads: Threads) -> Vec<f32>;

    /// The same with the tokens behind each text's start replaced by `context`, `[tokens, width of a token]`. `None` if the tower cannot.
    fn forward_with_context(
        &self,
        _texts: &[&[u32]],
        _context: &[f32],
        _threads: Threads,
    ) -> Option<Vec<f32>> {
        None
    }
}
