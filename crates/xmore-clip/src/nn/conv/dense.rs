//! A dense convolution, by way of the matrix product.

use rayon::prelude::*;

use super::{Size, Window, fold_dense};
use crate::nn::activation::Activation;
use crate::nn::float32::Float32;
use crate::nn::gemm::{Rows, Threads, Windows};
use crate::nn::norm::BatchNorm;
use crate::nn::packed_weight::PackedWeight;

/// From so many channels on, pixels are read where they lie; fewer are laid side by side first.
const WINDOW_CHANNELS: usize = 16;

/// A dense convolution with folded batch normalization.
pub(crate) struct Conv2d {
    /// `[outputs, kernel * kernel * inputs]`, taps in row order, channels innermost.
    weight: Float32,
    window: Window,
    inputs: usize,
    activation: Option<Activation>,
}

impl Conv2d {
    /// `weight` is PyTorch's `[outputs, inputs, kernel, kernel]`.
    pub(crate) fn new(
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Self {
        let (outputs, taps) = (bn.scale.len(), window.kernel * window.kernel);
        let folded = fold_dense(weight, inputs, taps, &bn.scale);
        let length = taps * inputs;
        let row = |o: usize| (&folded[o * length..(o + 1) * length], 1.0);
        Self { weight: Float32::from_rows(outputs, length, Some(bn.shift), row), window, inputs, activation }
    }

    /// `x` is one image `[height, width, inputs]`; the output `[height', width', outputs]` is written to `out`.
    pub(crate) fn forward(&self, x: &[f32], size: Size, out: &mut Vec<f32>, threads: Threads) -> Size {
        let to = self.window.output(size);
        out.resize(to.area() * self.weight.outputs(), 0.0);
        if self.window.kernel == 1 && self.window.stride == 1 {
            self.multiply(x, out, false, threads);
        } else if self.inputs < WINDOW_CHANNELS {
            self.multiply(&self.columns(x, size, to), out, false, threads);
        } else {
            let zeros = vec![0.0; self.inputs];
            let windows = Windows {
                image: x,
                height: size.height,
                width: size.width,
                zeros: &zeros,
                kernel: self.window.kernel,
                stride: self.window.stride,
                padding: [size.height, size.width].map(|n| self.window.padding_before(n)),
                out_width: to.width,
            };
            let (rows, count) = (Rows::Windows(windows), to.area());
            self.weight.multiply_rows(rows, count, out, false, self.activation, threads);
        }
        to
    }

    /// 1×1 convolution onto a residual: `out = activation(out + conv(x))`.
    pub(crate) fn forward_add(&self, x: &[f32], out: &mut [f32], threads: Threads) {
        debug_assert!(self.window.kernel == 1 && self.window.stride == 1);
        self.multiply(x, out, true, threads);
    }

    /// The product with rows that stand side by side.
    fn multiply(&self, x: &[f32], out: &mut [f32], add: bool, threads: Threads) {
        let (inputs, outputs) = (self.weight.inputs(), self.weight.outputs());
        let count = x.len() / inputs;
        assert_eq!(
            (x.len(), out.len()),
            (count * inputs, count * outputs),
            "rows of {inputs} in, {outputs} out"
        );
        self.weight.multiply(x, count, out, add, self.activation, threads);
    }

    /// Lays the pixels under each output position side by side: `[height' * width', kernel * kernel * inputs]`.
    fn columns(&self, x: &[f32], size: Size, to: Size) -> Vec<f32> {
        let (k, c) = (self.window.kernel, self.inputs);
        let mut columns = vec![0.0; to.area() * k * k * c];
        columns.par_chunks_exact_mut(to.width * k * k * c).enumerate().for_each(|(oy, row)| {
            let (ky0, y0, rows) = self.window.taps(oy, size.height);
            for (ox, column) in row.chunks_exact_mut(k * k * c).enumerate() {
                let (kx0, x0, cols) = self.window.taps(ox, size.width);
                for r in 0..rows {
                    let from = ((y0 + r) * size.width + x0) * c;
                    let to = ((ky0 + r) * k + kx0) * c;
                    column[to..to + cols * c].copy_from_slice(&x[from..from + cols * c]);
                }
            }
        });
        columns
    }
}
