//! A fully connected layer.

use std::ops::Range;

use crate::checkpoint::WeightAndBias;
use crate::profile;

use super::activation::Activation;
use super::attention::AttentionShape;
use super::gemm::Threads;
use super::norm::LayerNorm;
use super::packed_weight::{AttentionBranch, PackedWeight, Perceptron};
use super::precision::Precision;

/// y = x Wᵀ + b, with the weight packed once for the matrix product.
pub(crate) struct Linear(Box<dyn PackedWeight>);

/// Rows of a layer's weight with a factor on them (and on their bias): layers that read the same input are computed as one, and
/// attention's 1/√d goes into the queries' rows.
pub(crate) struct Part<'a> {
    /// `[outputs, inputs]`.
    pub(crate) weight: &'a [f32],
    /// `[outputs]`.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) scale: f32,
}

/// 1/√d, by which attention's scores are scaled.
pub(crate) fn query_scale(head_width: usize) -> f32 {
    (1.0 / (head_width as f64).sqrt()) as f32
}

/// The parts' biases side by side, each with its part's factor; `None` if no part has one.
pub(crate) fn fused_bias(parts: &[Part<'_>], inputs: usize) -> Option<Vec<f32>> {
    parts.iter().any(|part| part.bias.is_some()).then(|| {
        let biases = parts.iter().flat_map(|part| {
            let outputs = part.weight.len() / inputs;
            let values = part.bias.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec);
            values.into_iter().map(|b| b * part.scale)
        });
        biases.collect()
    })
}

/// Attention's input layer as parts: weights and biases of query, key and value, with 1/√d on the queries.
pub(crate) fn qkv_parts<'a>(qkv: &'a [WeightAndBias<'_>; 3], head_width: usize) -> [Part<'a>; 3] {
    let scales = [query_scale(head_width), 1.0, 1.0];
    std::array::from_fn(|n| Part { weight: &qkv[n].0, bias: Some(&qkv[n].1), scale: scales[n] })
}

/// A weight `[inputs, outputs]`, as OpenAI and open_clip store projections, as `[outputs, inputs]`.
pub(crate) fn transposed(weight: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    assert_eq!(weight.len(), outputs * inputs);
    let mut rows = vec![0.0; weight.len()];
    for (i, line) in weight.chunks_exact(outputs).enumerate() {
        for (o, &value) in line.iter().enumerate() {
            rows[o * inputs + i] = value;
        }
    }
    rows
}

impl Linear {
    /// From several weights over the same inputs; the outputs stand side by side.
    pub(crate) fn fused(parts: &[Part<'_>], inputs: usize, precision: Precision) -> Self {
        let bounds: Vec<usize> = parts
            .iter()
            .scan(0, |end, part| {
                *end += part.weight.len() / inputs;
                Some(*end)
            })
            .collect();
        let outputs = bounds.last().copied().unwrap_or(0);
        let row = |o| {
            let n = bounds.partition_point(|&end| end <= o);
            let at = o - if n == 0 { 0 } else { bounds[n - 1] };
            (&parts[n].weight[at * inputs..(at + 1) * inputs], parts[n].scale)
        };
        let bias = fused_bias(parts, inputs);
        Self(precision.pack(outputs, inputs, bias, row))
    }

    /// Length of an input row.
    pub(crate) fn inputs(&self) -> usize {
        self.0.inputs()
    }

    /// Length of an output row.
    pub(crate) fn outputs(&self) -> usize {
        self.0.outputs()
    }

    /// `x` is `[rows, inputs]`; returns `[rows, outputs]`.
    pub(crate) fn forward(&self, x: &[f32], threads: Threads) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.inputs() * self.outputs()];
        self.forward_into(x, &mut out, None, threads);
        out
    }

    /// Writes activation(`x` Wᵀ + b) to `out`, `[rows, outputs]`.
    pub(crate) fn forward_into(
        &self,
        x: &[f32],
        out: &mut [f32],
        activation: Option<Activation>,
        threads: Threads,
    ) {
        self.dense(x, out, false, activation, threads);
    }

    /// Adds `x` Wᵀ + b to `out`: a layer on a residual branch.
    pub(crate) fn forward_add(
        &self,
        x: &[f32],
        out: &mut [f32],
        activation: Option<Activation>,
        threads: Threads,
    ) {
        self.dense(x, out, true, activation, threads);
    }

    /// Writes norm(`x`) Wᵀ + b to `out`, `[rows, outputs]`; `normed`, as large as `x`, is overwritten with anything.
    pub(crate) fn forward_normed(
        &self,
        norm: &LayerNorm,
        x: &[f32],
        normed: &mut [f32],
        out: &mut [f32],
        threads: Threads,
    ) {
        self.0.multiply_normed(norm, x, normed, out, threads);
    }

    /// Adds out(attention(this(norm(`x`)))) of each sequence of `x` to it, if there is a way for all of it, and tells whether: this layer is query, key and value.
    pub(crate) fn attention(
        &self,
        norm: &LayerNorm,
        shape: AttentionShape,
        sequences: &[Range<usize>],
        out: &Linear,
        x: &mut [f32],
        threads: Threads,
    ) -> bool {
        self.0.attention(&AttentionBranch { norm, shape, sequences, out: &*out.0 }, x, threads)
    }

    /// Adds second(activation(this(norm(`x`)))) to `x`. The buffers, for as much as `x` and as this layer's output, are overwritten with anything if they are needed.
    pub(crate) fn perceptron(
        &self,
        norm: &LayerNorm,
        activation: Activation,
        second: &Linear,
        x: &mut [f32],
        [normed, hidden]: [&mut Vec<f32>; 2],
        threads: Threads,
    ) {
        if self.0.perceptron(&Perceptron { norm, activation, second: &*second.0 }, x, threads) {
            return;
        }
        normed.resize(x.len(), 0.0);
        hidden.resize(x.len() / self.inputs() * self.outputs(), 0.0);
        let flops = 2 * x.len() * self.outputs();
        norm.forward_into(x, normed, threads);
        profile::time("mlp in", flops, || self.forward_into(normed, hidden, Some(activation), threads));
        profile::time("mlp out", flops, || second.forward_add(hidden, x, None, threads));
    }

    fn dense(&self, x: &[f32], out: &mut [f32], add: bool, activation: Option<Activation>, threads: Threads) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let count = x.len() / inputs;
        let found = (x.len(), out.len());
        assert_eq!(found, (count * inputs, count * outputs), "rows of {inputs} in, of {outputs} out");
        self.0.multiply(x, count, out, add, activation, threads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_parts_are_the_layers_side_by_side() {
        let (inputs, first, second) = (5, [0.5f32; 15], [0.25f32; 10]);
        let x: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let fused = Linear::fused(
            &[
                Part { weight: &first, bias: Some(&[1.0; 3]), scale: 2.0 },
                Part { weight: &second, bias: None, scale: 1.0 },
            ],
            inputs,
            Precision::F32,
        );
        let y = fused.forward(&x, Threads::One);
        assert_eq!(y, [12.0, 12.0, 12.0, 2.5, 2.5, 37.0, 37.0, 37.0, 8.75, 8.75]);
    }

    #[test]
    fn a_transposed_weight_is_the_same_layer() {
        let weight: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let columns: Vec<f32> = (0..12).map(|i| weight[i % 3 * 4 + i / 3]).collect();
        let x = [1.0, -2.0, 0.5, 3.0];
        let layer =
            |weight: &[f32]| Linear::fused(&[Part { weight, bias: None, scale: 1.0 }], 4, Precision::F32);
        let y = layer(&weight).forward(&x, Threads::One);
        assert_eq!(layer(&transposed(&columns, 4, 3)).forward(&x, Threads::One), y);
    }
}
