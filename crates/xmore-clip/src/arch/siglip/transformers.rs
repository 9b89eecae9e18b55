//! transformers' `config.json` of a `SiglipModel`.
//!
//! Reference: transformers, `configuration_siglip.py`, whose defaults fill what a file leaves out, and `modeling_siglip.py`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::arch::shared::assemble::{Parts, assemble};
use crate::arch::shared::block::BlockForm;
use crate::arch::shared::limits::{check_text, check_vit};
use crate::arch::shared::names::TRANSFORMERS_BLOCKS;
use crate::arch::shared::pool::{AttentionPoolNames, PoolInputNames};
use crate::arch::shared::preprocessor_config::{self, ProcessorKind};
use crate::arch::shared::read_json;
use crate::arch::shared::text::{TRANSFORMERS_TEXT, TextArch, TextPool};
use crate::arch::shared::text_config::OwnText;
use crate::arch::shared::transformers::{TowerConfig, TransformersFolder};
use crate::arch::shared::vit::{Pool, VitArch, VitNames};
use crate::arch::shared::vit_image::VitImage;
use crate::arch::{Opened, TextPart};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::options::LoadOptions;
use crate::tokenizer::{Cleaning, FileTokenizer, Padding, TOKENIZER_FILES, Tokenizer, TokenizerOptions};

use super::EPSILON;

/// Its `model_type`.
pub(super) const MODEL_TYPE: &str = "siglip";

pub(in crate::arch) static VISION: VitNames = VitNames {
    patches: "embeddings.patch_embedding",
    class: "",
    positions: "embeddings.position_embedding.weight",
    norm_pre: "",
    norm_post: "post_layernorm",
    blocks: &TRANSFORMERS_BLOCKS,
    pool: Some(&AttentionPoolNames {
        latent: "head.probe",
        input: PoolInputNames::Fused {
            weight: "head.attention.in_proj_weight",
            bias: "head.attention.in_proj_bias",
        },
        out: "head.attention.out_proj",
        norm: "head.layernorm",
        perceptron: ["head.mlp.fc1", "head.mlp.fc2"],
    }),
};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    vision_config: TowerConfig,
    #[serde(default)]
    text_config: TowerConfig,
}

/// Opens a folder.
pub(super) fn open(dir: PathBuf, options: &LoadOptions) -> Result<Opened> {
    let folder = TransformersFolder::new(dir, options);
    let path = &folder.path;
    let File { vision_config, text_config } = folder.config()?;
    let vision = read_vision(path, &vision_config)?;
    let text = read_text(path, &text_config)?;
    let dim = vision.sizes.width;
    let projected = text_config.projection_size.unwrap_or(text.sizes.width);
    if projected != dim {
        let message = format!("text_config.projection_size is {projected}, expected the image tower's {dim}");
        return Err(ClipError::config(path, message));
    }
    let checkpoint = folder.checkpoint()?;
    let preprocess = preprocessor_config::read_or(path, vision.image_size, ProcessorKind::Siglip)?;
    let image = VitImage {
        checkpoint: Arc::clone(&checkpoint),
        prefix: "vision_model.",
        names: &VISION,
        arch: vision,
        projection: None,
        dim,
        precision: options.precision,
    }
    .part();
    let text = text_part(&folder, &checkpoint, text, dim)?;
    let parts = Parts { dim, preprocess, image, text, config: Some(folder.path) };
    assemble(&checkpoint, parts, options)
}

/// SigLIP's text tower and its tokenizer, of `siglip` and `siglip2`.
pub(in crate::arch) fn text_part(
    folder: &TransformersFolder,
    checkpoint: &Arc<Checkpoint>,
    text: TextArch,
    dim: usize,
) -> Result<TextPart> {
    let own = OwnText {
        checkpoint: Arc::clone(checkpoint),
        prefix: "text_model.".to_owned(),
        names: &TRANSFORMERS_TEXT,
        arch: text,
        projection: Some("text_model.head".to_owned()),
        dim,
        precision: folder.options.precision,
    };
    let tokenizer_options = TokenizerOptions {
        cleaning: folder.options.cleaning.unwrap_or(cleaning(&folder.dir)?),
        padding: Some(Padding::Token),
        ..TokenizerOptions::new(own.arch.context_length)
    };
    let cleaning = tokenizer_options.cleaning;
    let dir = folder.dir.clone();
    let tokenizer = move || -> Result<Box<dyn Tokenizer>> {
        Ok(Box::new(FileTokenizer::open(&dir, &tokenizer_options)?))
    };
    let files = TOKENIZER_FILES.iter().map(|&name| name.to_owned()).collect();
    Ok(own.part(Box::new(tokenizer), Some(cleaning), files))
}

/// What transformers' tokenizer of the folder does to a text: that of SigLIP removes punctuation and lowers the case, that of SigLIP 2 lowers the
/// case alone.
fn cleaning(dir: &Path) -> Result<Cleaning> {
    #[derive(Deserialize)]
    struct File {
        tokenizer_class: Option<String>,
    }
    let path = dir.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(Cleaning::Siglip);
    }
    let File { tokenizer_class } = read_json(&path)?;
    Ok(match tokenizer_class.as_deref() {
        None | Some("SiglipTokenizer") => Cleaning::Siglip,
        _ => Cleaning::LowerCase,
    })
}

fn read_vision(path: &Path, config: &TowerConfig) -> Result<VitArch> {
    config.check_channels(path)?;
    if config.vision_use_head == Some(false) {
        return Err(ClipError::config(path, "vision_config.vision_use_head is false, expected true"));
    }
    let sizes = config.sizes([768, 3072, 12, 12]);
    let arch = VitArch {
        image_size: config.image_size.unwrap_or(224),
        patch: config.patch_size.unwrap_or(16),
        activation: config.activation(path, None, Activation::GeluTanh)?,
        epsilon: config.layer_norm_eps.unwrap_or(EPSILON),
        class_token: false,
        norm_pre: false,
        blocks: BlockForm::CLIP,
        pool: Pool::Attention { heads: sizes.heads, mlp_width: sizes.mlp_width },
        sizes,
    };
    check_vit(path, &arch)?;
    Ok(arch)
}

pub(in crate::arch) fn read_text(path: &Path, config: &TowerConfig) -> Result<TextArch> {
    let arch = TextArch {
        context_length: config.max_position_embeddings.unwrap_or(64),
        vocabulary: config.vocab_size.unwrap_or(32000),
        sizes: config.sizes([768, 3072, 12, 12]),
        activation: config.activation(path, None, Activation::GeluTanh)?,
        epsilon: config.layer_norm_eps.unwrap_or(EPSILON),
        causal: false,
        class_padding: None,
        pool: TextPool::Last,
    };
    check_text(path, &arch)?;
    Ok(arch)
}
