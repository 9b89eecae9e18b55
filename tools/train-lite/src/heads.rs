//! The two heads: linear maps with their gradients, and the file they are kept in.

use std::error::Error;
use std::path::Path;

use half::f16;
use ndarray::{Array1, Array2, Axis};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A linear map to the joint space followed by scaling to unit length.
#[derive(Clone)]
pub struct Head {
    /// `[dim, inputs]`.
    pub weight: Array2<f32>,
    /// `[dim]`.
    pub bias: Array1<f32>,
}

/// What the backward pass needs of the forward pass.
pub struct Passed {
    inputs: Array2<f32>,
    lengths: Array1<f32>,
    /// Unit rows `[n, dim]`.
    pub unit: Array2<f32>,
}

impl Head {
    /// Normal weights of variance 1 / inputs, zero bias.
    pub fn random(dim: usize, inputs: usize, rng: &mut fastrand::Rng) -> Self {
        let std = 1.0 / (inputs as f32).sqrt();
        Self {
            weight: Array2::from_shape_simple_fn((dim, inputs), || normal(rng) * std),
            bias: Array1::zeros(dim),
        }
    }

    /// `[n, inputs]` to unit rows.
    pub fn forward(&self, inputs: Array2<f32>) -> Passed {
        let mut unit = inputs.dot(&self.weight.t()) + &self.bias;
        let lengths: Array1<f32> = unit.map_axis(Axis(1), |row| row.dot(&row).sqrt().max(1e-12));
        unit /= &lengths.view().insert_axis(Axis(1));
        Passed { inputs, lengths, unit }
    }

    /// Gradients of weight and bias, from the gradient of the unit rows.
    pub fn backward(&self, passed: &Passed, unit: &Array2<f32>) -> (Array2<f32>, Array1<f32>) {
        // y / |y| moves only across y: the part of the gradient along it is taken out.
        let along = (&passed.unit * unit).sum_axis(Axis(1)).insert_axis(Axis(1));
        let mut rows = unit - &(&passed.unit * &along);
        rows /= &passed.lengths.view().insert_axis(Axis(1));
        (rows.t().dot(&passed.inputs), rows.sum_axis(Axis(0)))
    }
}

fn normal(rng: &mut fastrand::Rng) -> f32 {
    // Box and Muller; 1 − u is never 0.
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

/// Everything that `heads.safetensors` holds.
pub struct Heads {
    /// Mean of the image features, `[1280]`.
    pub mean: Array1<f32>,
    /// Their deviations.
    pub std: Array1<f32>,
    /// On standardised image features.
    pub visual: Head,
    /// On text features.
    pub text: Head,
    /// Logarithm of the logit scale.
    pub log_scale: f32,
}

impl Heads {
    /// Standardised image features to unit rows.
    pub fn images(&self, features: &Array2<f32>) -> Array2<f32> {
        self.visual.forward((features - &self.mean) / &self.std).unit
    }

    /// Text features to unit rows.
    pub fn texts(&self, features: &Array2<f32>) -> Array2<f32> {
        self.text.forward(features.clone()).unit
    }

    /// Writes them in half precision, under the names that `xmore-clip` reads.
    pub fn save(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let half = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
            values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect()
        };
        let [dim, features] = [self.visual.weight.nrows(), self.visual.weight.ncols()];
        let words = self.text.weight.ncols();
        let tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = vec![
            ("visual.mean", vec![features], half(&mut self.mean.iter().copied())),
            ("visual.std", vec![features], half(&mut self.std.iter().copied())),
            ("visual.proj.weight", vec![dim, features], half(&mut self.visual.weight.iter().copied())),
            ("visual.proj.bias", vec![dim], half(&mut self.visual.bias.iter().copied())),
            ("text.proj.weight", vec![dim, words], half(&mut self.text.weight.iter().copied())),
            ("text.proj.bias", vec![dim], half(&mut self.text.bias.iter().copied())),
            ("logit_scale", vec![], half(&mut std::iter::once(self.log_scale))),
        ];
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        Ok(safetensors::serialize_to_file(views, None, path)?)
    }

    /// Reads what [`Heads::save`] wrote.
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = std::fs::read(path)?;
        let all = SafeTensors::deserialize(&bytes)?;
        let get = |name: &str| -> Result<Array1<f32>, Box<dyn Error>> {
            let data = all.tensor(name)?;
            Ok(data.data().as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect())
        };
        let head = |prefix: &str| -> Result<Head, Box<dyn Error>> {
            let bias = get(&format!("{prefix}.proj.bias"))?;
            let weight = get(&format!("{prefix}.proj.weight"))?;
            let shape = (bias.len(), weight.len() / bias.len());
            Ok(Head { weight: weight.into_shape_with_order(shape)?, bias })
        };
        Ok(Self {
            mean: get("visual.mean")?,
            std: get("visual.std")?,
            visual: head("visual")?,
            text: head("text")?,
            log_scale: get("logit_scale")?[0],
        })
    }
}
