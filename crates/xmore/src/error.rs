//! What can go wrong between photos with labels and predictions.

use std::path::{Path, PathBuf};

use thiserror::Error;
use xmore_clip::ClipError;
use xmore_files::Reason;
#[cfg(feature = "hub")]
use xmore_hub::ModelError;
use xmore_memory::MemoryError;
use xmore_memory::store::Mode;

use crate::build::PartError;
use crate::calibration::error::CalibrationError;
use crate::labels::error::LabelError;
use crate::retrieve::error::RetrievalError;

/// Result of this crate's fallible functions.
pub type Result<T, E = XmoreError> = std::result::Result<T, E>;

/// Errors of classification and evaluation, with those of the crates below passed through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum XmoreError {
    /// Model, image or text.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// An encoder that is not ours.
    #[error("{source}")]
    Encoder {
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Labels and their templates.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Pairs, encoders and options that do not fit each other.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// A calibration.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The operating system did not give something that has no path.
    #[error("cannot {action}: {source}")]
    System {
        /// "start a thread", …
        action: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A model by its name: finding, fetching, opening or verifying it.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Model(#[from] ModelError),
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
    /// Embeddings that were given as a model's are not.
    #[error("{} does not hold embeddings of model {model}: {reason}", path.display())]
    NotThisModel {
        /// The folder of embeddings.
        path: PathBuf,
        /// The model that was given.
        model: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The parts of a divided build.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A build or an append cannot go on: its sources do not list any more what it has written.
    #[error(
        "the sources of {} have changed since it was interrupted: {missing} of the {done} pairs that it had come to are not in them",
        dir.display()
    )]
    SourcesChanged {
        /// The memory.
        dir: PathBuf,
        /// Pairs that the interrupted run had written.
        done: u64,
        /// Those among them that the sources do not list.
        missing: u64,
        /// How it was begun.
        mode: Mode,
    },
    /// A method that needs captions, without a memory.
    #[error("method {method} needs a memory")]
    MethodNeedsMemory {
        /// The method.
        method: &'static str,
    },
    /// A classifier was asked for a method that it was not made for.
    #[error("the labels were not made ready for method {method}")]
    MethodNotPrepared {
        /// The method.
        method: &'static str,
    },
    /// Sigmoid scores of a method that mixes distributions over the labels.
    #[error("method {method} has no sigmoid scores: its answer is made of distributions over the labels")]
    MethodWithoutSigmoids {
        /// The method.
        method: &'static str,
    },
    /// Sigmoid scores with a model that was trained with a softmax.
    #[error("the model has no sigmoid scores: it has no logit bias, so it was trained with a softmax")]
    ModelWithoutSigmoids,
    /// No such scores.
    #[error("no scores {name:?}; there are {known}")]
    UnknownScores {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// Embeddings of a query image of other lengths than the encoders'.
    #[error("expected embeddings of lengths {expected:?}, one by each encoder, found {found:?}")]
    EmbeddingLengths {
        /// By each encoder.
        expected: Vec<usize>,
        /// Those given.
        found: Vec<usize>,
    },
    /// No such method.
    #[error("no method {name:?}; there are {known}")]
    UnknownMethod {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// The user asked to stop.
    #[error("stopped on request")]
    Interrupted,
}

impl XmoreError {
    /// The cache folder.
    pub(crate) fn cache_home() -> Result<PathBuf> {
        xmore_files::cache_home().map_err(|source| Self::System { action: "find a cache folder", source })
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// What an image that gave this error counts as where images are left out.
    pub fn left_out_reason(&self) -> Reason {
        match self {
            Self::Memory(MemoryError::Image { why, .. }) => why.clone(),
            Self::Clip(ClipError::Image { source, .. }) => source.left_out_reason(),
            _ => Reason::Unreadable,
        }
    }
}
