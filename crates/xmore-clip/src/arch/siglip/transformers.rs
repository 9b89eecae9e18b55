//! transformers' `config.json` of a `SiglipModel`.
//!
//! Reference: transformers, `configuration_siglip.py`, whose defaults fill what a file leaves out, and `modeling_siglip.py`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::arch::shared::assemble::{Parts, assemble};
use crate::arch::shared::limits::{check_text, check_vit};
use crate::arch::shared::names::TRANSFORMERS_BLOCKS;
use crate::arch::shared::pool::{AttentionPoolNames, PoolInputNames};
use crate::arch::shared::preprocessor_config::{self, ProcessorKind};
use crate::arch::shared::text::{TRANSFORMERS_TEXT, TextArch, TextPool};
use crate::arch::shared::text_config::OwnText;
use crate::arch::shared::transformers::{TowerConfig, TransformersFolder};
use crate::arch::shared::vit::{VitArch, VitNames};
use crate::arch::shared::vit_image::VitImage;
use crate::arch::{Opened, TextPart};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::options::LoadOptions;
use crate::tokenizer::{Cleaning, Padding, TokenizerOptions, tokenizer_class};

use super::{EPSILON, vision_arch};

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

/// `config.json`, of `siglip` and `siglip2`.
#[derive(Deserialize)]
pub(in crate::arch) struct Config {
    #[serde(default)]
    pub(in crate::arch) vision_config: TowerConfig,
    #[serde(default)]
    text_config: TowerConfig,
}

impl Config {
    /// The image tower, of this size and patch, before its check.
    ///
    /// # Errors
    /// [`ClipError::Config`] for what is not known of it.
    pub(in crate::arch) fn vision(&self, path: &Path, image_size: usize, patch: usize) -> Result<VitArch> {
        let config = &self.vision_config;
        config.check_channels(path)?;
        if config.vision_use_head == Some(false) {
            return Err(ClipError::config(path, "vision_config.vision_use_head is false, expected true"));
        }
        let activation = config.activation(path, None, Activation::GeluTanh)?;
        let epsilon = config.layer_norm_eps.unwrap_or(EPSILON);
        let arch = vision_arch(image_size, patch, config.sizes([768, 3072, 12, 12]), activation, epsilon);
        check_vit(path, &arch)?;
        Ok(arch)
    }

    /// The text tower, for a joint space of `dim`, the image tower's width.
    ///
    /// # Errors
    /// [`ClipError::Config`] for what is not known of it.
    pub(in crate::arch) fn text(&self, path: &Path, dim: usize) -> Result<TextArch> {
        let config = &self.text_config;
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
        let projected = config.projection_size.unwrap_or(arch.sizes.width);
        if projected != dim {
            let message =
                format!("text_config.projection_size is {projected}, expected the image tower's {dim}");
            return Err(ClipError::config(path, message));
        }
        Ok(arch)
    }
}

/// Opens a folder.
pub(super) fn open(dir: PathBuf, options: &LoadOptions) -> Result<Opened> {
    let folder = TransformersFolder::new(dir, options);
    let path = &folder.path;
    let config: Config = folder.config()?;
    let [image_size, patch] = [(config.vision_config.image_size, 224), (config.vision_config.patch_size, 16)]
        .map(|(found, default)| found.unwrap_or(default));
    let vision = config.vision(path, image_size, patch)?;
    let dim = vision.sizes.width;
    let text = config.text(path, dim)?;
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
    let (tokenizer, cleaning, files) = folder.tokenizer(tokenizer_options);
    Ok(own.part(tokenizer, Some(cleaning), files))
}

/// What transformers' tokenizer of the folder does to a text: that of SigLIP removes punctuation and lowers the case, that of SigLIP 2 lowers the
/// case alone.
fn cleaning(dir: &Path) -> Result<Cleaning> {
    Ok(match tokenizer_class(dir)?.as_deref() {
        None | Some("SiglipTokenizer") => Cleaning::Siglip,
        _ => Cleaning::LowerCase,
    })
}
