//! MobileCLIP-S and MobileCLIP2-S: open_clip's folders with timm's FastViT (`fastvit_mci0` to `fastvit_mci4`), and CLIP's text tower.
//!
//! References: FastViT (arXiv 2303.14189), MobileCLIP (arXiv 2311.17049), MobileCLIP2 (arXiv 2508.20691); timm 1.0, `fastvit.py`. Checkpoints have
//! the branches that convolutions were trained with; they are folded when the tower is loaded.

mod branches;
mod network;
mod parts;

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, Device, ImageTower};
use crate::error::Result;
use crate::nn::precision::Precision;

use super::shared::timm::{TimmTower, open_timm};
use super::{Architecture, ImagePart};
use network::{FastVit, FastVitArch};
use parts::Loader;

/// The row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "fastvit",
    summary: "MobileCLIP-S and MobileCLIP2-S (FastViT): open_clip's folders",
    detect: |found| found.timm_model_name().is_some_and(|name| is_large(name).is_some()),
    open: |found, options| open_timm(found, options, read_image),
};

/// timm's models of that form, and whether each is one of the larger two; its others have no activation between the convolutions that reduce a
/// map.
const MODELS: &[(&str, bool)] = &[
    ("fastvit_mci0", false),
    ("fastvit_mci1", false),
    ("fastvit_mci2", false),
    ("fastvit_mci3", true),
    ("fastvit_mci4", true),
];

fn is_large(model: &str) -> Option<bool> {
    MODELS.iter().find(|(name, _)| *name == model).map(|&(_, large)| large)
}

fn read_image(tower: &TimmTower<'_>) -> Result<ImagePart> {
    let Some(large) = is_large(tower.name()) else { return Err(tower.unknown_name()) };
    tower.expect_pool("avg")?;
    if let Some(kind) = tower.timm_proj() {
        return Err(tower.error(format!("timm_proj of {} is {kind:?}, expected null", tower.name())));
    }
    let arch = FastVitArch::infer(tower.path, tower.image_size()?, large, tower.checkpoint)?;
    Ok(ImagePart {
        description: arch.describe(),
        image_size: arch.image_size,
        operations: arch.operations(),
        loader: Box::new(FastVitImage {
            checkpoint: Arc::clone(tower.checkpoint),
            arch,
            dim: tower.dim,
            precision: tower.precision,
        }),
    })
}

/// The image tower in a checkpoint.
struct FastVitImage {
    checkpoint: Arc<Checkpoint>,
    arch: FastVitArch,
    dim: usize,
    precision: Precision,
}

impl BuildImage for FastVitImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        device.require(self.arch.operations())?;
        let loader = Loader { device, checkpoint: &self.checkpoint, precision: self.precision };
        let network = FastVit::load(&loader, &self.arch)?;
        Ok(ImageTower { network: Box::new(network), head: Some(loader.head(&self.arch, self.dim)?) })
    }
}
