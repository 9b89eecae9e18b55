//! The image tower of `open_clip_config.json`, as open_clip writes it for its own architectures.
//!
//! Reference: open_clip 3.3, `CLIPVisionCfg` in `model.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::block::BlockForm;
use crate::arch::shared::open_clip::{NormKwargs, OpenClipFolder, Side, epsilon, mlp_width, refuse_unknown};
use crate::arch::shared::query_pool::QueryPoolArch;
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::vit::{Pool, VitArch};
use crate::error::{ClipError, Result};

use super::{ResNetArch, VisionArch};

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
    norm_kwargs: Option<NormKwargs>,
    #[serde(default)]
    no_ln_pre: bool,
    #[serde(default)]
    pool_type: PoolType,
    #[serde(default)]
    final_ln_after_pool: bool,
    attentional_pool: Option<Value>,
    attn_pooler_queries: Option<usize>,
    attn_pooler_heads: Option<usize>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected one number, or the four of a ResNet")]
enum Layers {
    Transformer(usize),
    ResNet([usize; 4]),
}

#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum PoolType {
    #[default]
    Tok,
    Avg,
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

/// Keys that change nothing at inference, or nothing that is computed here, whatever their value.
const HARMLESS: &[&str] = &[
    "patch_dropout",
    "output_tokens",
    "pos_embed_type",
    "block_type",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
];

/// Reads `vision_cfg`.
pub(crate) fn read_vision(folder: &OpenClipFolder) -> Result<VisionArch> {
    let cfg: VisionCfg = folder.vision()?;
    let path = &folder.path;
    refuse_unknown(path, "vision_cfg", &cfg.rest, HARMLESS)?;
    for (key, expected) in [("pos_embed_type", "learnable"), ("block_type", "default")] {
        if let Some(value) = cfg.rest.get(key).filter(|value| **value != expected && !value.is_null()) {
            let message = format!("vision_cfg asks for `{key}` = {value}, expected {expected:?}");
            return Err(ClipError::config(path, message));
        }
    }
    let by_query = match &cfg.attentional_pool {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(other) => {
            let message = format!("vision_cfg asks for `attentional_pool` = {other}, expected true or false");
            return Err(ClipError::config(path, message));
        }
    };
    let image_size = cfg.image_size.of_square(path)?;
    let heads = |width: usize| width.checked_div(cfg.head_width).unwrap_or(0);
    let vision = match cfg.layers {
        Layers::ResNet(layers) => VisionArch::ResNet(ResNetArch {
            image_size,
            layers,
            width: cfg.width,
            heads: heads(cfg.width.saturating_mul(32)),
        }),
        Layers::Transformer(layers) => VisionArch::Vit(VitArch {
            image_size,
            patch: cfg.patch_size.unwrap_or(16),
            sizes: TransformerSizes {
                width: cfg.width,
                heads: heads(cfg.width),
                layers,
                mlp_width: mlp_width(cfg.width, cfg.mlp_ratio),
            },
            activation: folder.activation,
            epsilon: epsilon(cfg.norm_kwargs),
            class_token: true,
            norm_pre: !cfg.no_ln_pre,
            blocks: BlockForm::CLIP,
            pool: match (cfg.pool_type, cfg.final_ln_after_pool) {
                (PoolType::Tok, _) if by_query => Pool::Query(QueryPoolArch {
                    queries: cfg.attn_pooler_queries.unwrap_or(256),
                    heads: cfg.attn_pooler_heads.unwrap_or(8),
                    width: folder.dim,
                }),
                (PoolType::Avg, _) if by_query => {
                    let message =
                        "vision_cfg asks for `pool_type` = \"avg\" with `attentional_pool`, expected \"tok\"";
                    return Err(ClipError::config(path, message));
                }
                // A norm of one row is the same before the class token is picked and after.
                (PoolType::Tok, _) => Pool::Class,
                (PoolType::Avg, true) => Pool::Mean,
                (PoolType::Avg, false) => {
                    let message = "vision_cfg asks for `pool_type` = \"avg\" without `final_ln_after_pool`, which is not supported";
                    return Err(ClipError::config(path, message));
                }
            },
        }),
    };
    vision.check(path)?;
    Ok(vision)
}
