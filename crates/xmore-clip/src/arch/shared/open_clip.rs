//! A folder as open_clip publishes models: `open_clip_config.json` and one checkpoint.
//!
//! Reference: open_clip 3.3, `factory.py` and `model.py`. The configuration names an image tower and a text tower, of any pair; each is read by
//! its own code. A key that changes the numbers and is not known is refused by name, so that no model gives wrong numbers without an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::arch::shared::assemble::{Parts, assemble, open_weights};
use crate::arch::shared::read_json;
use crate::arch::shared::text_config::{check_open_clip_text, read_open_clip_text};
use crate::arch::{CONFIG_FILE, ImagePart, Opened};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::json;
use crate::nn::activation::Activation;
use crate::options::LoadOptions;
use crate::preprocess::PreprocessConfig;

/// Weights in such a folder, in order of preference.
const WEIGHTS: &[&str] = &[
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_model.safetensors.index.json",
];

#[derive(Deserialize)]
struct File {
    model_cfg: ModelCfg,
    #[serde(default)]
    preprocess_cfg: PreprocessConfig,
}

#[derive(Deserialize)]
struct ModelCfg {
    embed_dim: usize,
    vision_cfg: Map<String, Value>,
    text_cfg: Map<String, Value>,
    #[serde(default)]
    quick_gelu: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The folder, its configuration read and its checkpoint's header.
pub(crate) struct OpenClipFolder {
    pub(crate) dir: PathBuf,
    /// The configuration.
    pub(crate) path: PathBuf,
    /// Length of the joint embedding.
    pub(crate) dim: usize,
    vision: Map<String, Value>,
    text: Map<String, Value>,
    /// Of open_clip's own towers.
    pub(crate) activation: Activation,
    preprocess: PreprocessConfig,
    pub(crate) options: LoadOptions,
}

/// Keys of `model_cfg` that change nothing at inference, or describe CoCa's captioning decoder, which is not read.
const HARMLESS: &[&str] = &[
    "init_logit_scale",
    "init_logit_bias",
    "nonscalar_logit_scale",
    "custom_text",
    "cast_dtype",
    "output_dict",
    "multimodal_cfg",
];

impl OpenClipFolder {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Those of reading it, and [`ClipError::Config`] for a key that is not known.
    pub(crate) fn read(dir: PathBuf, options: &LoadOptions) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        let File { model_cfg, preprocess_cfg } = read_json(&path)?;
        let ModelCfg { embed_dim, vision_cfg, text_cfg, quick_gelu, rest } = model_cfg;
        refuse_unknown(&path, "model_cfg", &rest, HARMLESS)?;
        let quick_gelu = options.quick_gelu.unwrap_or(quick_gelu);
        Ok(Self {
            dir,
            path,
            dim: embed_dim,
            vision: vision_cfg,
            text: text_cfg,
            activation: if quick_gelu { Activation::QuickGelu } else { Activation::Gelu },
            preprocess: preprocess_cfg,
            options: options.clone(),
        })
    }

    /// `vision_cfg` as a tower's own type, which gathers what it does not know in a flattened map.
    pub(crate) fn vision<T: DeserializeOwned>(&self) -> Result<T> {
        json::typed(&self.path, "model_cfg.vision_cfg", &self.vision)
    }

    /// `text_cfg` likewise.
    pub(crate) fn text<T: DeserializeOwned>(&self) -> Result<T> {
        json::typed(&self.path, "model_cfg.text_cfg", &self.text)
    }

    /// Whether `text_cfg` has this key with a value.
    pub(crate) fn text_has(&self, key: &str) -> bool {
        self.text.get(key).is_some_and(|value| !value.is_null())
    }

    /// The checkpoint. The text tower's configuration is checked before it.
    ///
    /// # Errors
    /// [`ClipError::Config`] for a text tower that is not known, [`ClipError::MissingFile`] if there is no checkpoint; those of [`Checkpoint::open`].
    pub(crate) fn checkpoint(&self) -> Result<Arc<Checkpoint>> {
        check_open_clip_text(self)?;
        open_weights(&self.dir, WEIGHTS).map(Arc::new)
    }

    /// The model of this image tower and the text tower that the configuration names.
    ///
    /// # Errors
    /// Those of reading the text tower's configuration.
    pub(crate) fn opened(self, checkpoint: &Arc<Checkpoint>, image: ImagePart) -> Result<Opened> {
        let text = read_open_clip_text(&self, checkpoint)?;
        let parts =
            Parts { dim: self.dim, preprocess: self.preprocess, image, text, config: Some(self.path) };
        assemble(checkpoint, parts, &self.options)
    }
}

/// Refuses keys that have a value and are not among `harmless`.
pub(crate) fn refuse_unknown(
    path: &Path,
    place: &str,
    rest: &Map<String, Value>,
    harmless: &[&str],
) -> Result<()> {
    let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    match rest.iter().find(|(key, value)| !off(value) && !harmless.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, value)) => Err(ClipError::config(
            path,
            format!("{place} asks for `{key}` = {value}, which is not supported"),
        )),
    }
}

/// One number, or a square's two.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "expected one number, or the two of a square")]
pub(crate) enum Side {
    One(usize),
    Two([usize; 2]),
}

impl Side {
    /// The side of the square.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is none.
    pub(crate) fn of_square(self, path: &Path) -> Result<usize> {
        match self {
            Self::One(n) => Ok(n),
            Self::Two([height, width]) if height == width => Ok(height),
            Self::Two(sides) => {
                Err(ClipError::config(path, format!("image_size is {sides:?}, expected a square")))
            }
        }
    }
}

/// The norms' only key that is known.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NormKwargs {
    pub(crate) eps: Option<f32>,
}

/// PyTorch's epsilon of layer norms, and OpenAI's.
pub(crate) const LAYER_NORM_EPSILON: f32 = 1e-5;

/// The epsilon of norms.
pub(crate) fn epsilon(norm: Option<NormKwargs>) -> f32 {
    norm.and_then(|norm| norm.eps).unwrap_or(LAYER_NORM_EPSILON)
}

/// Python's `int(width * ratio)`.
pub(crate) fn mlp_width(width: usize, ratio: f64) -> usize {
    (width as f64 * ratio) as usize
}
