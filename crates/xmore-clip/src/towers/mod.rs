//! The networks that turn pixels and tokens into features, before the projection into the joint space.

pub(crate) mod bert;
pub(crate) mod efficientnet;
pub(crate) mod head;

/// An image tower.
pub(crate) trait ImageTower: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// One image `[size, size, 3]`, normalised, channels last; returns `[width]`.
    fn forward(&self, pixels: &[f32]) -> Vec<f32>;
}

/// A text tower.
pub(crate) trait TextTower: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// Token ids of each text; returns `[texts, width]`.
    fn forward(&self, texts: &[&[u32]]) -> Vec<f32>;
}
