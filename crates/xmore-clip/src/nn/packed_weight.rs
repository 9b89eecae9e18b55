//! What a number format of linear layers has to do: multiply by a weight that it has packed.

use super::activation::Activation;
use super::gemm::Threads;

/// A layer's weight and bias in one number format, laid out for its product.
pub(crate) trait PackedWeight: Send + Sync {
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
}
