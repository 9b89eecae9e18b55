//! CLIP's tensors under the names of whoever saved them.
//!
//! Layers ask by OpenAI's names (open_clip's too); transformers' `CLIPModel` has others, splits attention's input layer in three and
//! stores projections transposed. The numbers are the same, so a model loads to the same bits from each.

use std::borrow::Cow;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::linear::{Linear, Precision};
use crate::nn::norm::LayerNorm;

/// A weight `[width, width]` and its bias `[width]`.
type WeightAndBias<'a> = (Cow<'a, [f32]>, Cow<'a, [f32]>);

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
    /// Tells the naming from the names.
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
                let renamed = TRANSFORMERS.iter().find_map(|(ours, theirs)| {
                    let rest = name.strip_prefix(ours)?;
                    Some(format!("{theirs}{rest}"))
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
    pub(crate) fn norm(&self, name: &str, width: usize, epsilon: f32) -> Result<LayerNorm> {
        LayerNorm::load(self.checkpoint, &format!("{}.", self.name(name)), width, epsilon)
    }

    /// The projection `visual.proj` or `text_projection` into the joint space, `[width, dim]` as OpenAI stores it.
    pub(crate) fn projection(&self, name: &str, width: usize, dim: usize) -> Result<Linear> {
        if self.naming == Naming::Transformers {
            return Ok(Linear::new(&self.tensor(name, &[dim, width])?, dim, width, None));
        }
        Ok(Linear::from_transposed(&self.tensor(name, &[width, dim])?, width, dim))
    }

    /// The image tower's blocks.
    pub(crate) fn visual_blocks(&self) -> BlockWeights<'a> {
        self.blocks("visual.transformer.resblocks", "vision_model.encoder.layers")
    }

    /// The text tower's blocks.
    pub(crate) fn text_blocks(&self) -> BlockWeights<'a> {
        self.blocks("transformer.resblocks", "text_model.encoder.layers")
    }

    fn blocks(&self, ours: &str, theirs: &str) -> BlockWeights<'a> {
        let prefix = if self.naming == Naming::Transformers { theirs.to_owned() } else { self.name(ours) };
        BlockWeights { weights: *self, prefix }
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
pub(crate) struct BlockWeights<'a> {
    weights: Weights<'a>,
    prefix: String,
}

impl<'a> BlockWeights<'a> {
    /// Name of block `n`'s part; `ours` is OpenAI's.
    fn name(&self, n: usize, ours: &str) -> String {
        let part = match (self.weights.naming, ours) {
            (Naming::Transformers, "ln_1") => "layer_norm1",
            (Naming::Transformers, "ln_2") => "layer_norm2",
            (Naming::Transformers, "attn.out_proj") => "self_attn.out_proj",
            (Naming::Transformers, "mlp.c_fc") => "mlp.fc1",
            (Naming::Transformers, "mlp.c_proj") => "mlp.fc2",
            _ => ours,
        };
        format!("{}.{n}.{part}", self.prefix)
    }

    /// How many blocks there are.
    pub(crate) fn count(&self) -> usize {
        (0..)
            .take_while(|&n| self.weights.checkpoint.contains(&format!("{}.bias", self.name(n, "ln_1"))))
            .count()
    }

    /// The outputs of block `n`'s perceptron's first layer, if it is there.
    pub(crate) fn mlp_width(&self, n: usize) -> Option<usize> {
        self.weights.checkpoint.shape(&format!("{}.bias", self.name(n, "mlp.c_fc")))?.first().copied()
    }

    /// Norm 1 or 2 of block `n`.
    pub(crate) fn norm(&self, n: usize, which: usize, width: usize, epsilon: f32) -> Result<LayerNorm> {
        let name = self.name(n, if which == 1 { "ln_1" } else { "ln_2" });
        LayerNorm::load(self.weights.checkpoint, &format!("{name}."), width, epsilon)
    }

    /// A layer of block `n`, `[outputs, inputs]`.
    pub(crate) fn linear(&self, n: usize, ours: &str, [outputs, inputs]: [usize; 2]) -> Result<Linear> {
        let prefix = format!("{}.", self.name(n, ours));
        Linear::load_as(self.weights.checkpoint, &prefix, [outputs, inputs], self.precision())
    }

    /// How linear layers are kept.
    pub(crate) fn precision(&self) -> Precision {
        self.weights.precision
    }

    /// Query, key and value of block `n`.
    pub(crate) fn qkv(&self, n: usize, width: usize) -> Result<[WeightAndBias<'a>; 3]> {
        let checkpoint = self.weights.checkpoint;
        if self.weights.naming == Naming::Transformers {
            let part = |name: &str| -> Result<WeightAndBias<'a>> {
                let prefix = self.name(n, &format!("self_attn.{name}_proj"));
                let weight = checkpoint.tensor(&format!("{prefix}.weight"), &[width, width])?;
                Ok((weight, checkpoint.tensor(&format!("{prefix}.bias"), &[width])?))
            };
            return Ok([part("q")?, part("k")?, part("v")?]);
        }
        let weight = checkpoint.tensor(&self.name(n, "attn.in_proj_weight"), &[3 * width, width])?;
        let bias = checkpoint.tensor(&self.name(n, "attn.in_proj_bias"), &[3 * width])?;
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
