//! transformers' `config.json` of a `CLIPModel`.
//!
//! Reference: transformers, `configuration_clip.py`, whose defaults fill what a file leaves out.

use serde::Deserialize;

use crate::arch::shared::block::BlockForm;
use crate::arch::shared::limits::check_text;
use crate::arch::shared::open_clip::LAYER_NORM_EPSILON;
use crate::arch::shared::preprocessor_config;
use crate::arch::shared::text::{TextArch, TextPool};
use crate::arch::shared::transformers::{TowerConfig, TransformersFolder};
use crate::arch::shared::vit::{Pool, VitArch};
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;

use super::{ClipArch, VisionArch};

#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    #[serde(default = "default_dim")]
    projection_dim: usize,
    #[serde(default)]
    vision_config: TowerConfig,
    #[serde(default)]
    text_config: TowerConfig,
}

fn default_dim() -> usize {
    512
}

/// Reads `config.json` and, where there is one, the preprocessor's file beside it.
pub(crate) fn read_transformers(folder: &TransformersFolder) -> Result<ClipArch> {
    let (path, quick_gelu) = (&folder.path, folder.options.quick_gelu);
    let file: File = folder.config()?;
    if file.model_type.as_deref() != Some("clip") {
        let message = format!("model_type is {:?}, expected \"clip\"", file.model_type.unwrap_or_default());
        return Err(ClipError::config(path, message));
    }
    let (vision, text) = (&file.vision_config, &file.text_config);
    vision.check_channels(path)?;
    let image_size = vision.image_size.unwrap_or(224);
    let arch = ClipArch {
        dim: file.projection_dim,
        vision: VisionArch::Vit(VitArch {
            image_size,
            patch: vision.patch_size.unwrap_or(32),
            sizes: vision.sizes([768, 3072, 12, 12]),
            activation: vision.activation(path, quick_gelu, Activation::QuickGelu)?,
            epsilon: vision.layer_norm_eps.unwrap_or(LAYER_NORM_EPSILON),
            class_token: true,
            norm_pre: true,
            blocks: BlockForm::CLIP,
            pool: Pool::Class,
        }),
        text: TextArch {
            context_length: text.max_position_embeddings.unwrap_or(77),
            vocabulary: text.vocab_size.unwrap_or(49408),
            sizes: text.sizes([512, 2048, 12, 8]),
            activation: text.activation(path, quick_gelu, Activation::QuickGelu)?,
            epsilon: text.layer_norm_eps.unwrap_or(LAYER_NORM_EPSILON),
            causal: true,
            pool: TextPool::Largest,
        },
        preprocess: preprocessor_config::read(path, image_size)?,
    };
    arch.vision.check(path)?;
    check_text(path, &arch.text)?;
    Ok(arch)
}
