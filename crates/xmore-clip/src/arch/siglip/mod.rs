//! SigLIP and SigLIP 2 of fixed image sizes: open_clip's folders with timm's image towers, and transformers' `SiglipModel`.
//!
//! References: SigLIP (arXiv 2303.15343), SigLIP 2 (arXiv 2502.14786); timm's `vit_*_siglip_*`; transformers' `modeling_siglip.py`. Images
//! are pooled by attention, texts at the last token; the text tower has no causal mask, so that padding is a part of its input.

pub(in crate::arch) mod transformers;

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::nn::precision::Precision;

use super::shared::block::BlockForm;
use super::shared::limits::check_vit;
use super::shared::timm::{TIMM_BLOCKS, TIMM_VIT, TRUNK, TimmCfg, heads, infer_sizes, open_timm};
use super::shared::vit::{Pool, VitArch};
use super::shared::vit_image::VitImage;
use super::{Architecture, ConfigForm, Found, ImagePart};

/// SigLIP's row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "siglip",
    summary: "SigLIP and SigLIP 2 of fixed image sizes: open_clip's and transformers' folders",
    detect: |found| {
        let timm = found.timm_model_name()?.is_some_and(|name| name.contains("_siglip_"));
        Ok(timm || found.model_type()?.as_deref() == Some(transformers::MODEL_TYPE))
    },
    open: |found, options| match found {
        Found::Folder(dir, ConfigForm::Transformers) => transformers::open(dir, options),
        found => open_timm(found, options, read_timm),
    },
};

/// timm's epsilon of layer norms, and SigLIP's.
pub(in crate::arch) const EPSILON: f32 = 1e-6;

fn read_timm(
    path: &Path,
    cfg: &TimmCfg,
    checkpoint: &Arc<Checkpoint>,
    dim: usize,
    precision: Precision,
) -> Result<ImagePart> {
    let name = &cfg.timm_model_name;
    let Some(heads) = heads(name) else {
        return Err(ClipError::config(path, format!("timm_model_name is {name:?}, whose size is not known")));
    };
    cfg.expect_pool(path, "map")?;
    let (patch, sizes) = infer_sizes(checkpoint, &TIMM_BLOCKS, heads)?;
    let mlp_width = sizes.mlp_width;
    let arch = VitArch {
        image_size: cfg.image_size(path)?,
        patch,
        sizes,
        // timm 1.0 builds the largest alone with the approximation that all of SigLIP was trained with.
        activation: if name.contains("giantopt") { Activation::GeluTanh } else { Activation::Gelu },
        epsilon: EPSILON,
        class_token: false,
        norm_pre: false,
        blocks: BlockForm::CLIP,
        pool: Pool::Attention { heads, mlp_width },
    };
    check_vit(path, &arch)?;
    Ok(VitImage {
        checkpoint: Arc::clone(checkpoint),
        prefix: TRUNK,
        names: &TIMM_VIT,
        projection: cfg.projection(path, arch.sizes.width, dim)?,
        arch,
        dim,
        precision,
    }
    .part())
}
