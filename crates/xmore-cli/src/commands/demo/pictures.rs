//! Why the demo's pictures cannot be had, each error with what the user can do about it.

use std::path::PathBuf;

use xmore_hub::fetch::FetchError;

use crate::error::CliError;

/// Result of getting the pictures.
pub(crate) type Result<T> = std::result::Result<T, PicturesError>;

/// Why the demo's pictures cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PicturesError {
    /// The operating system refused a file operation, or there is no cache folder.
    #[error(transparent)]
    Fetch(#[from] FetchError),

    /// A Debian tool is not on this machine.
    #[error(
        "`{tool}` was not found: the demo's pictures are the Debian package tuxpaint-stamps-default, fetched with apt-get \
         and opened with dpkg-deb (Debian, Ubuntu and relatives). On other systems `xmore demo --pairs DIR` uses your own \
         folder of images with captions (folder name = label)"
    )]
    ToolMissing {
        /// The missing program.
        tool: String,
    },

    /// A Debian tool ran and failed.
    #[error("`{command}` failed ({status}):\n{tail}\n{hint}")]
    ToolFailed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its error output.
        tail: String,
        /// What the user can do about it.
        hint: String,
    },

    /// The package's archive is broken or is not what it should be.
    #[error("{path}: {reason}. Delete this file and run again")]
    Archive {
        /// The package file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl PicturesError {
    /// Closure for `map_err` that names the action and the file.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let wrap = FetchError::io(action, path);
        move |source| Self::Fetch(wrap(source))
    }
}

impl From<PicturesError> for CliError {
    fn from(error: PicturesError) -> Self {
        Self::Failed(error.to_string())
    }
}
