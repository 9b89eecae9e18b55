//! A dense convolution, by way of the matrix product.

use rayon::prelude::*;

use super::maps::{MapOutput, MapValues, MapWindows, WindowWeight};
use super::{Size, Window, fold_dense};
use crate::nn::activation::Activation;
use crate::nn::float32::Float32;
use crate::nn::gemm::{Lines, Rows, Threads, Windows};
use crate::nn::norm::BatchNorm;
use crate::nn::packed_weight::PackedWeight;
use crate::nn::precision::Precision;
use crate::nn::thread_buffers::with_buffers;

/// From so many channels on, pixels are read where they lie; fewer, a whole line of a window at once.
const WINDOW_CHANNELS: usize = 16;

/// A dense convolution with folded batch normalization.
pub(crate) struct Conv2d {
    /// `[outputs, kernel * kernel * inputs]`, taps in row order, channels innermost.
    weight: Weight,
    window: Window,
    inputs: usize,
    activation: Option<Activation>,
    /// A pixel of zeros, in either kind of values.
    zeros: Vec<f32>,
}

/// Maps in bf16 have a multiple of so many channels.
const BF16_CHANNELS: usize = 32;

/// A weight by what its windows are read as.
enum Weight {
    /// Lines of few channels.
    Lines(Float32),
    Windows(Box<dyn WindowWeight>),
}

impl Weight {
    fn packed(&self) -> &dyn PackedWeight {
        match self {
            Self::Lines(weight) => weight,
            Self::Windows(weight) => &**weight,
        }
    }
}

impl Conv2d {
    /// `weight` is PyTorch's `[outputs, inputs, kernel, kernel]`. Windows of less than 16 channels, images, are multiplied in 32-bit floats whatever the
    /// precision.
    pub(crate) fn new(
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
        precision: Precision,
    ) -> Self {
        let (outputs, taps) = (bn.scale.len(), window.kernel * window.kernel);
        let folded = fold_dense(weight, inputs, taps, &bn.scale);
        let length = taps * inputs;
        let row = |o: usize| (&folded[o * length..(o + 1) * length], 1.0);
        let reads_lines = window.kernel > 1 && inputs < WINDOW_CHANNELS;
        let weight = if reads_lines {
            Weight::Lines(Float32::from_rows(outputs, length, Some(bn.shift), row))
        } else {
            Weight::Windows(precision.pack_windows(outputs, length, bn.shift, row))
        };
        Self { weight, window, inputs, activation, zeros: vec![0.0; inputs] }
    }

    /// [`Conv2d::forward_into`] from and to floats.
    #[cfg(test)]
    pub(crate) fn forward(&self, x: &[f32], size: Size, out: &mut Vec<f32>, threads: Threads) -> Size {
        let to = self.window.output(size);
        out.resize(x.len() / (size.area() * self.inputs) * to.area() * self.outputs(), 0.0);
        self.forward_into(MapValues::Floats(x), size, MapOutput::Floats { data: out, add: false }, threads);
        to
    }

    /// `x` is images `[images, height, width, inputs]`, one where they have few channels; the output is `[images, height', width', outputs]`.
    pub(crate) fn forward_into(&self, x: MapValues<'_>, size: Size, out: MapOutput<'_>, threads: Threads) {
        let to = self.window.output(size);
        let images = x.len() / (size.area() * self.inputs);
        let count = images * to.area();
        assert_eq!(
            (x.len(), out.len()),
            (images * size.area() * self.inputs, count * self.outputs()),
            "{images} images of {} channels in, {} out",
            self.inputs,
            self.outputs()
        );
        match (&self.weight, x, out) {
            (Weight::Lines(weight), MapValues::Floats(x), MapOutput::Floats { data, add }) => {
                with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
                    assert_eq!(images, 1, "images of few channels come one by one");
                    let lines = Rows::Lines(self.pad(x, size, to, buffer, threads));
                    weight.multiply_rows(lines, count, data, add, self.activation, threads);
                });
            }
            (Weight::Lines(_), ..) => unreachable!("lines are of 32-bit floats"),
            (Weight::Windows(weight), MapValues::Floats(x), out) => {
                let windows = MapWindows::Floats(self.windows(x, &self.zeros, size));
                weight.multiply_windows(windows, count, out, self.activation, threads);
            }
            (Weight::Windows(weight), MapValues::Bf16(x), out) => {
                let zeros = &bytemuck::cast_slice(&self.zeros)[..self.inputs];
                let windows = MapWindows::Bf16(self.windows(x, zeros, size));
                weight.multiply_windows(windows, count, out, self.activation, threads);
            }
        }
    }

    fn windows<'a, T>(&self, images: &'a [T], zeros: &'a [T], size: Size) -> Windows<'a, T> {
        let (kernel, stride, to) = (self.window.kernel, self.window.stride, self.window.output(size));
        let padding = [size.height, size.width].map(|n| self.window.padding_before(n));
        let (Size { height, width }, out) = (size, [to.height, to.width]);
        Windows { images, height, width, zeros, kernel, stride, padding, out }
    }

    /// A 1×1 convolution of rows: `out = activation(out·add + conv(x))`; `x` is `[count, inputs]`, `out` `[count, outputs]`.
    pub(crate) fn rows(&self, x: &[f32], out: &mut [f32], add: bool, threads: Threads) {
        debug_assert!(self.window.kernel == 1 && self.window.stride == 1);
        let each = Size { height: 1, width: 1 };
        self.forward_into(MapValues::Floats(x), each, MapOutput::Floats { data: out, add }, threads);
    }

    /// Whether the output may be in bf16 for layers that read it so.
    pub(crate) fn writes_bf16(&self) -> bool {
        matches!(&self.weight, Weight::Windows(weight) if weight.takes_bf16() && weight.outputs().is_multiple_of(BF16_CHANNELS))
    }

    /// Height and width of the output.
    pub(crate) fn output(&self, size: Size) -> Size {
        self.window.output(size)
    }

    /// Channels that are read.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of an output row.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.packed().outputs()
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
