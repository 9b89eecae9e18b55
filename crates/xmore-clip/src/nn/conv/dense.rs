//! A dense convolution, by way of the matrix product.

use rayon::prelude::*;

use super::{Size, Window, fold_dense};
use crate::nn::activation::Activation;
use crate::nn::float32::Float32;
use crate::nn::gemm::{Lines, Rows, Threads, Windows};
use crate::nn::norm::BatchNorm;
use crate::nn::packed_weight::PackedWeight;
use crate::nn::thread_buffers::with_buffers;

/// From so many channels on, pixels are read where they lie; fewer, a whole line of a window at once.
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
            self.rows(x, out, false, threads);
        } else if self.inputs < WINDOW_CHANNELS {
            with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
                let lines = self.pad(x, size, to, buffer, threads);
                self.weight.multiply_rows(
                    Rows::Lines(lines),
                    to.area(),
                    out,
                    false,
                    self.activation,
                    threads,
                );
            });
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

    /// A 1×1 convolution of rows: `out = activation(out·add + conv(x))`; `x` is `[count, inputs]`, `out` `[count, outputs]`.
    pub(crate) fn rows(&self, x: &[f32], out: &mut [f32], add: bool, threads: Threads) {
        debug_assert!(self.window.kernel == 1 && self.window.stride == 1);
        let (inputs, outputs) = (self.weight.inputs(), self.weight.outputs());
        let count = x.len() / inputs;
        assert_eq!(
            (x.len(), out.len()),
            (count * inputs, count * outputs),
            "rows of {inputs} in, {outputs} out"
        );
        self.weight.multiply(x, count, out, add, self.activation, threads);
    }

    /// Length of an output row.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.outputs()
    }

    /// The image in `buffer` with the zeros around it, as far as windows read it.
    fn pad<'b>(
        &self,
        x: &[f32],
        size: Size,
        to: Size,
        buffer: &'b mut Vec<f32>,
        threads: Threads,
    ) -> Lines<'b> {
        let Window { kernel, stride, .. } = self.window;
        let channels = self.inputs;
        let [height, width] = [to.height, to.width].map(|n| n.saturating_sub(1) * stride + kernel);
        let [above, left] = [size.height, size.width].map(|n| self.window.padding_before(n));
        let copied = size.width.min(width.saturating_sub(left)) * channels;
        buffer.resize(height * width * channels, 0.0);
        let copy = |(y, line): (usize, &mut [f32])| {
            // A row above the image wraps to a number larger than its height.
            let Some(y) = Some(y.wrapping_sub(above)).filter(|&y| y < size.height) else {
                return line.fill(0.0);
            };
            let (before, rest) = line.split_at_mut(left * channels);
            let (inside, after) = rest.split_at_mut(copied);
            before.fill(0.0);
            inside.copy_from_slice(&x[y * size.width * channels..][..copied]);
            after.fill(0.0);
        };
        match threads {
            Threads::One => buffer.chunks_exact_mut(width * channels).enumerate().for_each(copy),
            Threads::Pool => buffer.par_chunks_exact_mut(width * channels).enumerate().for_each(copy),
        }
        Lines { image: buffer, width, channels, kernel, stride, out_width: to.width }
    }
}
