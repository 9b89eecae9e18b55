//! CLIP's vision transformer.
//!
//! Reference: OpenAI's `VisionTransformer`: patches, a class token, learned positions, a norm before and after the blocks.

use crate::arch::shared::transformer::Transformer;
use crate::device::{Device, ImageNetwork, PatchEmbedding, Wanted};
use crate::error::Result;
use crate::nn::linear::Part;
use crate::nn::precision::Precision;

use super::config::VitArch;
use super::weights::Weights;

/// Tokens that one thread had best take together: enough rows to use each weight well, few enough for the caches.
const TOKENS_PER_PASS: usize = 200;

/// The network, without the projection into the joint space.
pub(crate) struct Vit<D: Device> {
    patches: PatchEmbedding<D>,
    norm_pre: D::Norm,
    transformer: Transformer<D>,
    norm_post: D::Norm,
}

impl<D: Device> Vit<D> {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(device: &D, weights: &Weights<'_>, arch: &VitArch) -> Result<Self> {
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
        let embedding = Part { weight: &channels_last, bias: None, scale: 1.0 };
        let patches = PatchEmbedding {
            side: arch.image_size,
            patch,
            width,
            linear: device.linear(&[embedding], 3 * area, Precision::F32)?,
            class: device.values(&weights.tensor("visual.class_embedding", &[width])?)?,
            positions: device.values(&weights.tensor("visual.positional_embedding", &[tokens, width])?)?,
        };
        Ok(Self {
            patches,
            norm_pre: weights.norm(device, "visual.ln_pre", width, epsilon)?,
            transformer: Transformer::load(
                device,
                &weights.visual_blocks(),
                arch.sizes,
                arch.activation,
                epsilon,
                false,
            )?,
            norm_post: weights.norm(device, "visual.ln_post", width, epsilon)?,
        })
    }
}

impl<D: Device> ImageNetwork<D> for Vit<D> {
    fn width(&self) -> usize {
        self.patches.width
    }

    fn images_per_pass(&self) -> usize {
        (TOKENS_PER_PASS / self.patches.tokens()).max(1)
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        let mut x = D::embed_patches(run, &self.patches, images);
        D::norm_in_place(run, &self.norm_pre, &mut x);
        let lengths = vec![self.patches.tokens(); D::count(images)];
        let mut pooled = self.transformer.forward(run, x, &lengths, Wanted::First);
        D::norm_in_place(run, &self.norm_post, &mut pooled);
        pooled
    }
}
