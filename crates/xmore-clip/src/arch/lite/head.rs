//! The heads that were trained for `lite`: from a tower's features to the joint space.

use crate::arch::parts::Head;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::gemm::Threads;
use crate::nn::linear::Linear;

/// Standardization and a linear map, folded into one; then a residual two-layer perceptron, where there is one.
pub(crate) struct LiteHead {
    linear: Linear,
    mlp: Option<[Linear; 2]>,
}

impl LiteHead {
    /// Takes `{prefix}proj.weight` `[outputs, inputs]`, `{prefix}proj.bias` `[outputs]` and, where there are any, the features'
    /// `{prefix}mean` and `{prefix}std` `[inputs]`, and `{prefix}mlp.fc1` and `{prefix}mlp.fc2` with their weights and biases.
    pub(crate) fn load(ckpt: &Checkpoint, prefix: &str, outputs: usize, inputs: usize) -> Result<Self> {
        let mut weight = ckpt.tensor(&format!("{prefix}proj.weight"), &[outputs, inputs])?.into_owned();
        let mut bias = ckpt.tensor(&format!("{prefix}proj.bias"), &[outputs])?.into_owned();
        let (mean_name, std_name) = (format!("{prefix}mean"), format!("{prefix}std"));
        if ckpt.contains(&mean_name) || ckpt.contains(&std_name) {
            let (mean, std) = (ckpt.tensor(&mean_name, &[inputs])?, ckpt.tensor(&std_name, &[inputs])?);
            for (row, bias) in weight.chunks_exact_mut(inputs).zip(&mut bias) {
                let mut shift = 0.0f64;
                for ((w, &mean), &std) in row.iter_mut().zip(&*mean).zip(&*std) {
                    *w /= std;
                    shift += f64::from(*w) * f64::from(mean);
                }
                *bias = (f64::from(*bias) - shift) as f32;
            }
        }
        let hidden = ckpt.shape(&format!("{prefix}mlp.fc1.bias")).and_then(|shape| shape.first().copied());
        let mlp = match hidden {
            None => None,
            Some(hidden) => Some([
                Linear::load(ckpt, &format!("{prefix}mlp.fc1."), hidden, outputs)?,
                Linear::load(ckpt, &format!("{prefix}mlp.fc2."), outputs, hidden)?,
            ]),
        };
        Ok(Self { linear: Linear::new(&weight, outputs, inputs, Some(bias)), mlp })
    }
}

impl Head for LiteHead {
    fn forward(&self, features: &[f32]) -> Vec<f32> {
        let mut out = self.linear.forward(features, Threads::Pool);
        if let Some([fc1, fc2]) = &self.mlp {
            let mut hidden = vec![0.0; out.len() / fc1.inputs() * fc1.outputs()];
            fc1.forward_into(&out, &mut hidden, Some(Activation::Gelu), Threads::Pool);
            fc2.forward_add(&hidden, &mut out, None, Threads::Pool);
        }
        out
    }
}
