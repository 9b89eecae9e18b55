//! CLIP's tensors under the names that OpenAI, open_clip and transformers give them.
//!
//! Towers ask by OpenAI's names (open_clip's too); transformers' `CLIPModel` has others, splits attention's input layer in three and
//! stores projections transposed. The numbers are the same, so a model loads to the same bits from each.

use std::borrow::Cow;

use crate::arch::Head;
use crate::arch::shared::transformer::{BlockLinear, BlockNorm, BlockWeights};
use crate::checkpoint::{Checkpoint, WeightAndBias};
use crate::device::Device;
use crate::error::Result;
use crate::nn::linear::{Part, transposed};
use crate::nn::precision::Precision;

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// OpenAI's and open_clip's.
    OpenClip,
    /// open_clip's with `custom_text`: the text tower's begin with `text.`.
    OpenClipText,
    /// transformers' `CLIPModel`.
    Transformers,
}

impl Naming {
    /// The naming of a checkpoint's tensors.
    pub(crate) fn detect(checkpoint: &Checkpoint) -> Self {
        if checkpoint.names().any(|n| n.starts_with("vision_model.") || n.starts_with("text_model.")) {
            Self::Transformers
        } else if checkpoint.contains("text.token_embedding.weight") {
            Self::OpenClipText
        } else {
            Self::OpenClip
        }
    }
}

/// A checkpoint, asked by OpenAI's names.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) naming: Naming,
    /// How transformers' linear layers are kept.
    pub(crate) precision: Precision,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, naming: Naming::detect(checkpoint), precision: Precision::F32 }
    }

    /// The name that OpenAI's `name` has in this checkpoint.
    pub(crate) fn name(&self, name: &str) -> String {
        let of_both = name.starts_with("visual.") || name == "logit_scale";
        match self.naming {
            Naming::OpenClipText if !of_both => format!("text.{name}"),
            Naming::OpenClip | Naming::OpenClipText => name.to_owned(),
            Naming::Transformers => {
                let renamed = TRANSFORMERS.iter().find_map(|(openai, transformers)| {
                    let rest = name.strip_prefix(openai)?;
                    Some(format!("{transformers}{rest}"))
                });
                renamed.unwrap_or_else(|| name.to_owned())
            }
        }
    }

    /// See [`Checkpoint::tensor`].
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>> {
        self.checkpoint.tensor(&self.name(name), shape)
    }

    /// See [`Checkpoint::shape`].
    pub(crate) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.checkpoint.shape(&self.name(name))
    }

    /// A layer norm `[width]`.
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

    /// The projection `visual.proj` or `text_projection` into the joint space, `[width, dim]` as OpenAI stores it.
    pub(crate) fn projection<D: Device>(
        &self,
        device: &D,
        name: &str,
        width: usize,
        dim: usize,
    ) -> Result<Head<D>> {
        let weight = match self.naming {
            Naming::Transformers => self.tensor(name, &[dim, width])?,
            _ => Cow::Owned(transposed(&self.tensor(name, &[width, dim])?, width, dim)),
        };
        let linear =
            device.linear(&[Part { weight: &weight, bias: None, scale: 1.0 }], width, Precision::F32)?;
        Ok(Head { linear, mlp: None })
    }

    /// The image tower's blocks.
    pub(crate) fn visual_blocks(&self) -> ClipBlocks<'a> {
        self.blocks("visual.transformer.resblocks", "vision_model.encoder.layers")
    }

    /// The text tower's blocks.
    pub(crate) fn text_blocks(&self) -> ClipBlocks<'a> {
        self.blocks("transformer.resblocks", "text_model.encoder.layers")
    }

    fn blocks(&self, openai: &str, transformers: &str) -> ClipBlocks<'a> {
        let prefix =
            if self.naming == Naming::Transformers { transformers.to_owned() } else { self.name(openai) };
        ClipBlocks { weights: *self, prefix }
    }
}

/// OpenAI's names, or their beginnings, and transformers'.
const TRANSFORMERS: &[(&str, &str)] = &[
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre", "vision_model.pre_layrnorm"),
    ("visual.ln_post", "vision_model.post_layernorm"),
    ("visual.proj", "visual_projection.weight"),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final", "text_model.final_layer_norm"),
    ("text_projection", "text_projection.weight"),
];

/// The tensors of a transformer's blocks.
pub(crate) struct ClipBlocks<'a> {
    weights: Weights<'a>,
    prefix: String,
}

impl ClipBlocks<'_> {
    /// Name of a norm of block `n`.
    fn norm_name(&self, n: usize, norm: BlockNorm) -> String {
        let transformers = self.weights.naming == Naming::Transformers;
        let part = match norm {
            BlockNorm::Attention if transformers => "layer_norm1",
            BlockNorm::Attention => "ln_1",
            BlockNorm::Perceptron if transformers => "layer_norm2",
            BlockNorm::Perceptron => "ln_2",
        };
        format!("{}.{n}.{part}", self.prefix)
    }

    /// Name of a linear layer of block `n`.
    fn linear_name(&self, n: usize, layer: BlockLinear) -> String {
        let transformers = self.weights.naming == Naming::Transformers;
        let part = match layer {
            BlockLinear::AttentionOut if transformers => "self_attn.out_proj",
            BlockLinear::AttentionOut => "attn.out_proj",
            BlockLinear::PerceptronIn if transformers => "mlp.fc1",
            BlockLinear::PerceptronIn => "mlp.c_fc",
            BlockLinear::PerceptronOut if transformers => "mlp.fc2",
            BlockLinear::PerceptronOut => "mlp.c_proj",
        };
        format!("{}.{n}.{part}", self.prefix)
    }

    /// How many blocks there are.
    pub(crate) fn count(&self) -> usize {
        let name = |n| format!("{}.bias", self.norm_name(n, BlockNorm::Attention));
        (0..).take_while(|&n| self.weights.checkpoint.contains(&name(n))).count()
    }

    /// The outputs of block `n`'s perceptron's first layer, if it is there.
    pub(crate) fn mlp_width(&self, n: usize) -> Option<usize> {
        let name = format!("{}.bias", self.linear_name(n, BlockLinear::PerceptronIn));
        self.weights.checkpoint.shape(&name)?.first().copied()
    }
}

impl BlockWeights for ClipBlocks<'_> {
    fn norm(&self, n: usize, norm: BlockNorm, width: usize) -> Result<WeightAndBias<'_>> {
        self.weights.checkpoint.weight_and_bias(&format!("{}.", self.norm_name(n, norm)), &[width])
    }

    fn linear(&self, n: usize, layer: BlockLinear, shape: [usize; 2]) -> Result<WeightAndBias<'_>> {
        self.weights.checkpoint.weight_and_bias(&format!("{}.", self.linear_name(n, layer)), &shape)
    }

    fn precision(&self) -> Precision {
        self.weights.precision
    }

    fn qkv(&self, n: usize, width: usize) -> Result<[WeightAndBias<'_>; 3]> {
        let (checkpoint, prefix) = (self.weights.checkpoint, format!("{}.{n}", self.prefix));
        if self.weights.naming == Naming::Transformers {
            let part = |name: &str| -> Result<WeightAndBias<'_>> {
                let prefix = format!("{prefix}.self_attn.{name}_proj");
                let weight = checkpoint.tensor(&format!("{prefix}.weight"), &[width, width])?;
                Ok((weight, checkpoint.tensor(&format!("{prefix}.bias"), &[width])?))
            };
            return Ok([part("q")?, part("k")?, part("v")?]);
        }
        let weight = checkpoint.tensor(&format!("{prefix}.attn.in_proj_weight"), &[3 * width, width])?;
        let bias = checkpoint.tensor(&format!("{prefix}.attn.in_proj_bias"), &[3 * width])?;
        let third = |n: usize| (third(&weight, n), third(&bias, n));
        Ok([third(0), third(1), third(2)])
    }
}

fn third<'a>(whole: &Cow<'a, [f32]>, n: usize) -> Cow<'a, [f32]> {
    let range = n * whole.len() / 3..(n + 1) * whole.len() / 3;
    match whole {
        Cow::Borrowed(slice) => Cow::Borrowed(&slice[range]),
        Cow::Owned(vec) => Cow::Owned(vec[range].to_vec()),
    }
}
