//! The error of a parquet file whose bytes are not what they should be.

use std::path::Path;

use crate::error::MemoryError;
use crate::ingest::SourceError;

/// That `expected` was read from a file, and `found` is there.
pub(super) fn damaged(path: &Path, expected: String, found: String) -> MemoryError {
    SourceError::Damaged { path: path.to_owned(), expected, found }.into()
}
