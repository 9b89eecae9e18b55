//! What a model is made of, read from whichever configuration lies beside its weights.

pub(crate) mod arch;
mod infer;
pub(crate) mod lite;
mod open_clip;
mod transformers;

use std::path::Path;

pub(crate) use infer::infer;
pub use lite::{CONFIG_FILE, LITE_FILES};
pub(crate) use open_clip::read_open_clip;
pub(crate) use transformers::read_transformers;
use xmore_files::read_bounded;

use crate::error::{ClipError, Result};

/// Reads a JSON file into `T`, naming the file in every error.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    const MAX: u64 = 1 << 20;
    let text = read_bounded(path, MAX).map_err(|e| ClipError::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| ClipError::config(path, e.to_string()))
}
