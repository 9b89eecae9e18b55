//! What a caller may choose about a model.

use crate::device::{Decoding, DeviceChoice};
use crate::nn::precision::Precision;
use crate::tokenizer::Cleaning;

/// What a caller may choose about loading a model; the default is what the model's own files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// QuickGELU (true) or GELU (false) in the towers, where the files do not say: a state dict alone does not tell them apart.
    pub quick_gelu: Option<bool>,
    /// How the transformers' weights are kept and multiplied.
    pub precision: Precision,
    /// Where the towers compute.
    pub device: DeviceChoice,
    /// What decodes image files that are encoded.
    pub decoding: Decoding,
    /// What is done to texts before the tokenizer, instead of what the model's files say. SigLIP 2 was trained with canonical texts: open_clip makes them,
    /// transformers' tokenizers only lower the case, or not even that.
    pub cleaning: Option<Cleaning>,
}
