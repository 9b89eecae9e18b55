//! What tensors are called: tables of names for each kind of checkpoint, and the blocks of a transformer by such a table.

use std::borrow::Cow;

use crate::arch::{Head, HeadPerceptron};
use crate::checkpoint::{Checkpoint, WeightAndBias};
use crate::device::Device;
use crate::error::Result;
use crate::nn::linear::{Part, transposed};
use crate::nn::precision::Precision;

use super::block::{BlockLinear, BlockNorm, BlockWeights};

/// Names of the tensors of a transformer's blocks, each after the block's number.
#[derive(Debug)]
pub(crate) struct BlockNames {
    /// The blocks' list, such as `transformer.resblocks`.
    pub(crate) list: &'static str,
    /// The norms before attention and before the perceptron.
    pub(crate) norms: [&'static str; 2],
    pub(crate) attention_out: &'static str,
    /// The perceptron's two layers.
    pub(crate) perceptron: [&'static str; 2],
    pub(crate) qkv: QkvNames,
    /// Of blocks that have more.
    pub(crate) inner: Option<InnerNames>,
}

/// Names of what stands inside the branches of some models' blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InnerNames {
    /// The norm before attention's output layer.
    pub(crate) attention_norm: &'static str,
    /// The layer of the perceptron's gate.
    pub(crate) gate: &'static str,
    /// The norm before the perceptron's second layer.
    pub(crate) perceptron_norm: &'static str,
}

/// How query, key and value are stored.
#[derive(Debug)]
pub(crate) enum QkvNames {
    /// One weight `[3 * width, width]` and one bias `[3 * width]`.
    Fused { weight: &'static str, bias: &'static str },
    /// The same with biases of query and value alone, `[width]`.
    FusedWithoutKeyBias { weight: &'static str, query_bias: &'static str, value_bias: &'static str },
    /// Layers of their own.
    Split([&'static str; 3]),
    /// The same, that of the key without a bias.
    SplitWithoutKeyBias([&'static str; 3]),
}

/// OpenAI's and open_clip's.
pub(crate) static OPEN_CLIP_BLOCKS: BlockNames = BlockNames {
    list: "transformer.resblocks",
    norms: ["ln_1", "ln_2"],
    attention_out: "attn.out_proj",
    perceptron: ["mlp.c_fc", "mlp.c_proj"],
    qkv: QkvNames::Fused { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
    inner: None,
};

/// transformers', of CLIP and its successors.
pub(crate) static TRANSFORMERS_BLOCKS: BlockNames = BlockNames {
    list: "encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    attention_out: "self_attn.out_proj",
    perceptron: ["mlp.fc1", "mlp.fc2"],
    qkv: QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    inner: None,
};

/// The tensors of a transformer's blocks.
pub(crate) struct Blocks<'a> {
    checkpoint: &'a Checkpoint,
    /// Up to the block's number.
    prefix: String,
    names: &'static BlockNames,
    precision: Precision,
}

impl<'a> Blocks<'a> {
    /// `prefix` is the tower's.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        prefix: &str,
        names: &'static BlockNames,
        precision: Precision,
    ) -> Self {
        Self { checkpoint, prefix: format!("{prefix}{}", names.list), names, precision }
    }

    fn name(&self, n: usize, part: &str) -> String {
        format!("{}.{n}.{part}", self.prefix)
    }

    fn inner(&self) -> &'static InnerNames {
        self.names.inner.as_ref().expect("models with norms inside blocks have names for them")
    }

    /// How many blocks there are.
    pub(crate) fn count(&self) -> usize {
        let name = |n| self.name(n, &format!("{}.bias", self.names.norms[0]));
        (0..).take_while(|&n| self.checkpoint.contains(&name(n))).count()
    }

    /// The outputs of block `n`'s perceptron's first layer, if it is there.
    pub(crate) fn mlp_width(&self, n: usize) -> Option<usize> {
        let name = self.name(n, &format!("{}.bias", self.names.perceptron[0]));
        self.checkpoint.shape(&name)?.first().copied()
    }
}

impl BlockWeights for Blocks<'_> {
    fn norm(&self, n: usize, norm: BlockNorm, width: usize) -> Result<WeightAndBias<'_>> {
        let part = match norm {
            BlockNorm::Attention => self.names.norms[0],
            BlockNorm::Perceptron => self.names.norms[1],
            BlockNorm::AttentionOut => self.inner().attention_norm,
            BlockNorm::PerceptronOut => self.inner().perceptron_norm,
        };
        self.checkpoint.weight_and_bias(&format!("{}.", self.name(n, part)), &[width])
    }

    fn linear(&self, n: usize, layer: BlockLinear, shape: [usize; 2]) -> Result<WeightAndBias<'_>> {
        let part = match layer {
            BlockLinear::AttentionOut => self.names.attention_out,
            BlockLinear::PerceptronGate => self.inner().gate,
            BlockLinear::PerceptronIn => self.names.perceptron[0],
            BlockLinear::PerceptronOut => self.names.perceptron[1],
        };
        self.checkpoint.weight_and_bias(&format!("{}.", self.name(n, part)), &shape)
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn release(&self) {
        self.checkpoint.release();
    }

    fn qkv(&self, n: usize, width: usize) -> Result<[WeightAndBias<'_>; 3]> {
        read_qkv(self.checkpoint, &format!("{}.{n}.", self.prefix), &self.names.qkv, width)
    }
}

/// Query, key and value, `[width, width]` and `[width]` each.
pub(crate) fn read_qkv<'a>(
    checkpoint: &'a Checkpoint,
    prefix: &str,
    names: &QkvNames,
    width: usize,
) -> Result<[WeightAndBias<'a>; 3]> {
    match names {
        QkvNames::Split(names) => {
            let part = |name: &str| checkpoint.weight_and_bias(&format!("{prefix}{name}."), &[width, width]);
            let [query, key, value] = names;
            Ok([part(query)?, part(key)?, part(value)?])
        }
        QkvNames::SplitWithoutKeyBias(names) => {
            let part = |name: &str| checkpoint.weight_and_bias(&format!("{prefix}{name}."), &[width, width]);
            let [query, key, value] = names;
            let key = checkpoint.tensor(&format!("{prefix}{key}.weight"), &[width, width])?;
            Ok([part(query)?, (key, zeros(width)), part(value)?])
        }
        QkvNames::FusedWithoutKeyBias { weight, query_bias, value_bias } => {
            let weight = checkpoint.tensor(&format!("{prefix}{weight}"), &[3 * width, width])?;
            let bias = |name: &str| checkpoint.tensor(&format!("{prefix}{name}"), &[width]);
            let [query, key, value] = [0, 1, 2].map(|n| portion(&weight, n, 3));
            Ok([(query, bias(query_bias)?), (key, zeros(width)), (value, bias(value_bias)?)])
        }
        QkvNames::Fused { weight, bias } => {
            let weight = checkpoint.tensor(&format!("{prefix}{weight}"), &[3 * width, width])?;
            let bias = checkpoint.tensor(&format!("{prefix}{bias}"), &[3 * width])?;
            Ok([0, 1, 2].map(|n| (portion(&weight, n, 3), portion(&bias, n, 3))))
        }
    }
}

fn zeros<'a>(width: usize) -> Cow<'a, [f32]> {
    Cow::Owned(vec![0.0; width])
}

/// Part `n` of `count` equal parts.
fn portion<'a>(whole: &Cow<'a, [f32]>, n: usize, count: usize) -> Cow<'a, [f32]> {
    let range = n * whole.len() / count..(n + 1) * whole.len() / count;
    match whole {
        Cow::Borrowed(slice) => Cow::Borrowed(&slice[range]),
        Cow::Owned(vec) => Cow::Owned(vec[range].to_vec()),
    }
}

/// A tensor of that shape, or of that shape after dimensions of 1: some checkpoints keep a batch's dimension before it.
pub(crate) fn learned<'a>(checkpoint: &'a Checkpoint, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>> {
    let found = checkpoint.shape(name).unwrap_or_default();
    let extra = found.len().saturating_sub(shape.len());
    if found[..extra].iter().all(|&n| n == 1) && found[extra..] == *shape {
        return checkpoint.tensor(name, found);
    }
    checkpoint.tensor(name, shape)
}

/// A projection into the joint space, in either of the forms it is stored in: a matrix `[inputs, dim]` of that name, or a layer with
/// `{name}.weight`, `[dim, inputs]`, and perhaps `{name}.bias`.
pub(crate) fn projection<D: Device>(
    device: &D,
    checkpoint: &Checkpoint,
    name: &str,
    inputs: usize,
    dim: usize,
) -> Result<Head<D>> {
    let weight_name = format!("{name}.weight");
    let bias_name = format!("{name}.bias");
    let (weight, bias) = if checkpoint.contains(&weight_name) {
        let bias = checkpoint.contains(&bias_name).then(|| checkpoint.tensor(&bias_name, &[dim]));
        (checkpoint.tensor(&weight_name, &[dim, inputs])?, bias.transpose()?)
    } else {
        (Cow::Owned(transposed(&checkpoint.tensor(name, &[inputs, dim])?, inputs, dim)), None)
    };
    let part = Part { weight: &weight, bias: bias.as_deref(), scale: 1.0 };
    Ok(Head::Linear(device.linear(&[part], inputs, Precision::F32)?))
}

/// A projection of two layers without biases, `{name}.0.weight` and `{name}.2.weight`, of (inputs + dim) / 2 hidden values, as open_clip has it
/// behind transformers' text towers.
pub(crate) fn perceptron_projection<D: Device>(
    device: &D,
    checkpoint: &Checkpoint,
    name: &str,
    inputs: usize,
    dim: usize,
) -> Result<Head<D>> {
    let width = (inputs + dim) / 2;
    let linear = |layer: usize, outputs: usize, inputs: usize| {
        let weight = checkpoint.tensor(&format!("{name}.{layer}.weight"), &[outputs, inputs])?;
        device.linear(&[Part { weight: &weight, bias: None, scale: 1.0 }], inputs, Precision::F32)
    };
    let (fc1, fc2) = (linear(0, width, inputs)?, linear(2, dim, width)?);
    Ok(Head::Perceptron(HeadPerceptron { fc1, fc2, width }))
}
