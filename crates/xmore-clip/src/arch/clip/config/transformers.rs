//! transformers' `config.json` of a `CLIPModel` or `MetaClip2Model`, which is CLIP with another end token.
//!
//! Reference: transformers, `configuration_clip.py` and `configuration_metaclip_2.py`, whose defaults fill what a file leaves out.

use crate::arch::shared::limits::check_text;
use crate::arch::shared::open_clip::LAYER_NORM_EPSILON;
use crate::arch::shared::preprocessor_config;
use crate::arch::shared::text::{TextArch, TextPool};
use crate::arch::shared::transformers::{ClipConfig, TransformersFolder};
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;

use super::{ClipArch, VisionArch};

/// Reads `config.json` and, where there is one, the preprocessor's file beside it.
pub(crate) fn read_transformers(folder: &TransformersFolder) -> Result<ClipArch> {
    let (path, quick_gelu) = (&folder.path, folder.options.quick_gelu);
    let file: ClipConfig = folder.config()?;
    let (vision, text) = (&file.vision_config, &file.text_config);
    let pool = match file.model_type.as_deref() {
        // Files of its first years name another end token than the one that texts have, whose id is the largest.
        Some("clip") => TextPool::Largest,
        Some("metaclip_2") => TextPool::Id(text.eos_token_id.unwrap_or(49407)),
        other => {
            let message =
                format!("model_type is {:?}, expected \"clip\" or \"metaclip_2\"", other.unwrap_or_default());
            return Err(ClipError::config(path, message));
        }
    };
    let vision = vision.clip_vision(path, quick_gelu)?;
    let arch = ClipArch {
        dim: file.projection_dim,
        preprocess: preprocessor_config::read(path, vision.image_size)?,
        vision: VisionArch::Vit(vision),
        text: TextArch {
            context_length: text.max_position_embeddings.unwrap_or(77),
            vocabulary: text.vocab_size.unwrap_or(49408),
            sizes: text.sizes([512, 2048, 12, 8]),
            activation: text.activation(path, quick_gelu, Activation::QuickGelu)?,
            epsilon: text.layer_norm_eps.unwrap_or(LAYER_NORM_EPSILON),
            causal: true,
            class_padding: None,
            pool,
        },
    };
    arch.vision.check(path)?;
    check_text(path, &arch.text)?;
    Ok(arch)
}
