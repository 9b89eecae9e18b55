//! What can be wrong with a calibration.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Errors of reading, writing and using a calibration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of another version.
    #[error("{}: a calibration of format version {found}; version {supported} is read", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that is read.
        supported: u64,
    },
    /// A file that is no calibration, or holds what no fit gives.
    #[error("{}: not a calibration, or a damaged one: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another method than those that were fitted.
    #[error("the calibration was not fitted for method {method}, only for {}", list(fitted))]
    NotFitted {
        /// The method.
        method: &'static str,
        /// Those that were.
        fitted: Vec<&'static str>,
    },
    /// It was fitted with another model, memory or option.
    #[error("the calibration of method {method} was fitted with {what} {expected}, found {found}")]
    FittedWithOther {
        /// The method.
        method: &'static str,
        /// What is another: "model", "memory", "k", …
        what: &'static str,
        /// What it was fitted with.
        expected: String,
        /// What is in use.
        found: String,
    },
}

impl CalibrationError {
    pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

fn list(methods: &[&str]) -> String {
    if methods.is_empty() { "none".to_owned() } else { methods.join(", ") }
}
