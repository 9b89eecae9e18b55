//! ConvNeXt: open_clip's folders with timm's image towers, and CLIP's text tower.
//!
//! References: ConvNeXt (arXiv 2201.03545); timm 1.0, `convnext.py`; open_clip 3.3, `timm_model.py`.

mod network;

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, Device, ImageTower};
use crate::error::Result;
use crate::nn::linear::Part;
use crate::nn::precision::Precision;

use super::shared::names::projection;
use super::shared::timm::{TRUNK, TimmTower, open_timm};
use super::{Architecture, Head, HeadPerceptron, ImagePart};
use network::{ConvNeXt, ConvNeXtArch};

/// The row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "convnext",
    summary: "ConvNeXt: open_clip's folders",
    detect: |found| found.timm_model_name().is_some_and(|name| epsilon(name).is_some()),
    open: |found, options| open_timm(found, options, read_image),
};

/// timm's models of that form, and their norms' epsilon. timm has others, with other stems, heads or norms.
const MODELS: &[(&str, f32)] = &[
    ("convnext_tiny", 1e-6),
    ("convnext_small", 1e-6),
    ("convnext_base", 1e-6),
    ("convnext_large", 1e-6),
    ("convnext_xlarge", 1e-6),
    ("convnext_xxlarge", 1e-5),
];

fn epsilon(model: &str) -> Option<f32> {
    MODELS.iter().find(|(name, _)| *name == model).map(|&(_, epsilon)| epsilon)
}

fn read_image(tower: &TimmTower<'_>) -> Result<ImagePart> {
    let Some(epsilon) = epsilon(tower.name()) else { return Err(tower.unknown_name()) };
    let projection = match tower.timm_proj() {
        None => Projection::Linear(format!("{TRUNK}head.fc")),
        Some("linear") => Projection::Linear("visual.head.proj".to_owned()),
        Some("mlp") => Projection::Perceptron("visual.head.mlp".to_owned()),
        Some(other) => {
            return Err(tower.error(format!("timm_proj is {other:?}, expected \"linear\", \"mlp\" or null")));
        }
    };
    tower.expect_own_pool("avg")?;
    let arch = ConvNeXtArch::infer(tower.path, tower.image_size()?, epsilon, tower.checkpoint)?;
    Ok(ImagePart {
        description: arch.describe(),
        image_size: arch.image_size,
        operations: arch.operations(),
        loader: Box::new(ConvNeXtImage {
            checkpoint: Arc::clone(tower.checkpoint),
            arch,
            projection,
            dim: tower.dim,
            precision: tower.precision,
        }),
    })
}

/// The projection into the joint space, by its name.
enum Projection {
    Linear(String),
    /// fc2(gelu(fc1(x))), of 2 · dim hidden values.
    Perceptron(String),
}

/// The image tower in a checkpoint.
struct ConvNeXtImage {
    checkpoint: Arc<Checkpoint>,
    arch: ConvNeXtArch,
    projection: Projection,
    dim: usize,
    precision: Precision,
}

impl BuildImage for ConvNeXtImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let Self { checkpoint, arch, dim, precision, .. } = self;
        let head = match &self.projection {
            Projection::Linear(name) => projection(device, checkpoint, name, arch.width(), *dim)?,
            Projection::Perceptron(name) => perceptron(device, checkpoint, name, arch.width(), *dim)?,
        };
        let network = ConvNeXt::load(device, checkpoint, arch, *precision)?;
        Ok(ImageTower { network: Box::new(network), head: Some(head) })
    }
}

/// open_clip's perceptron, whose second layer has a bias only where the configuration asks for one.
fn perceptron<D: Device>(
    device: &D,
    checkpoint: &Checkpoint,
    name: &str,
    inputs: usize,
    dim: usize,
) -> Result<Head<D>> {
    let width = 2 * dim;
    let (w1, b1) = checkpoint.weight_and_bias(&format!("{name}.fc1."), &[width, inputs])?;
    let w2 = checkpoint.tensor(&format!("{name}.fc2.weight"), &[dim, width])?;
    let b2 = format!("{name}.fc2.bias");
    let b2 = checkpoint.contains(&b2).then(|| checkpoint.tensor(&b2, &[dim])).transpose()?;
    let linear = |weight: &[f32], bias: Option<&[f32]>, inputs| {
        device.linear(&[Part { weight, bias, scale: 1.0 }], inputs, Precision::F32)
    };
    let (fc1, fc2) = (linear(&w1, Some(&b1), inputs)?, linear(&w2, b2.as_deref(), width)?);
    Ok(Head::Perceptron(HeadPerceptron { fc1, fc2, width }))
}
