//! Why a file cannot be fetched.

use std::path::PathBuf;

/// The files that would be downloaded, for a user who gets them on another machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManualDownload {
    /// What to ask pip for.
    pub requirements: Vec<&'static str>,
    /// The files that it downloads.
    pub files: Vec<&'static str>,
    /// The folder where they are looked for.
    pub folder: PathBuf,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Neither `XMORE_HOME` nor a platform cache directory is known.
    #[error(
        "no cache folder: XMORE_HOME is not set and this account has no cache directory; set XMORE_HOME to a folder"
    )]
    NoHome,

    /// The operating system refused a file operation.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, e.g. `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// No pip could be started.
    #[error("no pip found (tried {tried})")]
    PipMissing {
        /// The commands tried and what became of each.
        tried: String,
        /// How to go on without pip or network.
        by_hand: Box<ManualDownload>,
    },

    /// pip ran and failed.
    #[error("`{command}` failed ({status}):\n{tail}")]
    PipFailed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its error output.
        tail: String,
        /// How to go on without pip or network.
        by_hand: Box<ManualDownload>,
    },

    /// What pip downloaded is not the file that is known by size and hash.
    #[error(
        "{path}: expected {expected}, found {found}: the registry that pip uses does not serve the known file"
    )]
    NotAsExpected {
        /// The file.
        path: PathBuf,
        /// Size or hash expected.
        expected: String,
        /// Size or hash found.
        found: String,
        /// How to go on with files from elsewhere.
        by_hand: Box<ManualDownload>,
    },

    /// A wheel could not be read.
    #[error("{path}: member {member}: {reason}")]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// The member wanted from it.
        member: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The model folder lacks files.
    #[error("model `{model}` is not complete in {dir}: {problems}")]
    ModelIncomplete {
        /// The bundled model.
        model: &'static str,
        /// The model folder.
        dir: PathBuf,
        /// Each file that is missing or has a wrong size.
        problems: String,
    },
}

impl FetchError {
    /// Closure for `map_err` that names the action and the file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
