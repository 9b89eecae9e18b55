//! SigLIP and SigLIP 2 of fixed image sizes: open_clip's folders with timm's image towers, and transformers' `SiglipModel`.
//!
//! References: SigLIP (arXiv 2303.15343), SigLIP 2 (arXiv 2502.14786); timm's `vit_*_siglip_*`; transformers' `modeling_siglip.py`. Images
//! are pooled by attention, texts at the last token; the text tower has no causal mask, so that padding is a part of its input.

pub(in crate::arch) mod transformers;

use crate::error::Result;
use crate::nn::activation::Activation;

use super::shared::block::BlockForm;
use super::shared::timm::{TIMM_BLOCKS, TIMM_VIT, TimmTower, heads, infer_sizes, open_timm};
use super::shared::transformer::TransformerSizes;
use super::shared::vit::{Pool, VitArch};
use super::{Architecture, ConfigForm, Found, ImagePart};

/// SigLIP's row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "siglip",
    summary: "SigLIP and SigLIP 2 of fixed image sizes: open_clip's and transformers' folders",
    detect: |found| {
        found.timm_model_name().is_some_and(|name| name.contains("_siglip_"))
            || found.model_type() == Some(transformers::MODEL_TYPE)
    },
    open: |found, options| match found {
        Found::Folder { dir, form: ConfigForm::Transformers, .. } => transformers::open(dir, options),
        found => open_timm(found, options, read_timm),
    },
};

/// timm's epsilon of layer norms, and SigLIP's.
const EPSILON: f32 = 1e-6;

fn read_timm(tower: &TimmTower<'_>) -> Result<ImagePart> {
    let name = tower.name();
    let Some(heads) = heads(name) else {
        return Err(tower.error(format!("timm_model_name is {name:?}, whose size is not known")));
    };
    tower.expect_pool("map")?;
    let (patch, sizes) = infer_sizes(tower.checkpoint, &TIMM_BLOCKS, heads)?;
    // timm 1.0 builds the largest alone with the approximation that all of SigLIP was trained with.
    let activation = if name.contains("giantopt") { Activation::GeluTanh } else { Activation::Gelu };
    tower.vit(&TIMM_VIT, vision_arch(tower.image_size()?, patch, sizes, activation, EPSILON))
}

/// SigLIP's image tower: no class token, attention pooling of as many heads and the same inner width as the blocks.
pub(in crate::arch) fn vision_arch(
    image_size: usize,
    patch: usize,
    sizes: TransformerSizes,
    activation: Activation,
    epsilon: f32,
) -> VitArch {
    VitArch {
        image_size,
        patch,
        sizes,
        activation,
        epsilon,
        class_token: false,
        norm_pre: false,
        blocks: BlockForm::CLIP,
        pool: Pool::Attention { heads: sizes.heads, mlp_width: sizes.mlp_width },
    }
}
