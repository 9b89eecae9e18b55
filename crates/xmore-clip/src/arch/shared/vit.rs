//! A vision transformer: patches, perhaps a class token, learned positions, blocks, and one of several ways to pool.
//!
//! References: OpenAI's `VisionTransformer` (a norm before and after the blocks, the class token is pooled), open_clip's of the same name
//! (mean pooling for CLIPA), timm's `VisionTransformer` and transformers' `SiglipVisionModel` (no class token, attention pooling).

use crate::arch::shared::block::BlockForm;
use crate::arch::shared::names::{BlockNames, Blocks, learned};
use crate::arch::shared::pool::{AttentionPool, AttentionPoolNames};
use crate::arch::shared::query_pool::{QueryPool, QueryPoolArch};
use crate::arch::shared::transformer::{Transformer, TransformerForm, TransformerSizes};
use crate::checkpoint::Checkpoint;
use crate::device::{Device, ImageNetwork, Mask, Operation, PatchEmbedding, TOKENS_PER_PASS, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::Part;
use crate::nn::precision::Precision;

/// Sizes and form of a vision transformer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VitArch {
    pub(crate) image_size: usize,
    pub(crate) patch: usize,
    pub(crate) sizes: TransformerSizes,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
    /// Whether a learned token stands before the patches.
    pub(crate) class_token: bool,
    /// Whether tokens are normalized before the blocks.
    pub(crate) norm_pre: bool,
    pub(crate) blocks: BlockForm,
    pub(crate) pool: Pool,
}

/// What becomes of the last block's tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pool {
    /// The class token, normalized.
    Class,
    /// The mean of the patches, normalized.
    Mean,
    /// All tokens are normalized, and a learned query attends to them.
    Attention {
        /// Heads of that attention.
        heads: usize,
        /// Width inside its perceptron.
        mlp_width: usize,
    },
    /// A learned query attends to the tokens, between two norms.
    Query(QueryPoolArch),
}

impl VitArch {
    /// Length of a feature row.
    pub(crate) fn feature_width(&self) -> usize {
        match self.pool {
            Pool::Query(pool) => pool.width,
            Pool::Class | Pool::Mean | Pool::Attention { .. } => self.sizes.width,
        }
    }

    /// Tokens of an image. Pixels at the edges that fill no patch are left out, as by a convolution.
    pub(crate) fn tokens(&self) -> usize {
        (self.image_size / self.patch).pow(2) + usize::from(self.class_token)
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> String {
        let TransformerSizes { width, layers, .. } = self.sizes;
        format!("ViT, {layers} layers of {width}, patch {}, {}", self.patch, self.activation.name())
    }

    /// The operations that it needs beside those of every device.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut operations = self.blocks.operations();
        operations.extend(Operation::of_activation(self.activation));
        if !self.class_token {
            operations.push(Operation::PatchesAlone);
        }
        match self.pool {
            Pool::Class => {}
            Pool::Mean => operations.push(Operation::Means),
            Pool::Attention { .. } | Pool::Query(_) => operations.push(Operation::LearnedQuery),
        }
        operations
    }
}

/// Names of its tensors, each after the tower's prefix. Those of parts that a model does not have are empty.
#[derive(Debug)]
pub(crate) struct VitNames {
    /// The patches' convolution, without `.weight` and `.bias`.
    pub(crate) patches: &'static str,
    pub(crate) class: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) norm_pre: &'static str,
    pub(crate) norm_post: &'static str,
    pub(crate) blocks: &'static BlockNames,
    pub(crate) pool: Option<&'static AttentionPoolNames>,
}

/// The tensors of a vision transformer.
pub(crate) struct VitWeights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) prefix: &'a str,
    pub(crate) names: &'static VitNames,
    /// How linear layers are kept.
    pub(crate) precision: Precision,
}

impl<'a> VitWeights<'a> {
    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }

    /// The blocks' tensors.
    pub(crate) fn blocks(&self) -> Blocks<'a> {
        Blocks::new(self.checkpoint, self.prefix, self.names.blocks, self.precision)
    }

    /// The norm of that name over rows of `width`.
    pub(crate) fn norm<D: Device>(
        &self,
        device: &D,
        name: &str,
        width: usize,
        epsilon: f32,
    ) -> Result<D::Norm> {
        let (weight, bias) = self.checkpoint.weight_and_bias(&format!("{}.", self.name(name)), &[width])?;
        device.norm(&weight, &bias, epsilon)
    }
}

/// The network, without the projection into the joint space.
pub(crate) struct Vit<D: Device> {
    patches: PatchEmbedding<D>,
    norm_pre: Option<D::Norm>,
    transformer: Transformer<D>,
    pool: VitPool<D>,
}

/// Each with the norm behind the blocks.
enum VitPool<D: Device> {
    Class(D::Norm),
    Mean(D::Norm),
    Attention(D::Norm, AttentionPool<D>),
    Query(QueryPool<D>),
}

impl<D: Device> Vit<D> {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(device: &D, weights: &VitWeights<'_>, arch: &VitArch) -> Result<Self> {
        let wanted = (arch.pool == Pool::Class).then_some(Wanted::First);
        // The first that is taken, for it says whether the checkpoint has the image's tokens.
        let patches = Self::patches(device, weights, arch)?;
        let form = TransformerForm {
            sizes: arch.sizes,
            activation: arch.activation,
            epsilon: arch.epsilon,
            mask: Mask::None,
            wanted,
            blocks: arch.blocks.clone(),
        };
        let transformer = Transformer::load(device, &weights.blocks(), form)?;
        let norm = |name: &str| weights.norm(device, name, arch.sizes.width, arch.epsilon);
        let norm_post = || norm(weights.names.norm_post);
        let pool = match (&arch.pool, weights.names.pool) {
            (Pool::Class, _) => VitPool::Class(norm_post()?),
            (Pool::Mean, _) => VitPool::Mean(norm_post()?),
            (&Pool::Attention { heads, mlp_width }, names) => {
                let names = names.expect("models that pool by attention have names for it");
                let pool = AttentionPool::load(device, weights, names, arch, heads, mlp_width)?;
                VitPool::Attention(norm_post()?, pool)
            }
            (&Pool::Query(pool), _) => {
                VitPool::Query(QueryPool::load(device, weights, pool, arch.sizes.width, arch.epsilon)?)
            }
        };
        Ok(Self {
            patches,
            norm_pre: match arch.norm_pre {
                true => Some(norm(weights.names.norm_pre)?),
                false => None,
            },
            transformer,
            pool,
        })
    }

    fn patches(device: &D, weights: &VitWeights<'_>, arch: &VitArch) -> Result<PatchEmbedding<D>> {
        let (width, patch, names) = (arch.sizes.width, arch.patch, weights.names);
        let checkpoint = weights.checkpoint;
        let convolution = weights.name(names.patches);
        let kernel = checkpoint.tensor(&format!("{convolution}.weight"), &[width, 3, patch, patch])?;
        let bias = format!("{convolution}.bias");
        let bias = checkpoint.contains(&bias).then(|| checkpoint.tensor(&bias, &[width])).transpose()?;
        let area = patch * patch;
        let mut channels_last = vec![0.0; kernel.len()];
        for (from, to) in kernel.chunks_exact(3 * area).zip(channels_last.chunks_exact_mut(3 * area)) {
            for (i, pixel) in to.chunks_exact_mut(3).enumerate() {
                pixel.iter_mut().enumerate().for_each(|(c, value)| *value = from[c * area + i]);
            }
        }
        let class = match arch.class_token {
            true => Some(device.values(&learned(checkpoint, &weights.name(names.class), &[width])?)?),
            false => None,
        };
        let positions = learned(checkpoint, &weights.name(names.positions), &[arch.tokens(), width])?;
        let embedding = Part { weight: &channels_last, bias: bias.as_deref(), scale: 1.0 };
        Ok(PatchEmbedding {
            side: arch.image_size,
            patch,
            width,
            linear: device.linear(&[embedding], 3 * area, weights.precision.of_pixels())?,
            class,
            positions: device.values(&positions)?,
        })
    }
}

impl<D: Device> ImageNetwork<D> for Vit<D> {
    fn width(&self) -> usize {
        match &self.pool {
            VitPool::Query(pool) => pool.width(),
            VitPool::Class(_) | VitPool::Mean(_) | VitPool::Attention(..) => self.patches.width,
        }
    }

    fn images_per_pass(&self) -> usize {
        (TOKENS_PER_PASS / self.patches.tokens()).max(1)
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        let mut x = D::embed_patches(run, &self.patches, images);
        if let Some(norm) = &self.norm_pre {
            D::norm_in_place(run, norm, &mut x);
        }
        let lengths = vec![self.patches.tokens(); D::count(images)];
        let mut x = self.transformer.forward(run, x, &lengths);
        match &self.pool {
            VitPool::Class(norm) => {
                D::norm_in_place(run, norm, &mut x);
                x
            }
            VitPool::Mean(norm) => {
                let sequences = D::sequences(run, &lengths);
                let skipped = usize::from(self.patches.class.is_some());
                let mut means = D::means(run, &x, &sequences, skipped);
                D::norm_in_place(run, norm, &mut means);
                means
            }
            VitPool::Attention(norm, pool) => {
                D::norm_in_place(run, norm, &mut x);
                pool.forward(run, &x, &lengths)
            }
            VitPool::Query(pool) => pool.forward(run, x, &lengths),
        }
    }
}
