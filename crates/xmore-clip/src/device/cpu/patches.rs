//! Patch embeddings: a linear layer of the pixels of each patch, with the class token and the positions.

use crate::device::PatchEmbedding;
use crate::nn::gemm::Threads;
use crate::preprocess::Pixels;
use crate::profile;

use super::Cpu;

/// The tokens of all images, `[images * tokens, width]`.
pub(super) fn embed(layer: &PatchEmbedding<Cpu>, images: &[&Pixels], threads: Threads) -> Vec<f32> {
    let (width, patches, tokens) = (layer.width, layer.patches(), layer.tokens());
    let mut pixels = Vec::with_capacity(images.len() * patches * layer.linear.inputs());
    images.iter().for_each(|image| lay_out(layer, image.as_slice(), &mut pixels));
    let embedded =
        profile::time("patches", pixels.len() * 2 * width, || layer.linear.forward(&pixels, threads));
    let mut x = Vec::with_capacity(images.len() * tokens * width);
    for image in embedded.chunks_exact(patches * width) {
        let start = x.len();
        x.extend_from_slice(layer.class.as_deref().unwrap_or_default());
        x.extend_from_slice(image);
        x[start..].iter_mut().zip(&layer.positions).for_each(|(x, p)| *x += p);
    }
    x
}

/// The pixels of each patch side by side: `[patches, patch * patch * 3]`.
fn lay_out(layer: &PatchEmbedding<Cpu>, image: &[f32], out: &mut Vec<f32>) {
    let (line, grid) = (layer.patch * 3, layer.side / layer.patch);
    for y in 0..grid {
        for x in 0..grid {
            for row in 0..layer.patch {
                let at = ((y * layer.patch + row) * layer.side + x * layer.patch) * 3;
                out.extend_from_slice(&image[at..at + line]);
            }
        }
    }
}
