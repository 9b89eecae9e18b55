//! What can go wrong between a model's name and its files.

use std::path::{Path, PathBuf};

use thiserror::Error;
use xmore_clip::ClipError;

use crate::fetch::FetchError;
use crate::hub::HubError;

/// Result of this crate's fallible functions.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// Why a model cannot be named, found, fetched, opened or verified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// What its files hold.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// Getting the bundled model.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Getting a model of the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A model's file is not what it was when the model was fetched or first used with a memory.
    #[error(
        "{} has changed: its SHA-256 is {found}, but {recorded} was recorded when the model was fetched or first used with a memory",
        path.display()
    )]
    ModelChanged {
        /// The file.
        path: PathBuf,
        /// The digest recorded.
        recorded: String,
        /// The digest of the file as it is.
        found: String,
    },
    /// No such model.
    #[error(
        "no model {name:?}: {}expected `lite`, `lite2`, a name of open_clip's such as `ViT-B-16,openai`, `hf-hub:org/name`, or the path of a \
         model folder or checkpoint as `local-dir:PATH`",
        did_you_mean(suggestion.as_deref())
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The name that may be meant.
        suggestion: Option<String>,
    },
    /// The name is a path, and nothing is there.
    #[error(
        "no model at {}: expected a model folder or a checkpoint file (.pt, .bin, .safetensors){}",
        path.display(),
        repo.as_ref().map_or_else(String::new, |repo| format!("; a repository of the hub is written hf-hub:{repo}"))
    )]
    NoModelThere {
        /// The path.
        path: PathBuf,
        /// The repository of the hub that may be meant.
        repo: Option<String>,
    },
    /// An architecture of open_clip's that is not read.
    #[error("architecture {architecture} is not supported: {reason}")]
    UnsupportedModel {
        /// The architecture.
        architecture: String,
        /// Why it is not read.
        reason: &'static str,
    },
    /// An architecture without weights: a model with random ones would only guess.
    #[error("which weights of {architecture}? There are: {tags}")]
    NoPretrained {
        /// The architecture.
        architecture: String,
        /// The tags there are.
        tags: String,
    },
    /// No such weights of this architecture.
    #[error(
        "{architecture} has no weights {pretrained:?}: {}there are: {tags}. A checkpoint file's path is possible too",
        did_you_mean(suggestion.as_deref())
    )]
    UnknownPretrained {
        /// The architecture.
        architecture: String,
        /// What was asked for.
        pretrained: String,
        /// The tag that may be meant.
        suggestion: Option<String>,
        /// The tags there are.
        tags: String,
    },
    /// Weights named beside a model that has its weights already.
    #[error(
        "weights {pretrained} are named beside model {model}, which has its own: they go with an architecture such as ViT-B-16"
    )]
    UnusedPretrained {
        /// The model.
        model: String,
        /// What was given beside it.
        pretrained: String,
    },
    /// A checkpoint of another architecture than the one named with it.
    #[error("{} gives embeddings of length {found}, but {architecture} has {expected}: name its own architecture", path.display())]
    OtherArchitecture {
        /// The checkpoint.
        path: PathBuf,
        /// The architecture named.
        architecture: &'static str,
        /// Its embeddings' length.
        expected: usize,
        /// The checkpoint's.
        found: usize,
    },
}

/// The start of a sentence about a name that is not known.
fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("did you mean {name:?}? "))
}

impl ModelError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}
