//! A depthwise convolution: each input channel has kernels of its own.

use std::ops::Range;

use rayon::prelude::*;
use rten_simd::SimdOp;

use super::depthwise_rows::DepthwiseRows;
use super::{Size, Window, fold_depthwise};
use crate::nn::activation::Activation;
use crate::nn::gemm::{Threads, split_rows};
use crate::nn::norm::BatchNorm;

/// A depthwise convolution with folded batch normalization: each input channel has kernels of its own, one or several.
pub(crate) struct DepthwiseConv2d {
    /// `[kernel * kernel, outputs]`.
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) window: Window,
    pub(super) inputs: usize,
    activation: Option<Activation>,
}

/// PyTorch's places of a depthwise convolution's outputs in the order in which they are written here: the first output of every input, then the
/// second of every input, and so on. PyTorch has all outputs of an input side by side.
pub(crate) fn depthwise_order(inputs: usize, outputs: usize) -> impl Iterator<Item = usize> {
    let each = outputs / inputs;
    (0..each).flat_map(move |n| (0..inputs).map(move |input| input * each + n))
}

/// Rows of an input map, `[rows, width, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct InputRows<'a> {
    pub(crate) data: &'a [f32],
    /// Which row of the map comes first.
    pub(crate) first: usize,
    /// Of the whole map.
    pub(crate) size: Size,
}

impl DepthwiseConv2d {
    /// `weight` is PyTorch's `[outputs, 1, kernel, kernel]`; there are as many outputs as inputs, or a multiple, which come in the order of
    /// [`depthwise_order`].
    pub(crate) fn new(
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Self {
        let (outputs, taps) = (bn.scale.len(), window.kernel * window.kernel);
        assert!(outputs.is_multiple_of(inputs) && weight.len() == outputs * taps);
        let order: Vec<usize> = depthwise_order(inputs, outputs).collect();
        let ordered = |values: &[f32]| order.iter().map(|&o| values[o]).collect::<Vec<_>>();
        let rows = order.iter().flat_map(|&o| &weight[o * taps..(o + 1) * taps]).copied().collect::<Vec<_>>();
        let weight = fold_depthwise(&rows, &ordered(&bn.scale));
        Self { weight, bias: ordered(&bn.shift), window, inputs, activation }
    }

    /// `x` is one image `[height, width, inputs]`; `[height', width', outputs]` is written to `out`.
    pub(crate) fn forward(&self, x: &[f32], size: Size, out: &mut Vec<f32>, threads: Threads) -> Size {
        assert_eq!(x.len(), size.area() * self.inputs, "one image");
        let to = self.window.output(size);
        out.resize(to.area() * self.bias.len(), 0.0);
        self.rows(InputRows { data: x, first: 0, size }, 0..to.height, out, threads);
        to
    }

    /// Output rows `rows`, `[rows, width', outputs]`, from an input that has all rows under them.
    pub(crate) fn rows(&self, input: InputRows<'_>, rows: Range<usize>, out: &mut [f32], threads: Threads) {
        let (clamps, activation) = self.clamps();
        let part = |(rows, out): (Range<usize>, &mut [f32])| {
            DepthwiseRows { layer: self, input, rows, clamps, out }.dispatch();
            if let Some(activation) = activation {
                activation.apply(out);
            }
        };
        if threads == Threads::One {
            return part((rows, out));
        }
        let parts = split_rows(out, rows.len(), 4 * rayon::current_num_threads()).into_par_iter();
        parts.for_each(|(range, out)| part((rows.start + range.start..rows.start + range.end, out)));
    }

    /// The window that slides over the input.
    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Channels of the output.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Between which values the sums are clamped before they are stored, and the activation that is left.
    fn clamps(&self) -> ([f32; 2], Option<Activation>) {
        match self.activation.and_then(Activation::ceiling) {
            Some(ceiling) => ([0.0, ceiling], None),
            None => ([f32::NEG_INFINITY, f32::INFINITY], self.activation),
        }
    }
}
