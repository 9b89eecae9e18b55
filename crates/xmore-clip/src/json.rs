//! JSON as types, with errors that name the file and the key.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ClipError, Result};

/// Reads a file's bytes.
///
/// # Errors
/// [`ClipError::Config`].
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value =
        serde_path_to_error::deserialize(&mut json).map_err(|e| ClipError::config(path, e.to_string()))?;
    json.end().map_err(|e| ClipError::config(path, e.to_string()))?;
    Ok(value)
}

/// Reads an object that stands at the key `place` of a file.
///
/// # Errors
/// [`ClipError::Config`].
pub(crate) fn typed<T: DeserializeOwned>(path: &Path, place: &str, object: &Map<String, Value>) -> Result<T> {
    serde_path_to_error::deserialize(Value::Object(object.clone())).map_err(|error| {
        let place = match error.path().iter().next() {
            None => place.to_owned(),
            Some(_) => format!("{place}.{}", error.path()),
        };
        ClipError::config(path, format!("{place}: {}", error.inner()))
    })
}
