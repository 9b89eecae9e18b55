//! transformers' `config.json` of a `CLIPModel`.
//!
//! Reference: transformers, `configuration_clip.py`, whose defaults fill what a file leaves out.

use std::path::Path;

use serde::Deserialize;

use crate::arch::shared::preprocessor_config;
use crate::arch::shared::read_json;
use crate::arch::shared::transformer::TransformerSizes;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;

use super::{ClipArch, LAYER_NORM_EPSILON, TextArch, VisionArch, VitArch};

#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    #[serde(default = "default_dim")]
    projection_dim: usize,
    #[serde(default)]
    vision_config: Tower,
    #[serde(default)]
    text_config: Tower,
}

/// Both towers' keys; each has its own defaults.
#[derive(Default, Deserialize)]
struct Tower {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    num_channels: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
}

fn default_dim() -> usize {
    512
}

impl Tower {
    fn sizes(&self, [width, mlp_width, layers, heads]: [usize; 4]) -> TransformerSizes {
        TransformerSizes {
            width: self.hidden_size.unwrap_or(width),
            heads: self.num_attention_heads.unwrap_or(heads),
            layers: self.num_hidden_layers.unwrap_or(layers),
            mlp_width: self.intermediate_size.unwrap_or(mlp_width),
        }
    }

    fn activation(&self, path: &Path, quick_gelu: Option<bool>) -> Result<Activation> {
        match (quick_gelu, self.hidden_act.as_deref()) {
            (Some(true), _) | (None, None | Some("quick_gelu")) => Ok(Activation::QuickGelu),
            (Some(false), _) | (None, Some("gelu")) => Ok(Activation::Gelu),
            (None, Some(other)) => {
                let message = format!("hidden_act is {other:?}, expected \"quick_gelu\" or \"gelu\"");
                Err(ClipError::config(path, message))
            }
        }
    }
}

/// Reads `config.json` and, where there is one, the preprocessor's file beside it; `quick_gelu` overrides `hidden_act`.
pub(crate) fn read_transformers(path: &Path, quick_gelu: Option<bool>) -> Result<ClipArch> {
    let file: File = read_json(path)?;
    if file.model_type.as_deref() != Some("clip") {
        let message = format!("model_type is {:?}, expected \"clip\"", file.model_type.unwrap_or_default());
        return Err(ClipError::config(path, message));
    }
    let (vision, text) = (&file.vision_config, &file.text_config);
    if vision.num_channels.is_some_and(|n| n != 3) {
        return Err(ClipError::config(path, "num_channels is not 3"));
    }
    let image_size = vision.image_size.unwrap_or(224);
    let arch = ClipArch {
        dim: file.projection_dim,
        vision: VisionArch::Vit(VitArch {
            image_size,
            patch: vision.patch_size.unwrap_or(32),
            sizes: vision.sizes([768, 3072, 12, 12]),
            activation: vision.activation(path, quick_gelu)?,
            epsilon: vision.layer_norm_eps.unwrap_or(LAYER_NORM_EPSILON),
        }),
        text: TextArch {
            context_length: text.max_position_embeddings.unwrap_or(77),
            vocabulary: text.vocab_size.unwrap_or(49408),
            sizes: text.sizes([512, 2048, 12, 8]),
            activation: text.activation(path, quick_gelu)?,
            epsilon: text.layer_norm_eps.unwrap_or(LAYER_NORM_EPSILON),
        },
        preprocess: preprocessor_config::read(path, image_size)?,
    };
    arch.check(path)?;
    Ok(arch)
}
