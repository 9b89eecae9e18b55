//! The layers of FastViT by timm's names.

use std::borrow::Cow;

use crate::arch::Head;
use crate::arch::shared::timm::TRUNK;
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Padding, Window, depthwise_order};
use crate::nn::linear::{Part, query_scale};
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;

use super::branches::{Folded, Norm};
use super::network::{Attention, AttentionNorm, FastVitArch, HEAD_WIDTH, Perceptron, SqueezeExcite};

/// Epsilon of the larger models' layer norms.
const LAYER_NORM_EPSILON: f32 = 1e-5;
/// Sides of kernels: the largest, and the branch that is added to the convolutions that reduce a map.
const LARGE: usize = 7;
pub(super) const SMALL: usize = 3;

/// What all parts are loaded with.
pub(super) struct Loader<'a, D> {
    pub(super) device: &'a D,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) precision: Precision,
}

/// A branch of timm's `MobileOneBlock`.
#[derive(Clone, Copy)]
pub(super) enum Branch {
    Conv,
    /// A kernel of 1.
    Scale,
    /// A norm alone, of as many outputs as inputs.
    Identity,
}

/// A kernel that is centered on each position, or each second one.
fn window(kernel: usize, stride: usize) -> Window {
    Window { kernel, stride, padding: Padding::Around(kernel / 2) }
}

impl<D: Device> Loader<'_, D> {
    /// timm's `MobileOneBlock` without activation.
    pub(super) fn mobile_one(&self, name: &str, shape: [usize; 3], branches: &[Branch]) -> Result<Folded> {
        let mut folded = Folded::zeros(shape);
        for branch in branches {
            match branch {
                Branch::Conv => folded.add_conv(self.checkpoint, &format!("{name}.conv_kxk.0"), shape[2])?,
                Branch::Scale => folded.add_conv(self.checkpoint, &format!("{name}.conv_scale"), 1)?,
                Branch::Identity => folded.add_identity(self.checkpoint, &format!("{name}.identity"))?,
            }
        }
        Ok(folded)
    }

    /// timm's `MobileOneBlock` of a kernel of 1, with GELU; its inputs are outputs of a depthwise convolution of `shape[0]` inputs, as many as this
    /// has outputs.
    pub(super) fn point(&self, name: &str, shape: [usize; 2]) -> Result<D::Conv> {
        let width = shape[1];
        let folded = self.mobile_one(name, [width, width, 1], &[Branch::Conv, Branch::Identity])?;
        let (weight, bias) = folded.finish();
        let weight = ordered_columns(&weight, shape);
        self.device.conv(
            &weight,
            width,
            Window::POINT,
            BatchNorm::bias(bias),
            Some(Activation::Gelu),
            Precision::F32,
        )
    }

    /// timm's `ReparamLargeKernelConv` without squeeze and excitation, each second position.
    pub(super) fn reduce(
        &self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        activation: Option<Activation>,
    ) -> Result<D::Depthwise> {
        let mut folded = Folded::zeros([outputs, 1, LARGE]);
        folded.add_conv(self.checkpoint, &format!("{name}.large_conv"), LARGE)?;
        folded.add_conv(self.checkpoint, &format!("{name}.small_conv"), SMALL)?;
        self.depthwise(folded, [inputs, LARGE, 2], activation)
    }

    /// A convolution of all inputs.
    pub(super) fn dense(
        &self,
        folded: Folded,
        [inputs, kernel, stride]: [usize; 3],
        activation: Option<Activation>,
    ) -> Result<D::Conv> {
        let (weight, bias) = folded.finish();
        self.device.conv(
            &weight,
            inputs,
            window(kernel, stride),
            BatchNorm::bias(bias),
            activation,
            Precision::F32,
        )
    }

    /// A convolution of each input by itself.
    pub(super) fn depthwise(
        &self,
        folded: Folded,
        [inputs, kernel, stride]: [usize; 3],
        activation: Option<Activation>,
    ) -> Result<D::Depthwise> {
        let (weight, bias) = folded.finish();
        self.device.depthwise(&weight, inputs, window(kernel, stride), BatchNorm::bias(bias), activation)
    }

    /// timm's `RepMixer`: x + γ · (mixer(x) − norm(x)).
    pub(super) fn mixer(&self, name: &str, width: usize) -> Result<D::Depthwise> {
        let shape = [width, 1, SMALL];
        let branches = [Branch::Conv, Branch::Scale, Branch::Identity];
        let mut folded = self.mobile_one(&format!("{name}.mixer"), shape, &branches)?;
        let norm = self.mobile_one(&format!("{name}.norm"), shape, &[Branch::Identity])?;
        folded.subtract(&norm);
        folded.scale(&self.layer_scale(&format!("{name}.layer_scale"), width)?);
        folded.add_input();
        self.depthwise(folded, [width, SMALL, 1], None)
    }

    /// timm's `RepConditionalPosEnc`: x + conv(x).
    pub(super) fn positions(&self, name: &str, width: usize) -> Result<D::Depthwise> {
        let mut folded = Folded::zeros([width, 1, LARGE]);
        folded.add_biased(self.checkpoint, &format!("{name}.pos_enc"))?;
        folded.add_input();
        self.depthwise(folded, [width, LARGE, 1], None)
    }

    /// Layer scale, `[width, 1, 1]`.
    fn layer_scale(&self, name: &str, width: usize) -> Result<Cow<'_, [f32]>> {
        self.checkpoint.tensor(&format!("{name}.gamma"), &[width, 1, 1])
    }

    fn linear(&self, weight: &[f32], bias: &[f32], inputs: usize, precision: Precision) -> Result<D::Linear> {
        self.device.linear(&[Part { weight, bias: Some(bias), scale: 1.0 }], inputs, precision)
    }

    /// timm's `ConvMlp` with its layer scale: γ · fc2(gelu(fc1(depthwise(x)))).
    pub(super) fn perceptron(
        &self,
        name: &str,
        layer_scale: &str,
        [width, hidden]: [usize; 2],
    ) -> Result<Perceptron<D>> {
        let mut folded = Folded::zeros([width, 1, LARGE]);
        folded.add_conv(self.checkpoint, &format!("{name}.conv"), LARGE)?;
        let shape = [hidden, width, 1, 1];
        let (w1, b1) = self.checkpoint.weight_and_bias(&format!("{name}.fc1."), &shape)?;
        let shape = [width, hidden, 1, 1];
        let (w2, b2) = self.checkpoint.weight_and_bias(&format!("{name}.fc2."), &shape)?;
        let gamma = self.layer_scale(layer_scale, width)?;
        let (w2, b2) = scaled(&w2, &b2, &gamma);
        Ok(Perceptron {
            depthwise: self.depthwise(folded, [width, LARGE, 1], None)?,
            fc1: self.linear(&w1, &b1, width, self.precision)?,
            fc2: self.linear(&w2, &b2, hidden, self.precision)?,
        })
    }

    /// Attention with the norm before it, and its layer scale.
    pub(super) fn attention(&self, name: &str, width: usize, layer_norm: bool) -> Result<Attention<D>> {
        let checkpoint = self.checkpoint;
        let mixer = format!("{name}.token_mixer");
        let mut qkv = checkpoint.tensor(&format!("{mixer}.qkv.weight"), &[3 * width, width])?.into_owned();
        let mut bias = vec![0.0; 3 * width];
        let norm = if layer_norm {
            let (weight, bias) = checkpoint.weight_and_bias(&format!("{name}.norm."), &[width])?;
            AttentionNorm::Layer(self.device.norm(&weight, &bias, LAYER_NORM_EPSILON)?)
        } else {
            let norm = Norm::load(checkpoint, &format!("{name}.norm."), width)?;
            for (row, bias) in qkv.chunks_exact_mut(width).zip(&mut bias) {
                let products = row.iter().zip(&norm.shift).map(|(&w, shift)| f64::from(w) * shift);
                *bias = products.sum::<f64>() as f32;
                row.iter_mut().zip(&norm.scale).for_each(|(w, scale)| *w = (f64::from(*w) * scale) as f32);
            }
            AttentionNorm::Folded
        };
        // Queries are scaled by 1 / √head_width.
        let scale = query_scale(HEAD_WIDTH);
        qkv[..width * width].iter_mut().chain(&mut bias[..width]).for_each(|w| *w *= scale);
        let (weight, out_bias) = checkpoint.weight_and_bias(&format!("{mixer}.proj."), &[width, width])?;
        let gamma = self.layer_scale(&format!("{name}.layer_scale_1"), width)?;
        let (weight, out_bias) = scaled(&weight, &out_bias, &gamma);
        let point = |weight: &[f32], bias| {
            self.device.conv(weight, width, Window::POINT, BatchNorm::bias(bias), None, Precision::F32)
        };
        Ok(Attention { norm, qkv: point(&qkv, bias)?, out: point(&weight, out_bias)?, width })
    }

    /// timm's `SqueezeExcite` of `channels`, outputs of a depthwise convolution of `inputs`.
    pub(super) fn squeeze_excite(
        &self,
        name: &str,
        [inputs, channels]: [usize; 2],
    ) -> Result<SqueezeExcite<D>> {
        let bias = format!("{name}.fc1.bias");
        // At least one, that the tensors of none are refused.
        let narrow =
            self.checkpoint.shape(&bias).and_then(|shape| shape.first().copied()).unwrap_or(0).max(1);
        let shape = [narrow, channels, 1, 1];
        let (w1, b1) = self.checkpoint.weight_and_bias(&format!("{name}.fc1."), &shape)?;
        let shape = [channels, narrow, 1, 1];
        let (w2, b2) = self.checkpoint.weight_and_bias(&format!("{name}.fc2."), &shape)?;
        let w1 = ordered_columns(&w1, [inputs, channels]);
        let order = || depthwise_order(inputs, channels);
        let w2: Vec<f32> = order().flat_map(|c| &w2[c * narrow..(c + 1) * narrow]).copied().collect();
        let b2: Vec<f32> = order().map(|c| b2[c]).collect();
        Ok(SqueezeExcite {
            fc1: self.linear(&w1, &b1, channels, Precision::F32)?,
            fc2: self.linear(&w2, &b2, narrow, Precision::F32)?,
        })
    }

    /// timm's classifier, which is the projection into the joint space.
    pub(super) fn head(&self, arch: &FastVitArch, dim: usize) -> Result<Head<D>> {
        let [inputs, features] = arch.last();
        let name = format!("{TRUNK}head.fc.");
        let (weight, bias) = self.checkpoint.weight_and_bias(&name, &[dim, features])?;
        let weight = ordered_columns(&weight, [inputs, features]);
        Ok(Head::Linear(self.linear(&weight, &bias, features, Precision::F32)?))
    }
}

/// Rows `[outputs, inputs]` and a bias, each times its factor.
fn scaled(weight: &[f32], bias: &[f32], factors: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let inputs = weight.len() / bias.len();
    let rows = weight.chunks_exact(inputs).zip(factors);
    let weight = rows.flat_map(|(row, factor)| row.iter().map(move |w| w * factor)).collect();
    (weight, bias.iter().zip(factors).map(|(b, factor)| b * factor).collect())
}

/// A weight over the `outputs` of a depthwise convolution of `inputs`, with columns in the order in which those come.
pub(super) fn ordered_columns(weight: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let rows = weight.chunks_exact(outputs);
    rows.flat_map(|row| depthwise_order(inputs, outputs).map(move |c| row[c])).collect()
}
