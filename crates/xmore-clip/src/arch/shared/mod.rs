//! What several architectures are made of.

pub(super) mod preprocessor_config;
pub(super) mod transformer;

use std::path::Path;

use xmore_files::read_bounded;

use crate::error::{ClipError, Result};

/// Reads a JSON file into `T`, naming the file in every error.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    const MAX: u64 = 1 << 20;
    let text = read_bounded(path, MAX).map_err(|e| ClipError::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| ClipError::config(path, e.to_string()))
}
