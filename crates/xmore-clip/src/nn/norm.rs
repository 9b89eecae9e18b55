//! Layer normalisation, and the folding of batch normalisation into a convolution's weights.

use rten_simd::SimdOp;
use rten_vecmath::{Normalize, NormalizeOptions, Sum, SumSquareSub};

use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// Layer normalisation over rows of `width` elements.
pub(crate) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    /// Takes `{prefix}weight` and `{prefix}bias`, `[width]` each.
    pub(crate) fn load(ckpt: &Checkpoint, prefix: &str, width: usize, epsilon: f32) -> Result<Self> {
        Ok(Self {
            weight: ckpt.tensor(&format!("{prefix}weight"), &[width])?.into_owned(),
            bias: ckpt.tensor(&format!("{prefix}bias"), &[width])?.into_owned(),
            epsilon,
        })
    }

    /// Normalises each row of `x`, `[rows, width]`, in place.
    pub(crate) fn forward(&self, x: &mut [f32]) {
        let width = self.weight.len();
        for row in x.chunks_exact_mut(width) {
            let mean = Sum::new(row).dispatch() / width as f32;
            let variance = SumSquareSub::new(row, mean).dispatch() / width as f32;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + self.epsilon).sqrt(),
                element_scale: Some(&self.weight),
                element_bias: Some(&self.bias),
                ..Default::default()
            };
            Normalize::new_mut(row, options).dispatch();
        }
    }
}

/// Batch normalisation at inference is a scale and a shift per channel.
pub(crate) struct BatchNorm {
    /// γ / √(σ² + ε), per output channel.
    pub(crate) scale: Vec<f32>,
    /// β − μ·scale, per output channel.
    pub(crate) shift: Vec<f32>,
}

impl BatchNorm {
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
        LayerNorm { weight: weight.clone(), bias: bias.clone(), epsilon: 1e-5 }.forward(&mut y);
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
