//! `open_clip_config.json`, as open_clip writes it for its own CLIP architectures.
//!
//! Reference: open_clip 3.3, `CLIPVisionCfg` and `CLIPTextCfg` in `model.py`. A key that changes the numbers and is not known here is
//! refused by name, so that no model gives wrong numbers without an error.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::read_json;
use crate::arch::shared::transformer::TransformerSizes;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::preprocess::PreprocessConfig;

use super::{ClipArch, LAYER_NORM_EPSILON, ResNetArch, TextArch, VisionArch, VitArch};

#[derive(Deserialize)]
struct File {
    model_cfg: ModelCfg,
    #[serde(default)]
    preprocess_cfg: PreprocessConfig,
}

#[derive(Deserialize)]
struct ModelCfg {
    embed_dim: usize,
    vision_cfg: VisionCfg,
    text_cfg: TextCfg,
    #[serde(default)]
    quick_gelu: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct VisionCfg {
    #[serde(default = "default_layers")]
    layers: Layers,
    #[serde(default = "default_width")]
    width: usize,
    #[serde(default = "default_head_width")]
    head_width: usize,
    #[serde(default = "default_mlp_ratio")]
    mlp_ratio: f64,
    patch_size: Option<usize>,
    #[serde(default = "default_image_size")]
    image_size: Side,
    #[serde(default)]
    norm_kwargs: Option<NormKwargs>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    Transformer(usize),
    ResNet([usize; 4]),
}

/// One number, or a square's two.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Side {
    One(usize),
    Two([usize; 2]),
}

#[derive(Deserialize)]
struct TextCfg {
    #[serde(default = "default_context_length")]
    context_length: usize,
    #[serde(default = "default_vocabulary")]
    vocab_size: usize,
    #[serde(default = "default_text_width")]
    width: usize,
    #[serde(default = "default_text_heads")]
    heads: usize,
    #[serde(default = "default_text_layers")]
    layers: usize,
    #[serde(default = "default_mlp_ratio")]
    mlp_ratio: f64,
    #[serde(default)]
    norm_kwargs: Option<NormKwargs>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NormKwargs {
    #[serde(default = "default_epsilon")]
    eps: f32,
}

fn default_layers() -> Layers {
    Layers::Transformer(12)
}
fn default_width() -> usize {
    768
}
fn default_head_width() -> usize {
    64
}
fn default_mlp_ratio() -> f64 {
    4.0
}
fn default_image_size() -> Side {
    Side::One(224)
}
fn default_context_length() -> usize {
    77
}
fn default_vocabulary() -> usize {
    49408
}
fn default_text_width() -> usize {
    512
}
fn default_text_heads() -> usize {
    8
}
fn default_text_layers() -> usize {
    12
}
fn default_epsilon() -> f32 {
    LAYER_NORM_EPSILON
}

/// Keys that change nothing at inference, or nothing that is computed here, whatever their value.
const HARMLESS: &[&str] = &[
    "patch_dropout",
    "output_tokens",
    "output_dict",
    "init_logit_scale",
    "nonscalar_logit_scale",
    "custom_text",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "pad_id",
    "eos_id",
    "hf_tokenizer_name",
    "tokenizer_mode",
    "cast_dtype",
];

/// Keys whose only supported value is open_clip's default.
const DEFAULTS: &[(&str, &[&str])] = &[
    ("pool_type", &["tok", "argmax"]),
    ("pos_embed_type", &["learnable"]),
    ("block_type", &["default"]),
    ("proj_type", &["linear"]),
];

/// Reads the file; `quick_gelu` overrides what it says of the activation.
pub(crate) fn read_open_clip(path: &Path, quick_gelu: Option<bool>) -> Result<ClipArch> {
    let File { model_cfg, preprocess_cfg } = read_json(path)?;
    let ModelCfg { embed_dim, vision_cfg, text_cfg, quick_gelu: written, rest } = model_cfg;
    for (place, rest) in
        [("model_cfg", &rest), ("vision_cfg", &vision_cfg.rest), ("text_cfg", &text_cfg.rest)]
    {
        refuse_unknown(path, place, rest)?;
    }
    let activation = if quick_gelu.unwrap_or(written) { Activation::QuickGelu } else { Activation::Gelu };
    let epsilon = |norm: &Option<NormKwargs>| norm.as_ref().map_or(LAYER_NORM_EPSILON, |norm| norm.eps);
    let image_size = match vision_cfg.image_size {
        Side::One(n) => n,
        Side::Two([h, w]) if h == w => h,
        Side::Two(sides) => {
            return Err(ClipError::config(path, format!("image_size is {sides:?}, expected a square")));
        }
    };
    let heads = (vision_cfg.width * if matches!(vision_cfg.layers, Layers::ResNet(_)) { 32 } else { 1 })
        .checked_div(vision_cfg.head_width)
        .unwrap_or(0);
    let vision = match vision_cfg.layers {
        Layers::ResNet(layers) => {
            VisionArch::ResNet(ResNetArch { image_size, layers, width: vision_cfg.width, heads })
        }
        Layers::Transformer(layers) => VisionArch::Vit(VitArch {
            image_size,
            patch: vision_cfg.patch_size.unwrap_or(16),
            sizes: TransformerSizes {
                width: vision_cfg.width,
                heads,
                layers,
                mlp_width: mlp_width(vision_cfg.width, vision_cfg.mlp_ratio),
            },
            activation,
            epsilon: epsilon(&vision_cfg.norm_kwargs),
        }),
    };
    let text = TextArch {
        context_length: text_cfg.context_length,
        vocabulary: text_cfg.vocab_size,
        sizes: TransformerSizes {
            width: text_cfg.width,
            heads: text_cfg.heads,
            layers: text_cfg.layers,
            mlp_width: mlp_width(text_cfg.width, text_cfg.mlp_ratio),
        },
        activation,
        epsilon: epsilon(&text_cfg.norm_kwargs),
    };
    let arch = ClipArch { dim: embed_dim, vision, text, preprocess: preprocess_cfg };
    arch.check(path)?;
    Ok(arch)
}

/// Python's `int(width * ratio)`.
fn mlp_width(width: usize, ratio: f64) -> usize {
    (width as f64 * ratio) as usize
}

fn refuse_unknown(path: &Path, place: &str, rest: &Map<String, Value>) -> Result<()> {
    for (key, value) in rest {
        let off = matches!(value, Value::Null | Value::Bool(false));
        let default = DEFAULTS
            .iter()
            .any(|(name, values)| name == key && value.as_str().is_some_and(|v| values.contains(&v)));
        if off || default || HARMLESS.contains(&key.as_str()) {
            continue;
        }
        return Err(ClipError::config(
            path,
            format!(
                "{place} asks for `{key}` = {value}, which is not supported: only CLIP's own ViT, ResNet and text \
                 towers are"
            ),
        ));
    }
    Ok(())
}
