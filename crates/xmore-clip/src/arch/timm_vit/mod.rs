//! timm's plain vision transformers as image towers of open_clip's models: BiomedCLIP's and MobileCLIP 2's L-14.
//!
//! Reference: timm 1.0, `vision_transformer.py`. The class token is pooled. A name says whether there is a norm before the blocks, and the norms'
//! epsilon, which tensors' shapes do not; so the names of published models alone are read.

use crate::error::Result;
use crate::nn::activation::Activation;

use super::shared::block::BlockForm;
use super::shared::timm::{TIMM_BLOCKS, TIMM_VIT, TimmTower, heads, infer_sizes, open_timm};
use super::shared::vit::{Pool, VitArch};
use super::{Architecture, ImagePart};

/// Its row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "timm-vit",
    summary: "timm's ViT with a class token (BiomedCLIP, MobileCLIP2-L-14): open_clip's folders",
    detect: |found| found.timm_model_name().is_some_and(|name| named(name).is_some()),
    open: |found, options| open_timm(found, options, read_image),
};

/// A model of timm's.
struct Named {
    name: &'static str,
    /// Whether tokens are normalized before the blocks; patches then have no bias.
    norm_pre: bool,
    epsilon: f32,
}

static NAMED: &[Named] = &[
    Named { name: "vit_base_patch16_224", norm_pre: false, epsilon: 1e-6 },
    Named { name: "vit_large_patch14_clip_224", norm_pre: true, epsilon: 1e-5 },
];

fn named(name: &str) -> Option<&'static Named> {
    NAMED.iter().find(|known| known.name == name)
}

fn read_image(tower: &TimmTower<'_>) -> Result<ImagePart> {
    let name = tower.name();
    let (Some(&Named { norm_pre, epsilon, .. }), Some(heads)) = (named(name), heads(name)) else {
        let known = NAMED.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        return Err(tower.error(format!("timm_model_name is {name:?}, expected one of {known}")));
    };
    let (patch, sizes) = infer_sizes(tower.checkpoint, &TIMM_BLOCKS, heads)?;
    let arch = VitArch {
        image_size: tower.image_size()?,
        patch,
        sizes,
        activation: Activation::Gelu,
        epsilon,
        class_token: true,
        norm_pre,
        blocks: BlockForm::CLIP,
        pool: Pool::Class,
    };
    let image = tower.vit(&TIMM_VIT, arch)?;
    tower.expect_own_pool("token")?;
    Ok(image)
}
