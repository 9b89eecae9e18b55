//! Convolution over channels-last images: dense by way of the matrix product, depthwise by SIMD over channels.
//!
//! Channels last makes a 1×1 convolution a plain matrix product and lets a depthwise one read whole vectors. Batch
//! normalization is folded into the weights at load, the activation is applied while the output is still in cache.

mod dense;
mod depthwise;
mod depthwise_rows;
mod maps;
#[cfg(test)]
mod tests;

pub(crate) use dense::Conv2d;
pub(crate) use depthwise::{DepthwiseConv2d, InputRows, depthwise_order};
pub(crate) use maps::{MapOutput, MapValues, MapWindows, WindowWeight};

/// Height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Size {
    pub(crate) fn area(self) -> usize {
        self.height * self.width
    }
}

/// Zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// TensorFlow's `SAME`: output = ⌈input / stride⌉, the odd pixel at the end.
    Same,
    /// PyTorch's: so many on every side.
    Around(usize),
}

/// Square kernel, stride and padding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

impl Window {
    /// A 1×1 kernel.
    pub(crate) const POINT: Self = Self { kernel: 1, stride: 1, padding: Padding::Around(0) };

    pub(crate) fn output(self, input: Size) -> Size {
        let length = |n: usize| match self.padding {
            Padding::Same => n.div_ceil(self.stride),
            Padding::Around(p) => {
                (n + 2 * p).checked_sub(self.kernel).map_or(0, |rest| rest / self.stride + 1)
            }
        };
        Size { height: length(input.height), width: length(input.width) }
    }

    /// Zero rows (or columns) before the first one of an input of that length.
    pub(crate) fn padding_before(self, input: usize) -> usize {
        match self.padding {
            Padding::Same => {
                let span = (input.div_ceil(self.stride) - 1) * self.stride + self.kernel;
                span.saturating_sub(input) / 2
            }
            Padding::Around(p) => p,
        }
    }

    /// For output position `o`: the first kernel tap that lies inside the input, the input position under it, and how many do.
    #[inline]
    pub(crate) fn taps(self, o: usize, input: usize) -> (usize, usize, usize) {
        let start = (o * self.stride) as isize - self.padding_before(input) as isize;
        let skip = (-start).max(0) as usize;
        let first = start.max(0) as usize;
        let count = (self.kernel - skip).min(input.saturating_sub(first));
        (skip, first, count)
    }
}

/// PyTorch's `[outputs, inputs, taps]` with batch normalization's scales `[outputs]` as `[outputs, taps, inputs]`.
pub(crate) fn fold_dense(weight: &[f32], inputs: usize, taps: usize, scale: &[f32]) -> Vec<f32> {
    let mut folded = vec![0.0; weight.len()];
    for (o, scale) in scale.iter().enumerate() {
        for i in 0..inputs {
            for t in 0..taps {
                folded[(o * taps + t) * inputs + i] = weight[(o * inputs + i) * taps + t] * scale;
            }
        }
    }
    folded
}

/// PyTorch's `[channels, taps]` with batch normalization's scales `[channels]` as `[taps, channels]`.
pub(crate) fn fold_depthwise(weight: &[f32], scale: &[f32]) -> Vec<f32> {
    let (channels, taps) = (scale.len(), weight.len() / scale.len());
    let mut folded = vec![0.0; weight.len()];
    for (c, scale) in scale.iter().enumerate() {
        for t in 0..taps {
            folded[t * channels + c] = weight[c * taps + t] * scale;
        }
    }
    folded
}
