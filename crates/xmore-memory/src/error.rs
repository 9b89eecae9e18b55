//! The error of this crate: what all its areas share, and the errors of each area, which are defined where they arise.

use std::io;
use std::path::{Path, PathBuf};

use crate::ingest::error::SourceError;
use crate::retriever::error::RemoteError;
#[cfg(feature = "cuda")]
use crate::search::error::GpuError;
use crate::search::error::VectorError;
use crate::store::error::{StoreError, WriteError};

/// Everything that can go wrong in ingesting, storing, opening or searching a memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The operating system refused to read or write a file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "open", "read", "rename", …
        action: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },

    /// A parquet file could not be read or written.
    #[error("{} cannot be read or written as parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The parquet reader's own error.
        source: parquet::errors::ParquetError,
    },

    /// The bytes of an image cannot be read.
    #[error("cannot read the image {image}: {reason}")]
    Image {
        /// Where it should be.
        image: String,
        /// Why not.
        reason: String,
        /// The same as what it counts as where images are left out.
        why: xmore_files::Reason,
    },

    /// A source of pairs cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),

    /// A memory on disk is not there, is damaged, or lacks what is asked of it.
    #[error(transparent)]
    Store(#[from] StoreError),

    /// A memory cannot be built, added to or repaired.
    #[error(transparent)]
    Write(#[from] WriteError),

    /// An embedding or a query that was handed in is none of the model's.
    #[error(transparent)]
    Vector(#[from] VectorError),

    /// A search on a GPU failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] GpuError),

    /// A remote index cannot be reached or used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl MemoryError {
    /// Whether the pairs are in a remote index that does not answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Remote(RemoteError::Unreachable { .. }))
    }
}

/// Result with [`MemoryError`].
pub type Result<T, E = MemoryError> = std::result::Result<T, E>;

/// Names a file in an I/O result, so that no bare "No such file or directory" reaches anyone.
pub(crate) trait AtPath<T> {
    /// Turns the error into [`MemoryError::Io`] with the action and the path.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| MemoryError::Io { action, path: path.to_owned(), source })
    }
}

/// The same for parquet results.
pub(crate) trait InParquet<T> {
    /// Turns the error into [`MemoryError::Parquet`] with the path.
    fn in_parquet(self, path: &Path) -> Result<T>;
}

impl<T> InParquet<T> for parquet::errors::Result<T> {
    fn in_parquet(self, path: &Path) -> Result<T> {
        use parquet::errors::ParquetError;
        let path = path.to_owned();
        self.map_err(|source| match source {
            // What the operating system refused says nothing about the file.
            ParquetError::External(error) => match error.downcast::<io::Error>() {
                Ok(source) => MemoryError::Io { action: "read or write", path, source: *source },
                Err(error) => MemoryError::Parquet { path, source: ParquetError::External(error) },
            },
            source => MemoryError::Parquet { path, source },
        })
    }
}
