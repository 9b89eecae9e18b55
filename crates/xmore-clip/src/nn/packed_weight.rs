//! What a number format of linear layers has to do: multiply by a weight that it has packed.

use std::any::Any;
use std::ops::Range;

use super::activation::Activation;
use super::attention::AttentionShape;
use super::gemm::Threads;
use super::norm::LayerNorm;

/// A layer's weight and bias in one number format, laid out for its product.
pub(crate) trait PackedWeight: Any + Send + Sync {
    /// Length of an input row.
    fn inputs(&self) -> usize;

    /// Length of an output row.
    fn outputs(&self) -> usize;

    /// `out = activation(out·add + x · weight + bias)`; `x` is `[count, inputs]`, `out` `[count, outputs]`.
    ///
    /// A row's result has the same bits whatever other rows and threads there are.
    fn multiply(
        &self,
        x: &[f32],
        count: usize,
        out: &mut [f32],
        add: bool,
        activation: Option<Activation>,
        threads: Threads,
    );

    /// `out = norm(x) · weight + bias`. `normed`, as large as `x`, is overwritten with anything.
    fn multiply_normed(
        &self,
        norm: &LayerNorm,
        x: &[f32],
        normed: &mut [f32],
        out: &mut [f32],
        threads: Threads,
    ) {
        norm.forward_into(x, normed, threads);
        self.multiply(normed, x.len() / self.inputs(), out, false, None, threads);
    }

    /// Adds to `x` an attention of its sequences whose layer of query, key and value this is, and tells that it did: not every format has its own way for
    /// all of it.
    fn attention(&self, _layers: &AttentionBranch<'_>, _x: &mut [f32], _threads: Threads) -> bool {
        false
    }

    /// Adds to `x` a perceptron of it whose first layer this is, and tells that it did: not every format has its own way for both layers.
    fn perceptron(&self, _layers: &Perceptron<'_>, _x: &mut [f32], _threads: Threads) -> bool {
        false
    }
}

/// What an attention has beside its first layer: out(attention(first(norm(x)))).
pub(crate) struct AttentionBranch<'a> {
    pub(crate) norm: &'a LayerNorm,
    pub(crate) shape: AttentionShape,
    pub(crate) sequences: &'a [Range<usize>],
    pub(crate) out: &'a dyn PackedWeight,
}

/// What a perceptron has beside its first layer: second(activation(first(norm(x)))).
pub(crate) struct Perceptron<'a> {
    pub(crate) norm: &'a LayerNorm,
    pub(crate) activation: Activation,
    pub(crate) second: &'a dyn PackedWeight,
}
