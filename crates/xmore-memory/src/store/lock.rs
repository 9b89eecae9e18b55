//! One writer a memory: a lock file that the system lets go of when the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{AtPath, Result};
use crate::store::WriteError;

/// Stays in the memory's folder, empty: one that were removed could be locked twice.
pub(super) const LOCK_FILE: &str = ".xmore-lock";

/// Held while a memory is written.
#[derive(Debug)]
pub(super) struct Lock {
    /// Locked as long as it is open.
    _file: File,
}

impl Lock {
    /// Locks the memory in `dir`, which exists.
    pub fn take(dir: &Path) -> Result<Lock> {
        let path = dir.join(LOCK_FILE);
        let file = File::options().create(true).append(true).open(&path).at("create", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::Busy { path: dir.to_owned() }.into()),
            // Some network file systems have no locks; building there is still better than not building.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
        }
        Ok(Lock { _file: file })
    }
}
