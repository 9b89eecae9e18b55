//! The matrix product: packed weights for layers, plain views for attention. The one place that calls `rten-gemm`.

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::{Layout, Matrix, NdTensorView};

use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// The kernel for what the processor offers. Made anew each time: it holds nothing, and detection is cached by std.
fn executor() -> GemmExecutor<f32> {
    GemmExecutor::new()
}

/// A fully connected layer, y = x Wᵀ + b, with its weight packed once for the matrix product.
pub(crate) struct Linear {
    weight: PackedBMatrix<f32>,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// From a weight `[outputs, inputs]` in row-major order and an optional bias `[outputs]`.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize, bias: Option<Vec<f32>>) -> Self {
        let transposed = view(weight, inputs, outputs, [1, inputs]);
        Self { weight: executor().prepack_b(transposed), bias }
    }

    /// Takes `{prefix}weight` `[outputs, inputs]` and `{prefix}bias` `[outputs]`.
    pub(crate) fn load(ckpt: &Checkpoint, prefix: &str, outputs: usize, inputs: usize) -> Result<Self> {
        let weight = ckpt.tensor(&format!("{prefix}weight"), &[outputs, inputs])?;
        let bias = ckpt.tensor(&format!("{prefix}bias"), &[outputs])?;
        Ok(Self::new(&weight, outputs, inputs, Some(bias.into_owned())))
    }

    /// Length of an output row.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.cols()
    }

    /// `x` is `[rows, inputs]`; returns `[rows, outputs]`.
    pub(crate) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.weight.rows() * self.weight.cols()];
        self.run(x, &mut out, 0.0);
        out
    }

    /// Writes `x` Wᵀ + b to `out`.
    pub(crate) fn forward_into(&self, x: &[f32], out: &mut [f32]) {
        self.run(x, out, 0.0);
    }

    /// Adds `x` Wᵀ + b to `out`: a layer on a residual branch.
    pub(crate) fn forward_add(&self, x: &[f32], out: &mut [f32]) {
        self.run(x, out, 1.0);
    }

    fn run(&self, x: &[f32], out: &mut [f32], beta: f32) {
        let (inputs, outputs) = (self.weight.rows(), self.weight.cols());
        let rows = x.len() / inputs;
        assert_eq!(
            (x.len(), out.len()),
            (rows * inputs, rows * outputs),
            "rows of {inputs} in, of {outputs} out"
        );
        let options =
            GemmOptions { beta, bias: self.bias.as_deref().map(BiasVector::Row), ..Default::default() };
        executor()
            .gemm(
                out,
                GemmInputA::Unpacked(view(x, rows, inputs, [inputs, 1])),
                GemmInputB::Packed(&self.weight),
                options,
            )
            .expect("shapes were checked and the packing is this executor's");
    }
}

/// A strided matrix inside a slice: `rows` × `cols`, element (r, c) at `r * strides[0] + c * strides[1]`.
pub(crate) fn view(data: &[f32], rows: usize, cols: usize, strides: [usize; 2]) -> Matrix<'_, f32> {
    let matrix = NdTensorView::from_slice_with_strides([rows, cols], data, strides)
        .expect("the slice holds the matrix");
    debug_assert_eq!(matrix.shape(), [rows, cols]);
    matrix
}

/// out = alpha · a b, `out` in row-major order.
pub(crate) fn matmul(a: Matrix<'_, f32>, b: Matrix<'_, f32>, alpha: f32, out: &mut [f32]) {
    let options = GemmOptions { alpha, ..Default::default() };
    executor()
        .gemm(out, GemmInputA::Unpacked(a), GemmInputB::Unpacked(b), options)
        .expect("the caller's shapes agree");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
            .collect()
    }

    proptest! {
        /// Against f64: |error| ≤ γ_k Σ|a||b| with γ_k = (k + 1) u / (1 − (k + 1) u), u = 2⁻²⁴ (Higham, 3.1).
        #[test]
        fn linear_is_within_the_rounding_bound(rows in 1usize..40, inputs in 1usize..400, outputs in 1usize..70, seed: u32) {
            let (x, w, b) = (values(rows * inputs, seed), values(outputs * inputs, !seed), values(outputs, 7));
            let y = Linear::new(&w, outputs, inputs, Some(b.clone())).forward(&x);
            let u = (-24f64).exp2();
            let k = (inputs + 1) as f64 * u;
            for r in 0..rows {
                for o in 0..outputs {
                    let products = (0..inputs).map(|i| f64::from(x[r * inputs + i]) * f64::from(w[o * inputs + i]));
                    let (sum, abs) = products.fold((f64::from(b[o]), f64::from(b[o]).abs()), |(s, a), p| (s + p, a + p.abs()));
                    let error = (f64::from(y[r * outputs + o]) - sum).abs();
                    prop_assert!(error <= k / (1.0 - k) * abs, "{error}");
                }
            }
        }

        /// A row's result depends on that row alone, whatever rows stand beside it.
        #[test]
        fn rows_are_independent_to_the_bit(rows in 1usize..50, inputs in 1usize..600, seed: u32) {
            let outputs = 48;
            let (x, w) = (values(rows * inputs, seed), values(outputs * inputs, !seed));
            let layer = Linear::new(&w, outputs, inputs, None);
            let all = layer.forward(&x);
            for r in 0..rows {
                prop_assert_eq!(&layer.forward(&x[r * inputs..(r + 1) * inputs])[..], &all[r * outputs..(r + 1) * outputs]);
            }
        }
    }
}
