//! What can go wrong between labeled images and a report.

use std::path::{Path, PathBuf};

use thiserror::Error;
use xmore::XmoreError;
use xmore_clip::ClipError;
use xmore_memory::MemoryError;

use crate::data::DatasetOption;

/// Result of this crate's fallible functions.
pub type Result<T, E = EvalError> = std::result::Result<T, E>;

/// Errors of an evaluation, with those of the crates below passed through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Classification.
    #[error(transparent)]
    Xmore(#[from] XmoreError),
    /// A checkpoint.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// An image of a dataset.
    #[error(transparent)]
    Memory(#[from] MemoryError),
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
    /// There is no folder for what can be made again.
    #[error("no cache folder: {source}")]
    NoCacheFolder {
        /// Why.
        source: std::io::Error,
    },
    /// A table of labeled images lacks a column.
    #[error("{} has {missing}", path.display())]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// Which column, and which there are.
        missing: Box<xmore_files::table::MissingColumn>,
    },
    /// No such dataset in the registry.
    #[error("no dataset {name:?} is known by name; there are {known}. Any other is given by its path")]
    UnknownDataset {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// A dataset folder that is not one.
    #[error("{}: {message}", path.display())]
    Dataset {
        /// The folder or file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// A choice that has no effect on this dataset.
    #[error("{}: {option} was chosen, which has no effect: {reason}", path.display())]
    UnusedOption {
        /// The dataset.
        path: PathBuf,
        /// What was chosen.
        option: DatasetOption,
        /// Why it has none.
        reason: String,
    },
    /// A dataset without a list of its classes' names.
    #[error("{}: expected {expected} beside the tars or above, found none", path.display())]
    NoClassNames {
        /// The dataset.
        path: PathBuf,
        /// The file's usual name.
        expected: &'static str,
    },
    /// A class of images that no list of names has.
    #[error("{}: no name for class {id}", path.display())]
    UnnamedClass {
        /// The dataset's folder.
        path: PathBuf,
        /// The class, as its folder is named.
        id: String,
    },
    /// A dataset without the split that was asked for, or without a usual one.
    #[error("{}: expected a split {wanted}, found {}", path.display(), found.join(", "))]
    NoSplit {
        /// The dataset.
        path: PathBuf,
        /// The split, or those that are usual.
        wanted: String,
        /// The splits that there are.
        found: Vec<String>,
    },
    /// A list of images that are not near it.
    #[error(
        "{}: expected its images in one of the {folders} folders of {}, found {image} in none",
        path.display(),
        path.parent().unwrap_or(Path::new("")).display()
    )]
    ImagesElsewhere {
        /// The list.
        path: PathBuf,
        /// How many folders were looked into.
        folders: usize,
        /// The first image of the list.
        image: String,
    },
    /// A method under prompts of its own, without them.
    #[error(
        "method {method} has no prompts{}: dataset-prompts needs a dataset that brings its own, coop a checkpoint of learned ones",
        dataset.as_ref().map_or_else(String::new, |name| format!(" on {name}"))
    )]
    PromptsNotSetUp {
        /// The method.
        method: &'static str,
        /// The dataset, where it is known.
        dataset: Option<String>,
    },
    /// A checkpoint of CoOp's of another kind.
    #[error(
        "{}: expected context vectors `ctx` [tokens, width] for all labels, found {found}: prompts learned for each class apart \
         (CSC) are not read",
        path.display()
    )]
    Coop {
        /// The checkpoint.
        path: PathBuf,
        /// The shape found.
        found: String,
    },
    /// A calibration cannot be fitted on so few photos.
    #[error("expected at least {needed} labeled photos to fit a calibration of {method} on, found {found}")]
    TooFewPhotos {
        /// The method.
        method: &'static str,
        /// Photos with an answer; of a method that uses captions those for which any were found.
        found: usize,
        /// Fewest photos.
        needed: usize,
    },
    /// No such method.
    #[error("no method {name:?}; there are {known}")]
    UnknownMethod {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
}

impl EvalError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn unused(path: &Path, option: DatasetOption, reason: impl Into<String>) -> Self {
        Self::UnusedOption { path: path.to_owned(), option, reason: reason.into() }
    }

    pub(crate) fn dataset(path: &Path, message: impl Into<String>) -> Self {
        Self::Dataset { path: path.to_owned(), message: message.into() }
    }
}
