//! Encoders on a device: a network that an architecture builds, its head, and how batches go through them.

use crate::arch::Head;
use crate::error::Result;
use crate::preprocess::{Pixels, Preprocess};

use super::cuda::DecodedImages;
use super::{Device, Place};

/// Tokens that one thread of a processor had best take through a transformer together. They go through it layer by layer, so that those after
/// the first find a layer's weights in a cache more often.
pub(crate) const TOKENS_PER_PASS: usize = 1600;

/// An image network on a device.
pub(crate) trait ImageNetwork<D: Device>: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// How many images one thread of a processor had best take together.
    fn images_per_pass(&self) -> usize {
        1
    }

    /// Features `[images, width]`.
    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows;
}

/// A text network on a device.
pub(crate) trait TextNetwork<D: Device>: Send + Sync {
    /// Length of a feature row.
    fn width(&self) -> usize;

    /// How many tokens it has an embedding for.
    fn vocabulary(&self) -> usize;

    /// Whether [`forward`](Self::forward) takes vectors instead of words.
    fn takes_context(&self) -> bool {
        false
    }

    /// Token ids of each text to features `[texts, width]`; the tokens after each text's start are replaced by `context`,
    /// `[tokens, width]`, which may be empty.
    fn forward(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> D::Rows;
}

/// An image tower as an architecture gives it.
pub(crate) struct ImageTower<D: Device> {
    pub(crate) network: Box<dyn ImageNetwork<D>>,
    /// `None` where the network ends in the joint space itself.
    pub(crate) head: Option<Head<D>>,
}

/// A text tower as an architecture gives it.
pub(crate) struct TextTower<D: Device> {
    pub(crate) network: Box<dyn TextNetwork<D>>,
    pub(crate) head: Option<Head<D>>,
}

/// An image tower on some device.
pub(crate) trait ImageEncoder: Send + Sync {
    /// Features before the head, `[images, width]`, and their width. Images are of the tower's size.
    fn features(&self, images: &[&Pixels]) -> Result<(Vec<f32>, usize)>;

    /// Unit rows in the joint space, `[images, dim]`.
    fn embeddings(&self, images: &[&Pixels], dim: usize) -> Result<Vec<f32>>;

    /// Itself, if its device decodes image files.
    fn files(&self) -> Option<&dyn FileEncoder> {
        None
    }

    /// Seconds that each of `repeats` passes of these images takes, with the images where the device reads them.
    fn time_passes(&self, images: &[&Pixels], dim: usize, repeats: usize) -> Result<Vec<f64>>;
}

/// An image file that was decoded where the image tower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedFile {
    /// Its place among the files that were given.
    pub index: usize,
    /// As [`Loaded::far_from_square`](crate::Loaded::far_from_square).
    pub far_from_square: bool,
}

/// An image tower whose device decodes image files.
pub(crate) trait FileEncoder: Send + Sync {
    /// Decodes and prepares those of the files that the device can; batches may be decoded while others are encoded.
    fn decode(&self, files: &[&[u8]], preprocess: &Preprocess) -> Result<DecodedImages>;

    /// Unit rows in the joint space, `[images, dim]`.
    fn embeddings(&self, images: &DecodedImages, dim: usize) -> Result<Vec<f32>>;
}

/// A text tower on some device.
pub(crate) trait TextEncoder: Send + Sync {
    /// Length of a feature row, which is that of a token's vector.
    fn width(&self) -> usize;

    /// How many tokens it has an embedding for.
    fn vocabulary(&self) -> usize;

    /// Whether it takes vectors instead of words.
    fn takes_context(&self) -> bool;

    /// Features before the head, `[texts, width]`.
    fn features(&self, texts: &[&[u32]]) -> Result<Vec<f32>>;

    /// Unit rows in the joint space, `[texts, dim]`.
    fn embeddings(&self, texts: &[&[u32]], context: &[f32], dim: usize) -> Result<Vec<f32>>;
}

/// What makes an image tower of a model's files, on any device.
pub(crate) trait BuildImage: Send + Sync + 'static {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>>;
}

/// What makes a text tower of a model's files, on any device.
pub(crate) trait BuildText: Send + Sync + 'static {
    fn build<D: Device>(&self, device: &D) -> Result<TextTower<D>>;
}

/// An image tower that is yet to be loaded.
pub(crate) trait ImageLoader: Send + Sync {
    fn load(&self, place: &Place) -> Result<Box<dyn ImageEncoder>>;
}

/// A text tower that is yet to be loaded.
pub(crate) trait TextLoader: Send + Sync {
    fn load(&self, place: &Place) -> Result<Box<dyn TextEncoder>>;
}

impl<B: BuildImage> ImageLoader for B {
    fn load(&self, place: &Place) -> Result<Box<dyn ImageEncoder>> {
        Ok(match place {
            Place::Cpu(cpu) => Box::new(cpu.image_encoder(self.build(cpu)?)),
            Place::Cuda(cuda) => Box::new(cuda.image_encoder(self.build(cuda)?)?),
        })
    }
}

impl<B: BuildText> TextLoader for B {
    fn load(&self, place: &Place) -> Result<Box<dyn TextEncoder>> {
        Ok(match place {
            Place::Cpu(cpu) => Box::new(cpu.text_encoder(self.build(cpu)?)),
            Place::Cuda(cuda) => Box::new(cuda.text_encoder(self.build(cuda)?)?),
        })
    }
}
