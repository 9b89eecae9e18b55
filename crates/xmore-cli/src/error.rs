//! The error that ends a command. [`hints`](crate::hints) has what the user can do about it, and the exit status.

use std::path::PathBuf;

use thiserror::Error;
use xmore::XmoreError;
use xmore_clip::ClipError;
use xmore_eval::EvalError;
use xmore_hub::ModelError;
use xmore_memory::MemoryError;
use xmore_server::ServerError;

/// Result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// Errors of the command line, with those of the libraries passed through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CliError {
    /// Anything of the method's crate.
    #[error(transparent)]
    Xmore(#[from] XmoreError),
    /// Naming, fetching or verifying models.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Anything of an evaluation.
    #[error(transparent)]
    Eval(EvalError),
    /// Anything of the encoders.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// Anything of the memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Anything of the server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// Standard output could not be written to.
    #[error("cannot write to standard output: {reason}")]
    Stdout {
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// A signal ended the command: what is done, of how much.
    #[error("{0}")]
    Interrupted(String),
    /// The command did what it could, but not all of it.
    #[error("{0}")]
    Failed(String),
    /// A command that goes through many things could read none of them, or failed on more than is allowed.
    #[error("{0}")]
    NotEnough(String),
    /// Flags that do not fit together.
    #[error("{0}")]
    Usage(String),
}

impl From<EvalError> for CliError {
    /// What comes from the crates below an evaluation is theirs.
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Xmore(error) => Self::Xmore(error),
            EvalError::Clip(error) => Self::Clip(error),
            EvalError::Memory(error) => Self::Memory(error),
            other => Self::Eval(other),
        }
    }
}
