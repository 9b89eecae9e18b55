//! SigLIP 2 NaFlex: pictures of any aspect in up to so many patches, in transformers' folders (`Siglip2Model`).
//!
//! Reference: SigLIP 2 (arXiv 2502.14786), section 2.4.2; transformers' `modeling_siglip2.py`. A picture keeps its aspect; its patches are its tokens, and the
//! learned positions of a square are resampled to its grid. There is no padding: each picture is a sequence of its own length.

mod network;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, Device, ImageTower, Operation};
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;
use crate::options::LoadOptions;
use crate::preprocess::NaFlex;

use super::shared::assemble::{Parts, assemble};
use super::shared::limits::check_range;
use super::shared::preprocessor_config::{self, ProcessorKind};
use super::shared::transformers::TransformersFolder;
use super::shared::vit::{VitArch, VitWeights};
use super::siglip::transformers::{Config, VISION, text_part};
use super::{Architecture, ConfigForm, ImagePart, Opened};
use network::NaFlexVit;

/// Its `model_type`.
const MODEL_TYPE: &str = "siglip2";

/// NaFlex's row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "siglip2-naflex",
    summary: "SigLIP 2 NaFlex, pictures of any aspect: transformers' folders",
    detect: |found| found.model_type() == Some(MODEL_TYPE),
    open: |found, options| open(found.folder(ConfigForm::Transformers)?, options),
};

fn open(dir: PathBuf, options: &LoadOptions) -> Result<Opened> {
    let folder = TransformersFolder::new(dir, options);
    let path = &folder.path;
    let config: Config = folder.config()?;
    let (vision, side) = read_vision(path, &config)?;
    let dim = vision.sizes.width;
    let text = config.text(path, dim)?;
    let checkpoint = folder.checkpoint()?;
    let mut preprocess = preprocessor_config::read_or(path, vision.image_size, ProcessorKind::Siglip2)?;
    let patches = preprocess.patches.map_or(256, NaFlex::max_patches);
    let patch = u32::try_from(vision.patch).expect("checked with the sizes");
    match preprocess.patches {
        Some(found) if found.patch() != patch => {
            let message = format!("patch_size is {patch}, but that of the image processor {}", found.patch());
            return Err(ClipError::config(path, message));
        }
        _ => preprocess.patches = NaFlex::new(patch, patches),
    }
    let image = ImagePart {
        description: format!("{}, up to {patches} patches of any aspect", vision.describe()),
        image_size: vision.image_size,
        operations: [vision.operations(), vec![Operation::AnyAspect]].concat(),
        loader: Box::new(NaFlexImage {
            checkpoint: Arc::clone(&checkpoint),
            arch: vision,
            side,
            precision: options.precision,
        }),
    };
    let text = text_part(&folder, &checkpoint, text, dim)?;
    assemble(&checkpoint, Parts { dim, preprocess, image, text, config: Some(folder.path) }, options)
}

/// The tower, as that of a square of as many patches as there are learned positions, and the square's side in patches.
fn read_vision(path: &Path, config: &Config) -> Result<(VitArch, usize)> {
    let positions = config.vision_config.num_patches.unwrap_or(256);
    check_range(path, "vision_config.num_patches", positions, 1 << 16)?;
    let side = positions.isqrt();
    if side * side != positions {
        return Err(ClipError::config(
            path,
            format!("vision_config.num_patches is {positions}, expected a square"),
        ));
    }
    let patch = config.vision_config.patch_size.unwrap_or(16);
    check_range(path, "vision_config.patch_size", patch, 256)?;
    Ok((config.vision(path, side * patch, patch)?, side))
}

/// An image tower in a checkpoint.
struct NaFlexImage {
    checkpoint: Arc<Checkpoint>,
    arch: VitArch,
    /// Of the square of learned positions.
    side: usize,
    precision: Precision,
}

impl BuildImage for NaFlexImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let weights = VitWeights {
            checkpoint: &self.checkpoint,
            prefix: "vision_model.",
            names: &VISION,
            precision: self.precision,
        };
        let network = NaFlexVit::load(device, &weights, &self.arch, self.side)?;
        Ok(ImageTower { network: Box::new(network), head: None })
    }
}
