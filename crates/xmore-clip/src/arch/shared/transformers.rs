//! A folder as transformers saves models: `config.json` and a checkpoint, perhaps in several files.
//!
//! Reference: transformers 5, `configuration_clip.py` and its successors'. Each family has defaults of its own for what a file leaves out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::arch::shared::assemble::open_weights;
use crate::arch::shared::block::BlockForm;
use crate::arch::shared::names::TRANSFORMERS_BLOCKS;
use crate::arch::shared::open_clip::LAYER_NORM_EPSILON;
use crate::arch::shared::read_json;
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::vit::{Pool, VitArch, VitNames};
use crate::arch::{TRANSFORMERS_CONFIG, TokenizerLoader};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::options::LoadOptions;
use crate::tokenizer::{Cleaning, FileTokenizer, TOKENIZER_FILES, TokenizerOptions};

/// Weights in such a folder, in order of preference.
const WEIGHTS: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The folder.
pub(crate) struct TransformersFolder {
    pub(crate) dir: PathBuf,
    /// The configuration.
    pub(crate) path: PathBuf,
    pub(crate) options: LoadOptions,
}

impl TransformersFolder {
    pub(crate) fn new(dir: PathBuf, options: &LoadOptions) -> Self {
        Self { path: dir.join(TRANSFORMERS_CONFIG), dir, options: options.clone() }
    }

    /// The configuration as a family's own type.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn config<T: DeserializeOwned>(&self) -> Result<T> {
        read_json(&self.path)
    }

    /// The checkpoint.
    ///
    /// # Errors
    /// [`ClipError::MissingFile`] if there is none; those of [`Checkpoint::open`].
    pub(crate) fn checkpoint(&self) -> Result<Arc<Checkpoint>> {
        open_weights(&self.dir, WEIGHTS).map(Arc::new)
    }

    /// The folder's tokenizer, what is done to a text before it, and the files that it may be read from.
    pub(crate) fn tokenizer(&self, options: TokenizerOptions) -> (TokenizerLoader, Cleaning, Vec<String>) {
        let (dir, cleaning) = (self.dir.clone(), options.cleaning);
        let load: TokenizerLoader = Box::new(move || Ok(Box::new(FileTokenizer::open(&dir, &options)?)));
        (load, cleaning, TOKENIZER_FILES.map(str::to_owned).to_vec())
    }
}

/// CLIP's image tower.
pub(crate) static CLIP_VISION: VitNames = VitNames {
    patches: "embeddings.patch_embedding",
    class: "embeddings.class_embedding",
    positions: "embeddings.position_embedding.weight",
    norm_pre: "pre_layrnorm",
    norm_post: "post_layernorm",
    blocks: &TRANSFORMERS_BLOCKS,
    pool: None,
};

/// `config.json` of CLIP and its successors with projections of both towers.
#[derive(Deserialize)]
pub(crate) struct ClipConfig {
    pub(crate) model_type: Option<String>,
    /// Length of the joint embedding.
    #[serde(default = "default_projection_dim")]
    pub(crate) projection_dim: usize,
    #[serde(default)]
    pub(crate) vision_config: TowerConfig,
    #[serde(default)]
    pub(crate) text_config: TowerConfig,
}

fn default_projection_dim() -> usize {
    512
}

/// The keys of either tower.
#[derive(Default, Deserialize)]
pub(crate) struct TowerConfig {
    pub(crate) model_type: Option<String>,
    pub(crate) hidden_size: Option<usize>,
    pub(crate) intermediate_size: Option<usize>,
    pub(crate) num_hidden_layers: Option<usize>,
    pub(crate) num_attention_heads: Option<usize>,
    pub(crate) hidden_act: Option<String>,
    pub(crate) layer_norm_eps: Option<f32>,
    pub(crate) image_size: Option<usize>,
    pub(crate) patch_size: Option<usize>,
    pub(crate) num_channels: Option<usize>,
    pub(crate) vocab_size: Option<usize>,
    pub(crate) max_position_embeddings: Option<usize>,
    pub(crate) projection_size: Option<usize>,
    pub(crate) eos_token_id: Option<u32>,
    pub(crate) pad_token_id: Option<u32>,
    pub(crate) type_vocab_size: Option<usize>,
    pub(crate) position_embedding_type: Option<String>,
    pub(crate) vision_use_head: Option<bool>,
    /// Of towers that take pictures of any aspect: how many positions are learned.
    pub(crate) num_patches: Option<usize>,
}

impl TowerConfig {
    /// The sizes; `defaults` are width, inner width, layers, heads.
    pub(crate) fn sizes(&self, [width, mlp_width, layers, heads]: [usize; 4]) -> TransformerSizes {
        TransformerSizes {
            width: self.hidden_size.unwrap_or(width),
            heads: self.num_attention_heads.unwrap_or(heads),
            layers: self.num_hidden_layers.unwrap_or(layers),
            mlp_width: self.intermediate_size.unwrap_or(mlp_width),
        }
    }

    /// CLIP's image tower, which its successors have too; not checked yet. `quick_gelu` overrides the activation.
    ///
    /// # Errors
    /// [`ClipError::Config`] for what is not known of it.
    pub(crate) fn clip_vision(&self, path: &Path, quick_gelu: Option<bool>) -> Result<VitArch> {
        self.check_channels(path)?;
        Ok(VitArch {
            image_size: self.image_size.unwrap_or(224),
            patch: self.patch_size.unwrap_or(32),
            sizes: self.sizes([768, 3072, 12, 12]),
            activation: self.activation(path, quick_gelu, Activation::QuickGelu)?,
            epsilon: self.layer_norm_eps.unwrap_or(LAYER_NORM_EPSILON),
            class_token: true,
            norm_pre: true,
            blocks: BlockForm::CLIP,
            pool: Pool::Class,
        })
    }

    /// `hidden_act`; `quick_gelu` overrides it.
    ///
    /// # Errors
    /// [`ClipError::Config`] for one that is not known.
    pub(crate) fn activation(
        &self,
        path: &Path,
        quick_gelu: Option<bool>,
        default: Activation,
    ) -> Result<Activation> {
        /// transformers' names.
        const NAMES: [(&str, Activation); 3] = [
            ("quick_gelu", Activation::QuickGelu),
            ("gelu", Activation::Gelu),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
        ];
        if let Some(quick) = quick_gelu {
            return Ok(if quick { Activation::QuickGelu } else { Activation::Gelu });
        }
        let Some(name) = self.hidden_act.as_deref() else { return Ok(default) };
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some(&(_, activation)) => Ok(activation),
            None => {
                let known = NAMES.map(|(known, _)| format!("{known:?}")).join(", ");
                Err(ClipError::config(path, format!("hidden_act is {name:?}, expected one of {known}")))
            }
        }
    }

    /// Refuses images of another number of channels than 3.
    ///
    /// # Errors
    /// [`ClipError::Config`].
    pub(crate) fn check_channels(&self, path: &Path) -> Result<()> {
        match self.num_channels {
            None | Some(3) => Ok(()),
            Some(n) => Err(ClipError::config(path, format!("num_channels is {n}, expected 3"))),
        }
    }
}
