//! What can go wrong between photos with labels and predictions.

use std::path::{Path, PathBuf};

use thiserror::Error;
use xmore_clip::ClipError;
use xmore_files::Reason;
use xmore_hub::ModelError;
use xmore_memory::MemoryError;
use xmore_memory::store::Mode;

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
    /// A model by its name: finding, fetching, opening or verifying it.
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
    /// There is no folder for what can be made again.
    #[error("no cache folder: {source}")]
    NoCacheFolder {
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no further thread.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Fewer than two labels: with one there is nothing to choose, and no confidence is defined.
    #[error("{found} label(s) given, at least 2 are needed: a classification chooses between labels")]
    TooFewLabels {
        /// How many there were.
        found: usize,
    },
    /// A label twice would split its own probability.
    #[error(
        "label {label:?} is given twice{}; each label must be given once",
        lines.map_or_else(String::new, |(first, second)| format!(", on lines {first} and {second}"))
    )]
    DuplicateLabel {
        /// The label.
        label: String,
        /// The lines, where it is from a file.
        lines: Option<(u64, u64)>,
    },
    /// A label without a visible character.
    #[error("label {} is empty", place + 1)]
    EmptyLabel {
        /// Its place among the labels, from 0.
        place: usize,
    },
    /// A table of labels without the column that has them.
    #[error(
        "{origin}: expected {}, found the columns {}",
        wanted.as_ref().map_or_else(|| "a column such as label or class".to_owned(), |name| format!("a column {name:?}")),
        columns.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    )]
    LabelColumn {
        /// The file.
        origin: String,
        /// The column that was asked for.
        wanted: Option<String>,
        /// The columns in its first line.
        columns: Vec<String>,
    },
    /// Something that should be labels and is not.
    #[error(
        "{origin}{}: expected {expected}, found {found}",
        line.map_or_else(String::new, |line| format!(", line {line}"))
    )]
    LabelList {
        /// The file, or what else it is.
        origin: String,
        /// The line, if it is one's fault.
        line: Option<u64>,
        /// What was expected.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// A prompt template without a place for the label.
    #[error("template {template:?} has no `{{}}` (or `{{c}}`) where the label goes")]
    Template {
        /// The template.
        template: String,
    },
    /// K = 0 captions asked for.
    #[error("k is 0: at least one caption is needed; for none use --method zero-shot")]
    NoCaptionsAsked,
    /// Fewer neighbors than captions asked for.
    #[error("k is {k}, but only {neighbors} neighbors are looked at; raise --neighbors to at least {k}")]
    TooFewNeighbors {
        /// Captions asked for.
        k: usize,
        /// Neighbors looked at.
        neighbors: usize,
    },
    /// The memory holds nothing.
    #[error("the memory {} holds no pairs: build it from a source with images and captions", dir.display())]
    EmptyMemory {
        /// The memory.
        dir: PathBuf,
    },
    /// Embeddings that were given as a model's are not.
    #[error(
        "{} does not hold embeddings of model {model}: {reason}; name the model that made them with --model",
        path.display()
    )]
    NotThisModel {
        /// The folder of embeddings.
        path: PathBuf,
        /// The model that was given.
        model: String,
        /// What was expected and what was found.
        reason: String,
    },
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
    /// The memory has embeddings by other models only: their vectors mean nothing to this one.
    #[error(
        "the memory {location} was built with model {memory_model}, but the model in use is {model}; \
         name that one with --model, or add this one's embeddings with `{command}`"
    )]
    ModelMismatch {
        /// The memory's folder or URL.
        location: String,
        /// Names and hashes of the models whose embeddings it has.
        memory_model: String,
        /// Name and hash of the model in use.
        model: String,
        /// The command that adds embeddings.
        command: &'static str,
    },
    /// A remote index was asked for a part of its pairs.
    #[error(
        "{location} is a remote index: filters by caption work on a local memory only, filters by row there and in PostgreSQL"
    )]
    RemoteFilter {
        /// Its URL.
        location: String,
    },
    /// A filter by caption that leaves nothing.
    #[error("no caption of the memory matches {pattern}")]
    NoCaptionMatches {
        /// The regular expression.
        pattern: String,
    },
    /// A remote index was asked to search its captions.
    #[error(
        "{location} is a remote index: it is searched by images only; search captions directly in a local memory"
    )]
    RemoteRanking {
        /// Its URL.
        location: String,
    },
    /// A method that needs captions, without a memory.
    #[error("method {method} needs a memory: give --memory DIR, or use --method zero-shot")]
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
    /// Embeddings of a query image of other lengths than the encoders'.
    #[error("expected embeddings of lengths {expected:?}, one by each encoder, found {found:?}")]
    EmbeddingLengths {
        /// By each encoder.
        expected: Vec<usize>,
        /// Those given.
        found: Vec<usize>,
    },
    /// A remote index is searched by another model than the one that classifies.
    #[error(
        "method xmore-kernel asks the remote index {location} about the labels, which takes one model for searching and classifying: leave \
         --search-model out, or use --method xmore"
    )]
    KernelNeedsOneModel {
        /// The remote index's URL.
        location: String,
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
        xmore_files::cache_home().map_err(|source| Self::NoCacheFolder { source })
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
