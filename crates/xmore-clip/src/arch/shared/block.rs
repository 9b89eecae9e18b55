//! What a transformer's block is made of beside attention itself: its form, its tensors' names as roles, and its two residual branches.
//!
//! References: OpenAI's `ResidualAttentionBlock` (norms before the branches); timm's `EvaBlock` (a gated perceptron, norms inside the branches)
//! and `EvaBlockPostNorm` (norms after the branches).

use crate::arch::shared::rotary::RotaryPositions;
use crate::arch::shared::transformer::TransformerForm;
use crate::checkpoint::WeightAndBias;
use crate::device::{AttentionLayers, AttentionShape, Device, Operation, PerceptronLayers};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::Part;
use crate::nn::precision::Precision;

/// How blocks differ from those of CLIP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockForm {
    pub(crate) norms: NormPlace,
    /// Whether attention's result is normalized before its output layer.
    pub(crate) attention_norm: bool,
    pub(crate) perceptron: PerceptronForm,
    /// Positions by which queries and keys are rotated.
    pub(crate) rotary: Option<RotaryPositions>,
}

/// Where the norms of a block's two branches stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormPlace {
    /// x + branch(norm(x)).
    Before,
    /// x + norm(branch(x)).
    After,
}

/// What a perceptron computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PerceptronForm {
    /// fc2(activation(fc1(x))).
    Plain,
    /// fc2(norm(silu(gate(x)) · fc1(x))), SwiGLU with a norm inside.
    Gated,
}

impl BlockForm {
    /// That of CLIP's blocks.
    pub(crate) const CLIP: Self = Self {
        norms: NormPlace::Before,
        attention_norm: false,
        perceptron: PerceptronForm::Plain,
        rotary: None,
    };

    /// The operations that it needs beside those of every device.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let needed = [
            (self.norms == NormPlace::After, Operation::NormAfterBranch),
            (self.perceptron == PerceptronForm::Gated, Operation::GatedPerceptron),
            (self.rotary.is_some(), Operation::RotaryPositions),
        ];
        needed.into_iter().filter_map(|(needed, operation)| needed.then_some(operation)).collect()
    }
}

/// The norms of a block, by the branch that they belong to, or by what follows them inside a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockNorm {
    Attention,
    Perceptron,
    AttentionOut,
    PerceptronOut,
}

/// The linear layers of a block, without those of query, key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockLinear {
    AttentionOut,
    PerceptronGate,
    PerceptronIn,
    PerceptronOut,
}

/// A checkpoint's tensors of the blocks, under the names that an architecture gives them.
pub(crate) trait BlockWeights: Sync {
    /// A norm of block `n`, `[width]` each.
    fn norm(&self, n: usize, norm: BlockNorm, width: usize) -> Result<WeightAndBias<'_>>;

    /// A layer of block `n`, of shape `[outputs, inputs]` and `[outputs]`.
    fn linear(&self, n: usize, layer: BlockLinear, shape: [usize; 2]) -> Result<WeightAndBias<'_>>;

    /// Query, key and value of block `n`, `[width, width]` and `[width]` each.
    fn qkv(&self, n: usize, width: usize) -> Result<[WeightAndBias<'_>; 3]>;

    /// How linear layers are kept.
    fn precision(&self) -> Precision;

    /// Gives back the memory of tensors that were read; they may be read again.
    fn release(&self);
}

/// The layers of a block, without those of query, key and value.
pub(crate) struct Branches<D: Device> {
    place: NormPlace,
    /// Of attention and of the perceptron.
    norms: [D::Norm; 2],
    attention_norm: Option<D::Norm>,
    out: D::Linear,
    perceptron: Perceptron<D>,
}

enum Perceptron<D: Device> {
    Plain {
        fc1: D::Linear,
        fc2: D::Linear,
        activation: Activation,
    },
    Gated {
        width: usize,
        /// Gate and value side by side, `[2 * width]`.
        fc1: D::Linear,
        norm: D::Norm,
        fc2: D::Linear,
    },
}

/// What perceptrons write between their layers.
pub(crate) struct Hidden<D: Device> {
    /// `[rows, mlp_width]`, or `[rows, 2 * mlp_width]` of a gated perceptron.
    first: D::Rows,
    /// `[rows, mlp_width]` of a gated perceptron.
    gated: Option<D::Rows>,
}

impl<D: Device> Hidden<D> {
    pub(crate) fn new(run: &mut D::Run<'_>, rows: usize, mlp_width: usize, form: PerceptronForm) -> Self {
        match form {
            PerceptronForm::Plain => Self { first: D::rows(run, rows, mlp_width), gated: None },
            PerceptronForm::Gated => {
                Self { first: D::rows(run, rows, 2 * mlp_width), gated: Some(D::rows(run, rows, mlp_width)) }
            }
        }
    }
}

impl<D: Device> Branches<D> {
    /// Takes the tensors of block `n`.
    pub(crate) fn load(
        device: &D,
        weights: &impl BlockWeights,
        n: usize,
        form: &TransformerForm,
    ) -> Result<Self> {
        let (width, mlp_width, blocks) = (form.sizes.width, form.sizes.mlp_width, &form.blocks);
        let precision = weights.precision();
        let norm = |norm: BlockNorm, width: usize| {
            let (weight, bias) = weights.norm(n, norm, width)?;
            device.norm(&weight, &bias, form.epsilon)
        };
        let linear = |layers: &[BlockLinear], shape: [usize; 2]| {
            let read: Vec<_> =
                layers.iter().map(|&layer| weights.linear(n, layer, shape)).collect::<Result<_>>()?;
            let part = |(weight, bias)| Part { weight, bias: Some(bias), scale: 1.0 };
            let parts: Vec<_> = read.iter().map(|(weight, bias)| part((&**weight, &**bias))).collect();
            device.linear(&parts, shape[1], precision)
        };
        let fc2 = || linear(&[BlockLinear::PerceptronOut], [width, mlp_width]);
        Ok(Self {
            place: blocks.norms,
            norms: [norm(BlockNorm::Attention, width)?, norm(BlockNorm::Perceptron, width)?],
            attention_norm: match blocks.attention_norm {
                true => Some(norm(BlockNorm::AttentionOut, width)?),
                false => None,
            },
            out: linear(&[BlockLinear::AttentionOut], [width, width])?,
            perceptron: match blocks.perceptron {
                PerceptronForm::Plain => Perceptron::Plain {
                    fc1: linear(&[BlockLinear::PerceptronIn], [mlp_width, width])?,
                    fc2: fc2()?,
                    activation: form.activation,
                },
                PerceptronForm::Gated => Perceptron::Gated {
                    width: mlp_width,
                    fc1: linear(
                        &[BlockLinear::PerceptronGate, BlockLinear::PerceptronIn],
                        [mlp_width, width],
                    )?,
                    norm: norm(BlockNorm::PerceptronOut, mlp_width)?,
                    fc2: fc2()?,
                },
            },
        })
    }

    /// The attention branch as a whole, where there are no norms but one before it.
    pub(crate) fn plain_attention<'a>(
        &'a self,
        qkv: &'a D::Linear,
        shape: AttentionShape,
    ) -> Option<AttentionLayers<'a, D>> {
        (self.place == NormPlace::Before && self.attention_norm.is_none()).then(|| AttentionLayers {
            norm: &self.norms[0],
            qkv,
            out: &self.out,
            shape,
        })
    }

    /// out = linear(x) for a layer of query, key or value, of normalized x where norms stand before branches. `normed`, as large as x, is
    /// overwritten with anything.
    pub(crate) fn attention_in(
        &self,
        run: &mut D::Run<'_>,
        linear: &D::Linear,
        x: &D::Rows,
        normed: &mut D::Rows,
        out: &mut D::Rows,
    ) {
        self.enter(run, linear, 0, x, normed, out);
    }

    /// Adds attention's result, which is overwritten, to x by the output layer.
    pub(crate) fn attention_out(&self, run: &mut D::Run<'_>, attended: &mut D::Rows, x: &mut D::Rows) {
        if let Some(norm) = &self.attention_norm {
            D::norm_in_place(run, norm, attended);
        }
        self.add(run, &self.out, 0, attended, x);
    }

    /// x += the perceptron of x; the buffers are overwritten with anything.
    pub(crate) fn perceptron(
        &self,
        run: &mut D::Run<'_>,
        x: &mut D::Rows,
        normed: &mut D::Rows,
        hidden: &mut Hidden<D>,
    ) {
        match (&self.perceptron, self.place) {
            (Perceptron::Plain { fc1, fc2, activation }, NormPlace::Before) => {
                let layers = PerceptronLayers { norm: &self.norms[1], fc1, fc2, activation: *activation };
                D::perceptron(run, layers, x, normed, &mut hidden.first);
            }
            (Perceptron::Plain { fc1, fc2, activation }, NormPlace::After) => {
                D::linear_into(run, fc1, x, &mut hidden.first, Some(*activation));
                self.add(run, fc2, 1, &hidden.first, x);
            }
            (Perceptron::Gated { width, fc1, norm, fc2 }, _) => {
                let Hidden { first, gated: Some(gated) } = hidden else {
                    unreachable!("`Hidden::new` makes it for gated perceptrons")
                };
                self.enter(run, fc1, 1, x, normed, first);
                D::gate(run, *width, first, gated);
                D::norm_in_place(run, norm, gated);
                self.add(run, fc2, 1, gated, x);
            }
        }
    }

    /// out = the first layer of branch `n` for x, normalized where norms stand before branches.
    fn enter(
        &self,
        run: &mut D::Run<'_>,
        linear: &D::Linear,
        n: usize,
        x: &D::Rows,
        normed: &mut D::Rows,
        out: &mut D::Rows,
    ) {
        match self.place {
            NormPlace::Before => D::norm_linear(run, &self.norms[n], linear, x, normed, out),
            NormPlace::After => D::linear_into(run, linear, x, out, None),
        }
    }

    /// Adds the last layer of branch `n` to x, normalized where norms stand after branches.
    fn add(&self, run: &mut D::Run<'_>, linear: &D::Linear, n: usize, branch: &D::Rows, x: &mut D::Rows) {
        match self.place {
            NormPlace::Before => D::linear_add(run, linear, branch, x),
            NormPlace::After => D::linear_norm_add(run, linear, &self.norms[n], branch, x),
        }
    }
}
