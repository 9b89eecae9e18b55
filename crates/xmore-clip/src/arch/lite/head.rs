//! The heads that were trained for `lite`: from a tower's features to the joint space.

use crate::arch::{Head, HeadPerceptron};
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::Result;
use crate::nn::linear::Part;
use crate::nn::precision::Precision;

/// Standardization and a linear map, folded into one; then a residual two-layer perceptron, where there is one.
///
/// Takes `{prefix}proj.weight` `[outputs, inputs]`, `{prefix}proj.bias` `[outputs]` and, where there are any, the features'
/// `{prefix}mean` and `{prefix}std` `[inputs]`, and `{prefix}mlp.fc1` and `{prefix}mlp.fc2` with their weights and biases.
pub(crate) fn load_head<D: Device>(
    device: &D,
    ckpt: &Checkpoint,
    prefix: &str,
    outputs: usize,
    inputs: usize,
) -> Result<Head<D>> {
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
    let linear = |weight: &[f32], bias: &[f32], inputs| {
        device.linear(&[Part { weight, bias: Some(bias), scale: 1.0 }], inputs, Precision::F32)
    };
    let map = linear(&weight, &bias, inputs)?;
    Ok(match hidden {
        None => Head::Linear(map),
        Some(width) => {
            let (w1, b1) = ckpt.weight_and_bias(&format!("{prefix}mlp.fc1."), &[width, outputs])?;
            let (w2, b2) = ckpt.weight_and_bias(&format!("{prefix}mlp.fc2."), &[outputs, width])?;
            let (fc1, fc2) = (linear(&w1, &b1, outputs)?, linear(&w2, &b2, width)?);
            Head::LinearAndResidual(map, HeadPerceptron { fc1, fc2, width })
        }
    })
}
