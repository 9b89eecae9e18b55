//! One file of a checkpoint: its path and bytes.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xmore_files::open_regular;

use crate::error::{ClipError, Result};

/// A file, mapped, or bytes that the caller brought under a name.
pub(super) struct Source {
    pub(super) path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Source {
    pub(super) fn map(path: &Path) -> Result<Self> {
        let file = open_regular(path).map_err(|e| ClipError::io(path, e))?;
        // SAFETY: the map is read-only and private to this struct. If another process truncates the file while it is mapped,
        // reads fault; that is the usual contract of mapped weights and no worse than a file deleted under any reader.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|e| ClipError::io(path, e))?;
        Ok(Self { path: path.to_owned(), bytes: Bytes::Mapped(map) })
    }

    /// Gives back the memory of mapped pages that were read; reading them again takes them from the system's cache.
    pub(super) fn release(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: the map is of a file and never written to, so that no byte changes by it. That it fails is no error.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    pub(super) fn owned(bytes: Vec<u8>, name: &Path) -> Self {
        Self { path: name.to_owned(), bytes: Bytes::Owned(bytes) }
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
