//! Configuration of a folder whose towers are not CLIP's own: `open_clip_config.json`, in open_clip's manner.
//!
//! `model_cfg` describes the two towers with open_clip's own keys (`timm_model_name`, `hf_model_name`, …), `preprocess_cfg` the
//! pixels. The only additions are the `weights` file names, since such a folder keeps each tower in the file it was published in.

use serde::Deserialize;

use crate::preprocess::PreprocessConfig;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ModelConfig {
    pub(crate) model_cfg: ArchConfig,
    pub(crate) preprocess_cfg: PreprocessConfig,
}

/// `model_cfg`: the architecture.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ArchConfig {
    /// Length of the joint embedding.
    pub(crate) embed_dim: usize,
    pub(crate) vision_cfg: VisionConfig,
    pub(crate) text_cfg: TextConfig,
    /// The file with both projection heads and the logit scale.
    pub(crate) head_weights: String,
}

/// `vision_cfg`: the image tower.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VisionConfig {
    /// `efficientnet_lite0` to `efficientnet_lite4`; open_clip's key for towers that are not its own.
    pub(crate) timm_model_name: String,
    /// Side of the square input, in pixels.
    pub(crate) image_size: usize,
    /// Checkpoint file in the folder.
    pub(crate) weights: String,
    /// Stages of the network, where they are not the named model's own.
    #[serde(default)]
    stages: Option<Vec<StageConfig>>,
    /// Channels of the first and the last layer, likewise.
    #[serde(default)]
    pub(crate) stem_and_features: Option<[usize; 2]>,
}

impl VisionConfig {
    /// Stages of the network: those of the file, else the named model's own; none for a name that is not known.
    pub(crate) fn stages(&self) -> Vec<StageConfig> {
        self.stages.clone().or_else(|| super::stages::stages(&self.timm_model_name)).unwrap_or_default()
    }
}

/// One stage of an EfficientNet: `repeats` blocks, the first of which strides.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct StageConfig {
    pub(crate) repeats: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Widening inside a block.
    pub(crate) expand: usize,
    /// Channels of the stage's output.
    pub(crate) channels: usize,
}

/// `text_cfg`: the text tower.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TextConfig {
    /// Name of the published model, for display; this crate does not fetch it.
    pub(crate) hf_model_name: String,
    /// Only `mean_pooler` is read here.
    pub(crate) hf_pooler_type: String,
    /// Most tokens that a text may have, start and end included; longer ones are cut.
    pub(crate) context_length: usize,
    /// Checkpoint file in the folder.
    pub(crate) weights: String,
    /// `tokenizer.json` of the tokenizers library.
    pub(crate) tokenizer: String,
    /// transformers' `config.json` of the tower.
    pub(crate) config: String,
}
