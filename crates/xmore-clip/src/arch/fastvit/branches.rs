//! Convolutions that were trained as sums of several branches, folded into one.
//!
//! Reference: timm's `MobileOneBlock`, `ReparamLargeKernelConv`, `RepMixer` and `RepConditionalPosEnc`, whose `reparameterize` does the same. Sums are
//! of 64-bit floats, so that folding rounds once.

use std::ops::Range;

use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// `BatchNorm2d`'s default epsilon.
const EPSILON: f64 = 1e-5;

/// A convolution with a bias.
pub(super) struct Folded {
    outputs: usize,
    /// Inputs of an output: all, or 1 of a depthwise convolution.
    inputs: usize,
    kernel: usize,
    /// `[outputs, inputs, kernel, kernel]`.
    weight: Vec<f64>,
    /// `[outputs]`.
    bias: Vec<f64>,
}

impl Folded {
    /// Zeros, of shape `[outputs, inputs, kernel, kernel]`; the kernel's side is odd.
    pub(super) fn zeros([outputs, inputs, kernel]: [usize; 3]) -> Self {
        let weight = vec![0.0; outputs * inputs * kernel * kernel];
        Self { outputs, inputs, kernel, weight, bias: vec![0.0; outputs] }
    }

    /// The places of output `o`'s weights.
    fn of(&self, o: usize) -> Range<usize> {
        let each = self.weight.len() / self.outputs;
        o * each..(o + 1) * each
    }

    /// Adds `factor` to what output `o` takes of the input at the same place: input `o`, or its only one.
    fn add_center(&mut self, o: usize, factor: f64) {
        let taps = self.kernel * self.kernel;
        self.weight[(o * self.inputs + o % self.inputs) * taps + taps / 2] += factor;
    }

    /// Adds the branch `{name}.conv` with `{name}.bn`, whose kernel of an odd side `kernel`, at most this one's, lies in the middle of it.
    pub(super) fn add_conv(&mut self, checkpoint: &Checkpoint, name: &str, kernel: usize) -> Result<()> {
        let shape = [self.outputs, self.inputs, kernel, kernel];
        let weight = checkpoint.tensor(&format!("{name}.conv.weight"), &shape)?;
        let norm = Norm::load(checkpoint, &format!("{name}.bn."), self.outputs)?;
        let (margin, area) = ((self.kernel - kernel) / 2, kernel * kernel);
        for (n, from) in weight.chunks_exact(area).enumerate() {
            let scale = norm.scale[n / self.inputs];
            let to = &mut self.weight[n * self.kernel * self.kernel..][..self.kernel * self.kernel];
            for (i, &tap) in from.iter().enumerate() {
                let (y, x) = (margin + i / kernel, margin + i % kernel);
                to[y * self.kernel + x] += scale * f64::from(tap);
            }
        }
        self.add_shift(&norm);
        Ok(())
    }

    /// Adds the branch that only normalizes, by `{name}`.
    pub(super) fn add_identity(&mut self, checkpoint: &Checkpoint, name: &str) -> Result<()> {
        let norm = Norm::load(checkpoint, &format!("{name}."), self.outputs)?;
        for (o, &scale) in norm.scale.iter().enumerate() {
            self.add_center(o, scale);
        }
        self.add_shift(&norm);
        Ok(())
    }

    fn add_shift(&mut self, norm: &Norm) {
        self.bias.iter_mut().zip(&norm.shift).for_each(|(bias, shift)| *bias += shift);
    }

    /// Takes away another of the same shape.
    pub(super) fn subtract(&mut self, other: &Self) {
        let pairs = self.weight.iter_mut().zip(&other.weight).chain(self.bias.iter_mut().zip(&other.bias));
        pairs.for_each(|(value, other)| *value -= other);
    }

    /// Multiplies each output by its factor.
    pub(super) fn scale(&mut self, factors: &[f32]) {
        for (o, &factor) in factors.iter().enumerate() {
            let places = self.of(o);
            let values = self.weight[places].iter_mut().chain([&mut self.bias[o]]);
            values.for_each(|value| *value *= f64::from(factor));
        }
    }

    /// Adds the input itself.
    pub(super) fn add_input(&mut self) {
        (0..self.outputs).for_each(|o| self.add_center(o, 1.0));
    }

    /// Adds a convolution with a bias and no norm, of this shape.
    pub(super) fn add_biased(&mut self, checkpoint: &Checkpoint, name: &str) -> Result<()> {
        let shape = [self.outputs, self.inputs, self.kernel, self.kernel];
        let (weight, bias) = checkpoint.weight_and_bias(&format!("{name}."), &shape)?;
        self.weight.iter_mut().zip(&*weight).for_each(|(value, &w)| *value += f64::from(w));
        self.bias.iter_mut().zip(&*bias).for_each(|(value, &b)| *value += f64::from(b));
        Ok(())
    }

    /// Weight and bias.
    pub(super) fn finish(self) -> (Vec<f32>, Vec<f32>) {
        let round = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        (round(self.weight), round(self.bias))
    }
}

/// Batch normalization as a scale and a shift of each channel.
pub(super) struct Norm {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Norm {
    /// `prefix` ends before the tensors' own names.
    pub(super) fn load(checkpoint: &Checkpoint, prefix: &str, channels: usize) -> Result<Self> {
        let get = |name: &str| checkpoint.tensor(&format!("{prefix}{name}"), &[channels]);
        let (gamma, beta) = (get("weight")?, get("bias")?);
        let (mean, variance) = (get("running_mean")?, get("running_var")?);
        let pairs = gamma.iter().zip(&*variance);
        let scale: Vec<f64> = pairs.map(|(&g, &v)| f64::from(g) / (f64::from(v) + EPSILON).sqrt()).collect();
        let shift = (0..channels).map(|c| f64::from(beta[c]) - f64::from(mean[c]) * scale[c]).collect();
        Ok(Self { scale, shift })
    }
}
