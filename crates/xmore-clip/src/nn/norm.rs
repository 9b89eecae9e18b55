//! Layer normalization, and the folding of batch normalization into a convolution's weights.

use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::checkpoint::Checkpoint;
use crate::error::Result;

use super::gemm::Threads;

/// Layer normalization over rows of `width` elements.
pub(crate) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

/// Elements from which on a second thread is worth using.
const MIN_PARALLEL: usize = 1 << 16;

impl LayerNorm {
    /// From weight and bias, `[width]` each.
    pub(crate) fn new(weight: &[f32], bias: &[f32], epsilon: f32) -> Self {
        assert_eq!(weight.len(), bias.len());
        Self { weight: weight.to_vec(), bias: bias.to_vec(), epsilon }
    }

    /// Normalizes each row of `x`, `[rows, width]`, in place.
    pub(crate) fn forward(&self, x: &mut [f32], threads: Threads) {
        let width = self.weight.len();
        let rows = |x: &mut [f32]| {
            for row in x.chunks_exact_mut(width) {
                // The row is read wholly before it is written.
                NormalizeRow { norm: self, x: row.as_ptr(), out: row.as_mut_ptr() }.dispatch();
            }
        };
        if threads == Threads::One || x.len() < MIN_PARALLEL {
            return rows(x);
        }
        x.par_chunks_mut(rows_per_job(x.len(), width) * width).for_each(rows);
    }

    /// Writes the normalized rows of `x`, `[rows, width]`, to `out`.
    pub(crate) fn forward_into(&self, x: &[f32], out: &mut [f32], threads: Threads) {
        assert_eq!(x.len(), out.len());
        let width = self.weight.len();
        let rows = |x: &[f32], out: &mut [f32]| {
            for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                NormalizeRow { norm: self, x: row.as_ptr(), out: out.as_mut_ptr() }.dispatch();
            }
        };
        if threads == Threads::One || x.len() < MIN_PARALLEL {
            return rows(x, out);
        }
        let part = rows_per_job(x.len(), width) * width;
        x.par_chunks(part).zip(out.par_chunks_mut(part)).for_each(|(x, out)| rows(x, out));
    }
}

/// Rows of each of a few jobs for every thread.
fn rows_per_job(elements: usize, width: usize) -> usize {
    (elements / width).div_ceil(2 * rayon::current_num_threads())
}

/// One row, `[width]`; `x` and `out` may be the same.
struct NormalizeRow<'a> {
    norm: &'a LayerNorm,
    x: *const f32,
    out: *mut f32,
}

impl SimdOp for NormalizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { norm, x, out } = self;
        let ops = isa.f32();
        let (width, lanes) = (norm.weight.len(), ops.len());
        let whole = width - width % lanes;
        // SAFETY: `x` and `out` are rows of `width` elements, as are the weights; no index is beyond.
        #[allow(unsafe_code)]
        unsafe {
            // Two sums each, so that additions do not depend on one another.
            let mut sums = [ops.zero(); 2];
            for (n, i) in (0..whole).step_by(lanes).enumerate() {
                sums[n % 2] = ops.add(sums[n % 2], ops.load_ptr(x.add(i)));
            }
            let mut sum = ops.sum(ops.add(sums[0], sums[1]));
            (whole..width).for_each(|i| sum += *x.add(i));
            let mean = sum / width as f32;
            let means = ops.splat(mean);
            let mut squares = [ops.zero(); 2];
            for (n, i) in (0..whole).step_by(lanes).enumerate() {
                let d = ops.sub(ops.load_ptr(x.add(i)), means);
                squares[n % 2] = ops.mul_add(d, d, squares[n % 2]);
            }
            let mut square = ops.sum(ops.add(squares[0], squares[1]));
            (whole..width).for_each(|i| square += (*x.add(i) - mean).powi(2));
            let scale = 1.0 / (square / width as f32 + norm.epsilon).sqrt();
            let scales = ops.splat(scale);
            for i in (0..whole).step_by(lanes) {
                let d = ops.mul(ops.sub(ops.load_ptr(x.add(i)), means), scales);
                let weight = ops.load_ptr(norm.weight.as_ptr().add(i));
                let bias = ops.load_ptr(norm.bias.as_ptr().add(i));
                ops.store_ptr(ops.mul_add(d, weight, bias), out.add(i));
            }
            for i in whole..width {
                *out.add(i) = ((*x.add(i) - mean) * scale).mul_add(norm.weight[i], norm.bias[i]);
            }
        }
    }
}

/// Batch normalization at inference is a scale and a shift per channel.
pub(crate) struct BatchNorm {
    /// γ / √(σ² + ε), per output channel.
    pub(crate) scale: Vec<f32>,
    /// β − μ·scale, per output channel.
    pub(crate) shift: Vec<f32>,
}

impl BatchNorm {
    /// That of a convolution which has a bias, `[channels]`, and no normalization.
    pub(crate) fn bias(bias: Vec<f32>) -> Self {
        Self { scale: vec![1.0; bias.len()], shift: bias }
    }

    /// Takes `weight`, `bias`, `running_mean` and `running_var` under `prefix`, `[channels]` each.
    pub(crate) fn load(ckpt: &Checkpoint, prefix: &str, channels: usize, epsilon: f32) -> Result<Self> {
        let get = |name: &str| ckpt.tensor(&format!("{prefix}{name}"), &[channels]);
        let (gamma, beta, mean, var) =
            (get("weight")?, get("bias")?, get("running_mean")?, get("running_var")?);
        // In f64, so that folding adds no error of its own beyond one rounding.
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&*var)
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + f64::from(epsilon)).sqrt())
            .collect();
        let shift =
            (0..channels).map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * scale[c]) as f32).collect();
        Ok(Self { scale: scale.into_iter().map(|s| s as f32).collect(), shift })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_matches_f64() {
        let width = 37;
        let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 * 0.01).collect();
        let bias: Vec<f32> = (0..width).map(|i| i as f32 * 0.1 - 1.0).collect();
        let x: Vec<f32> = (0..2 * width).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.07).collect();
        let mut y = x.clone();
        LayerNorm { weight: weight.clone(), bias: bias.clone(), epsilon: 1e-5 }.forward(&mut y, Threads::One);
        for (row, out) in x.chunks(width).zip(y.chunks(width)) {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
            let var = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
            for i in 0..width {
                let want = (f64::from(row[i]) - mean) / (var + 1e-5).sqrt() * f64::from(weight[i])
                    + f64::from(bias[i]);
                assert!((f64::from(out[i]) - want).abs() < 1e-5, "{} {want}", out[i]);
            }
        }
    }
}
