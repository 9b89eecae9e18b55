//! MobileCLIP-S and MobileCLIP2-S: open_clip's folders with timm's FastViT (`fastvit_mci0` to `fastvit_mci4`), and CLIP's text tower.
//!
//! References: FastViT (arXiv 2303.14189), MobileCLIP (arXiv 2311.17049), MobileCLIP2 (arXiv 2508.20691); timm 1.0, `fastvit.py`. Checkpoints have
//! the branches that convolutions were trained with; they are folded when the tower is loaded.

mod branches;
mod network;
mod parts;

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, Device, ImageTower};
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;

use super::shared::timm::{TimmCfg, open_timm};
use super::{Architecture, ImagePart};
use network::{FastVit, FastVitArch};
use parts::Loader;

/// The row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "fastvit",
    summary: "MobileCLIP-S and MobileCLIP2-S (FastViT): open_clip's folders",
    detect: |found| Ok(found.timm_model_name()?.is_some_and(|name| is_large(&name).is_some())),
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

fn read_image(
    path: &Path,
    cfg: &TimmCfg,
    checkpoint: &Arc<Checkpoint>,
    dim: usize,
    precision: Precision,
) -> Result<ImagePart> {
    let name = &cfg.timm_model_name;
    let Some(large) = is_large(name) else {
        return Err(ClipError::config(path, format!("timm_model_name is {name:?}, which is not known")));
    };
    cfg.expect_pool(path, "avg")?;
    if let Some(kind) = cfg.timm_proj() {
        return Err(ClipError::config(path, format!("timm_proj of {name} is {kind:?}, expected null")));
    }
    let arch = FastVitArch::infer(path, cfg.image_size(path)?, large, checkpoint)?;
    Ok(ImagePart {
        description: arch.describe(),
        image_size: arch.image_size,
        operations: arch.operations(),
        loader: Box::new(FastVitImage { checkpoint: Arc::clone(checkpoint), arch, dim, precision }),
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
