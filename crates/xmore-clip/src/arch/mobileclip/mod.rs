//! MobileCLIP-B and MobileCLIP2-B: open_clip's folders with timm's vision transformer behind three convolutions.
//!
//! References: MobileCLIP (arXiv 2311.17049), MobileCLIP2 (arXiv 2508.20691); timm 1.0, `vit_base_mci_224` in `vision_transformer_hybrid.py`. The
//! models whose image tower is a FastViT are an architecture of their own.

mod network;

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, Device, ImageTower, Operation};
use crate::error::Result;
use crate::nn::precision::Precision;

use super::shared::limits::{check_range, check_sizes};
use super::shared::names::{Blocks, projection};
use super::shared::timm::{TIMM_BLOCKS, TRUNK, TimmTower, heads, open_timm};
use super::shared::transformer::TransformerSizes;
use super::{Architecture, ImagePart};
use network::{MobileClipArch, MobileClipVit, PATCH};

/// The row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "mobileclip",
    summary: "MobileCLIP-B and MobileCLIP2-B: open_clip's folders",
    detect: |found| found.timm_model_name().is_some_and(|name| name == MODEL_NAME),
    open: |found, options| open_timm(found, options, read_image),
};

/// timm's name of the image tower.
const MODEL_NAME: &str = "vit_base_mci_224";

fn read_image(tower: &TimmTower<'_>) -> Result<ImagePart> {
    tower.expect_pool("token")?;
    let (path, checkpoint) = (tower.path, tower.checkpoint);
    let size = |name: &str| {
        let shape = checkpoint.shape(&format!("{TRUNK}{name}"));
        // Zeros for what is missing, which the checks of sizes refuse.
        shape.and_then(|shape| shape.first().copied()).unwrap_or(0)
    };
    let blocks = Blocks::new(checkpoint, TRUNK, &TIMM_BLOCKS, tower.precision);
    let arch = MobileClipArch {
        image_size: tower.image_size()?,
        stem_width: size("patch_embed.backbone.0.conv.weight"),
        sizes: TransformerSizes {
            width: size("norm.weight"),
            heads: heads(MODEL_NAME).unwrap_or(0),
            layers: blocks.count(),
            mlp_width: blocks.mlp_width(0).unwrap_or(0),
        },
    };
    check_sizes("image", &arch.sizes, path)?;
    check_range(path, "the image size", arch.image_size, 4096)?;
    check_range(path, "the patch size", PATCH, arch.image_size)?;
    check_range(path, "the channels of the first convolution", arch.stem_width, 1 << 14)?;
    let TransformerSizes { width, layers, .. } = arch.sizes;
    Ok(ImagePart {
        description: format!("ViT behind convolutions, {layers} layers of {width}, patch {PATCH}, GELU"),
        image_size: arch.image_size,
        operations: vec![Operation::ClassBeforeMaps],
        loader: Box::new(MobileClipImage {
            checkpoint: Arc::clone(checkpoint),
            projection: tower.projection(width)?,
            arch,
            dim: tower.dim,
            precision: tower.precision,
        }),
    })
}

/// The image tower in a checkpoint.
struct MobileClipImage {
    checkpoint: Arc<Checkpoint>,
    arch: MobileClipArch,
    /// Name of the projection, where there is one.
    projection: Option<String>,
    dim: usize,
    precision: Precision,
}

impl BuildImage for MobileClipImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let Self { checkpoint, arch, projection: name, dim, precision } = self;
        let head = match name {
            Some(name) => Some(projection(device, checkpoint, name, arch.sizes.width, *dim)?),
            None => None,
        };
        let network = MobileClipVit::load(device, checkpoint, arch, *precision)?;
        Ok(ImageTower { network: Box::new(network), head })
    }
}
