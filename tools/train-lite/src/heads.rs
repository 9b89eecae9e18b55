//! The two heads: linear maps with their gradients, and the file they are kept in.

use std::error::Error;
use std::path::Path;

use half::f16;
use ndarray::{Array1, Array2, Axis};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A linear map to the joint space, a residual perceptron on top of it, then scaling to unit length.
#[derive(Clone)]
pub struct Head {
    pub proj: Linear,
    /// Two layers around a GELU; `None` for a linear head.
    pub mlp: Option<[Linear; 2]>,
}

/// y = x Wᵀ + b.
#[derive(Clone)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Array2<f32>,
    /// `[outputs]`.
    pub bias: Array1<f32>,
}

impl Linear {
    fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        x.dot(&self.weight.t()) + &self.bias
    }
}

/// What the backward pass needs of the forward pass.
pub struct Passed {
    inputs: Array2<f32>,
    /// Output of the linear map, and the hidden layer before and after its activation.
    inner: Option<[Array2<f32>; 3]>,
    lengths: Array1<f32>,
    /// Unit rows `[n, dim]`.
    pub unit: Array2<f32>,
}

impl Head {
    /// Normal weights of variance 1 / inputs, zero biases; the perceptron starts as zero.
    pub fn random(dim: usize, inputs: usize, hidden: usize, rng: &mut fastrand::Rng) -> Self {
        let mut random = |outputs: usize, inputs: usize| {
            let std = 1.0 / (inputs as f32).sqrt();
            let weight = Array2::from_shape_simple_fn((outputs, inputs), || normal(rng) * std);
            Linear { weight, bias: Array1::zeros(outputs) }
        };
        let proj = random(dim, inputs);
        let zero = Linear { weight: Array2::zeros((dim, hidden)), bias: Array1::zeros(dim) };
        let mlp = (hidden > 0).then(|| [random(hidden, dim), zero]);
        Self { proj, mlp }
    }

    /// `[n, inputs]` to unit rows.
    pub fn forward(&self, inputs: Array2<f32>) -> Passed {
        let mut unit = self.proj.forward(&inputs);
        let inner = self.mlp.as_ref().map(|[fc1, fc2]| {
            let linear = unit.clone();
            let before = fc1.forward(&linear);
            let after = before.mapv(|v| v * phi(v));
            unit += &fc2.forward(&after);
            [linear, before, after]
        });
        let lengths: Array1<f32> = unit.map_axis(Axis(1), |row| row.dot(&row).sqrt().max(1e-12));
        unit /= &lengths.view().insert_axis(Axis(1));
        Passed { inputs, inner, lengths, unit }
    }

    /// Gradients of all layers, in [`Head::layers`]' order, from the gradient of the unit rows.
    pub fn backward(&self, passed: &Passed, unit: &Array2<f32>) -> Vec<Linear> {
        // y / |y| moves only across y: the part of the gradient along it is taken out.
        let along = (&passed.unit * unit).sum_axis(Axis(1)).insert_axis(Axis(1));
        let mut rows = unit - &(&passed.unit * &along);
        rows /= &passed.lengths.view().insert_axis(Axis(1));
        let layer = |outputs: &Array2<f32>, inputs: &Array2<f32>| Linear {
            weight: outputs.t().dot(inputs),
            bias: outputs.sum_axis(Axis(0)),
        };
        let mut gradients = Vec::new();
        if let (Some([fc1, fc2]), Some([linear, before, after])) = (&self.mlp, &passed.inner) {
            // GELU' (v) = Φ(v) + v φ(v)
            let density = |v: f32| (-0.5 * v * v).exp() * 0.398_942_3;
            let hidden = rows.dot(&fc2.weight) * before.mapv(|v| phi(v) + v * density(v));
            gradients.extend([layer(&hidden, linear), layer(&rows, after)]);
            rows += &hidden.dot(&fc1.weight);
        }
        gradients.insert(0, layer(&rows, &passed.inputs));
        gradients
    }

    /// All layers with their names, the projection first.
    pub fn layers(&self) -> Vec<(&'static str, &Linear)> {
        let mut all = vec![("proj", &self.proj)];
        if let Some([fc1, fc2]) = &self.mlp {
            all.extend([("mlp.fc1", fc1), ("mlp.fc2", fc2)]);
        }
        all
    }

    /// The same, to be changed.
    pub fn layers_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![&mut self.proj];
        all.extend(self.mlp.iter_mut().flatten());
        all
    }
}

/// Distribution function of the normal distribution, by Abramowitz and Stegun 7.1.26: within 1e-7, so the heads see at training what
/// the engine computes.
fn phi(v: f32) -> f32 {
    let x = f64::from(v.abs()) / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let upper = 0.5 * poly * (-x * x).exp();
    (if v < 0.0 { upper } else { 1.0 - upper }) as f32
}

fn normal(rng: &mut fastrand::Rng) -> f32 {
    // Box and Muller; 1 − u is never 0.
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

/// Everything that `heads.safetensors` holds.
pub struct Heads {
    /// Mean of the image features, `[width]`.
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
        let features = self.mean.len();
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = vec![
            ("visual.mean".into(), vec![features], half(&mut self.mean.iter().copied())),
            ("visual.std".into(), vec![features], half(&mut self.std.iter().copied())),
            ("logit_scale".into(), vec![], half(&mut std::iter::once(self.log_scale))),
        ];
        for (side, head) in [("visual", &self.visual), ("text", &self.text)] {
            for (name, layer) in head.layers() {
                let (weight, bias) =
                    (half(&mut layer.weight.iter().copied()), half(&mut layer.bias.iter().copied()));
                tensors.push((format!("{side}.{name}.weight"), layer.weight.shape().to_vec(), weight));
                tensors.push((format!("{side}.{name}.bias"), layer.bias.shape().to_vec(), bias));
            }
        }
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| {
                Ok((name.as_str(), TensorView::new(Dtype::F16, shape.clone(), bytes)?))
            })
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
        let layer = |name: String| -> Result<Linear, Box<dyn Error>> {
            let bias = get(&format!("{name}.bias"))?;
            let weight = get(&format!("{name}.weight"))?;
            let shape = (bias.len(), weight.len() / bias.len());
            Ok(Linear { weight: weight.into_shape_with_order(shape)?, bias })
        };
        let head = |side: &str| -> Result<Head, Box<dyn Error>> {
            let mlp = match all.tensor(&format!("{side}.mlp.fc1.weight")) {
                Ok(_) => Some([layer(format!("{side}.mlp.fc1"))?, layer(format!("{side}.mlp.fc2"))?]),
                Err(_) => None,
            };
            Ok(Head { proj: layer(format!("{side}.proj"))?, mlp })
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
