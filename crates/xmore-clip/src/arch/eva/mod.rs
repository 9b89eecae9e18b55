//! EVA, EVA-02 and Perception Encoder (PE-Core): open_clip's folders with image towers of timm's `Eva`, and CLIP's text tower.
//!
//! References: EVA (arXiv 2211.07636), EVA-02 (arXiv 2303.11331), EVA-CLIP (arXiv 2303.15389), Perception Encoder (arXiv 2504.13181); timm 1.0,
//! `eva.py`.

mod models;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::activation::Activation;

use super::shared::timm::{TRUNK, TimmTower, infer_sizes, open_timm};
use super::shared::vit::{Pool, VitArch};
use super::{Architecture, ImagePart};

/// The row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "eva",
    summary: "EVA, EVA-02 and Perception Encoder (PE-Core): open_clip's folders",
    detect: |found| found.timm_model_name().is_some_and(|name| models::find(name).is_some()),
    open: |found, options| open_timm(found, options, read_image),
};

fn read_image(tower: &TimmTower<'_>) -> Result<ImagePart> {
    let Some(model) = models::find(tower.name()) else { return Err(tower.unknown_name()) };
    let form = model.form;
    tower.expect_pool(if form.pool_heads.is_some() { "map" } else { "token" })?;
    let (patch, sizes) = infer_sizes(tower.checkpoint, form.names.blocks, model.heads)?;
    let image_size = tower.image_size()?;
    let arch = VitArch {
        image_size,
        patch,
        activation: Activation::Gelu,
        epsilon: form.epsilon,
        class_token: model.class_token,
        norm_pre: form.norm_pre,
        blocks: model.blocks(image_size.checked_div(patch).unwrap_or(0)),
        pool: match form.pool_heads {
            None => Pool::Class,
            Some(heads) => Pool::Attention { heads, mlp_width: pool_mlp_width(tower.checkpoint) },
        },
        sizes,
    };
    tower.vit(form.names, arch)
}

/// Width inside the perceptron of attention pooling, by its tensor's shape; 0 where that is missing, which the check of sizes refuses.
fn pool_mlp_width(checkpoint: &Checkpoint) -> usize {
    let shape = checkpoint.shape(&format!("{TRUNK}attn_pool.mlp.fc1.bias"));
    shape.and_then(|shape| shape.first().copied()).unwrap_or(0)
}
