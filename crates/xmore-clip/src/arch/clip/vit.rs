//! CLIP's vision transformer.
//!
//! Reference: OpenAI's `VisionTransformer`: patches, a class token, learned positions, a norm before and after the blocks.

use crate::arch::ImageTower;
use crate::arch::shared::transformer::Transformer;
use crate::error::Result;
use crate::nn::gemm::Threads;
use crate::nn::linear::Linear;
use crate::nn::norm::LayerNorm;
use crate::profile;

use super::config::VitArch;
use super::weights::Weights;

/// Tokens that one thread had best take together: enough rows to use each weight well, few enough for the caches.
const TOKENS_PER_PASS: usize = 200;

/// The network, without the projection into the joint space.
pub(crate) struct Vit {
    size: usize,
    patch: usize,
    width: usize,
    /// `[width, patch * patch * 3]`, channels innermost.
    patches: Linear,
    class: Vec<f32>,
    /// `[1 + patches, width]`.
    positions: Vec<f32>,
    norm_pre: LayerNorm,
    transformer: Transformer,
    norm_post: LayerNorm,
}

impl Vit {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(weights: &Weights<'_>, arch: &VitArch) -> Result<Self> {
        let (width, patch, epsilon) = (arch.sizes.width, arch.patch, arch.epsilon);
        let kernel = weights.tensor("visual.conv1.weight", &[width, 3, patch, patch])?;
        let area = patch * patch;
        let mut channels_last = vec![0.0; kernel.len()];
        for (from, to) in kernel.chunks_exact(3 * area).zip(channels_last.chunks_exact_mut(3 * area)) {
            for (i, pixel) in to.chunks_exact_mut(3).enumerate() {
                pixel.iter_mut().enumerate().for_each(|(c, value)| *value = from[c * area + i]);
            }
        }
        let tokens = (arch.image_size / patch).pow(2) + 1;
        Ok(Self {
            size: arch.image_size,
            patch,
            width,
            patches: Linear::new(&channels_last, width, 3 * area, None),
            class: weights.tensor("visual.class_embedding", &[width])?.into_owned(),
            positions: weights.tensor("visual.positional_embedding", &[tokens, width])?.into_owned(),
            norm_pre: weights.norm("visual.ln_pre", width, epsilon)?,
            transformer: Transformer::load(
                &weights.visual_blocks(),
                arch.sizes,
                arch.activation,
                epsilon,
                false,
            )?,
            norm_post: weights.norm("visual.ln_post", width, epsilon)?,
        })
    }

    /// The pixels of each patch side by side: `[patches, patch * patch * 3]`.
    fn lay_out(&self, image: &[f32], out: &mut Vec<f32>) {
        let (line, side) = (self.patch * 3, self.size / self.patch);
        for y in 0..side {
            for x in 0..side {
                for row in 0..self.patch {
                    let at = ((y * self.patch + row) * self.size + x * self.patch) * 3;
                    out.extend_from_slice(&image[at..at + line]);
                }
            }
        }
    }
}

impl ImageTower for Vit {
    fn width(&self) -> usize {
        self.width
    }

    fn images_per_pass(&self) -> usize {
        (TOKENS_PER_PASS / (self.positions.len() / self.width)).max(1)
    }

    fn forward(&self, images: &[&[f32]], threads: Threads) -> Vec<f32> {
        let width = self.width;
        let tokens = self.positions.len() / width;
        let mut pixels = Vec::with_capacity(images.len() * (tokens - 1) * self.patches.inputs());
        images.iter().for_each(|image| self.lay_out(image, &mut pixels));
        let embedded =
            profile::time("patches", pixels.len() * 2 * width, || self.patches.forward(&pixels, threads));
        let mut x = Vec::with_capacity(images.len() * tokens * width);
        for image in embedded.chunks_exact((tokens - 1) * width) {
            let start = x.len();
            x.extend_from_slice(&self.class);
            x.extend_from_slice(image);
            x[start..].iter_mut().zip(&self.positions).for_each(|(x, p)| *x += p);
        }
        self.norm_pre.forward(&mut x);
        let sequences: Vec<_> = (0..images.len()).map(|n| n * tokens..(n + 1) * tokens).collect();
        let class_tokens: Vec<_> = sequences.iter().map(|range| range.start).collect();
        let mut pooled = self.transformer.forward(x, &sequences, &class_tokens, threads);
        self.norm_post.forward(&mut pooled);
        pooled
    }
}
