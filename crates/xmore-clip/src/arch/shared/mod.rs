//! What several architectures are made of.

pub(super) mod assemble;
pub(super) mod bert;
pub(super) mod bert_config;
pub(super) mod bert_text;
pub(super) mod block;
pub(super) mod class_text;
pub(super) mod hf_head;
pub(super) mod hf_text;
pub(super) mod limits;
pub(super) mod m2m100;
pub(super) mod m2m100_config;
pub(super) mod names;
pub(super) mod open_clip;
pub(super) mod padding;
pub(super) mod pool;
pub(super) mod preprocessor_config;
pub(super) mod query_pool;
pub(super) mod rotary;
pub(super) mod text;
pub(super) mod text_config;
pub(super) mod timm;
pub(super) mod transformer;
pub(super) mod transformers;
pub(super) mod vit;
pub(super) mod vit_image;

use std::path::Path;

use xmore_files::read_bounded;

use crate::error::{ClipError, Result};
use crate::json;

/// Reads a JSON file into `T`, naming the file and the key in every error.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    const MAX: u64 = 1 << 20;
    let text = read_bounded(path, MAX).map_err(|e| ClipError::io(path, e))?;
    json::parse(path, &text)
}

/// A file's name without its folder.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
