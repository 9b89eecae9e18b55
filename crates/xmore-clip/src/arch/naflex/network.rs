//! The image network: patches of any grid, blocks, attention pooling.

use crate::arch::shared::pool::AttentionPool;
use crate::arch::shared::transformer::{Transformer, TransformerForm};
use crate::arch::shared::vit::{Pool, VitArch, VitWeights};
use crate::device::{Device, ImageNetwork, Mask, TOKENS_PER_PASS};
use crate::error::Result;
use crate::nn::linear::Part;

/// Patches of a picture, as SigLIP 2 takes them if nothing else is asked for.
const USUAL_TOKENS: usize = 256;

/// The network.
pub(super) struct NaFlexVit<D: Device> {
    embedding: D::GridEmbedding,
    width: usize,
    transformer: Transformer<D>,
    norm: D::Norm,
    pool: AttentionPool<D>,
}

impl<D: Device> NaFlexVit<D> {
    /// Takes the network's tensors; `arch` must have been checked. Positions are learned for a square of `side` patches.
    pub(super) fn load(device: &D, weights: &VitWeights<'_>, arch: &VitArch, side: usize) -> Result<Self> {
        let (names, checkpoint, width) = (weights.names, weights.checkpoint, arch.sizes.width);
        let name = |part: &str| format!("{}{part}", weights.prefix);
        let inputs = arch.patch * arch.patch * 3;
        let (weight, bias) =
            checkpoint.weight_and_bias(&format!("{}.", name(names.patches)), &[width, inputs])?;
        let part = Part { weight: &weight, bias: Some(&bias), scale: 1.0 };
        let linear = device.linear(&[part], inputs, weights.precision.of_pixels())?;
        let positions = checkpoint.tensor(&name(names.positions), &[side * side, width])?;
        let form = TransformerForm {
            sizes: arch.sizes,
            activation: arch.activation,
            epsilon: arch.epsilon,
            mask: Mask::None,
            wanted: None,
            blocks: arch.blocks.clone(),
        };
        let pool_names = names.pool.expect("SigLIP pools by attention");
        let Pool::Attention { heads, mlp_width } = arch.pool else {
            unreachable!("SigLIP pools by attention")
        };
        let (norm_weight, norm_bias) =
            checkpoint.weight_and_bias(&format!("{}.", name(names.norm_post)), &[width])?;
        Ok(Self {
            embedding: device.grid_embedding(linear, &positions, side)?,
            width,
            transformer: Transformer::load(device, &weights.blocks(), form)?,
            norm: device.norm(&norm_weight, &norm_bias, arch.epsilon)?,
            pool: AttentionPool::load(device, weights, pool_names, arch, heads, mlp_width)?,
        })
    }
}

impl<D: Device> ImageNetwork<D> for NaFlexVit<D> {
    fn width(&self) -> usize {
        self.width
    }

    fn images_per_pass(&self) -> usize {
        TOKENS_PER_PASS / USUAL_TOKENS
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        let (x, lengths) = D::embed_grids(run, &self.embedding, images);
        let mut x = self.transformer.forward(run, x, &lengths);
        D::norm_in_place(run, &self.norm, &mut x);
        self.pool.forward(run, &x, &lengths)
    }
}
