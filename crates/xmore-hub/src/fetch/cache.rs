//! Where fetched things live: one folder with `models/`, `downloads/` and `data/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{FetchError, Result};

/// Unfinished work of a killed run is removed when it is older than this.
const STALE: Duration = Duration::from_secs(24 * 3600);
const SCRATCH_PREFIX: &str = "xmore-";
const SCRATCH_SUFFIX: &str = ".tmp";

/// The [cache folder](xmore_files::cache_home).
///
/// # Errors
/// [`FetchError::NoHome`] where the account has none.
pub fn home() -> Result<PathBuf> {
    xmore_files::cache_home().map_err(|_| FetchError::NoHome)
}

/// `<home>/models/<name>`; not created.
pub fn model_dir(home: &Path, name: &str) -> PathBuf {
    home.join("models").join(name)
}

/// `<home>/downloads`; not created. Files a user puts here are used instead of being fetched.
pub fn downloads_dir(home: &Path) -> PathBuf {
    home.join("downloads")
}

/// `<home>/data`; not created.
pub fn data_dir(home: &Path) -> PathBuf {
    home.join("data")
}

/// Creates a folder and those above it.
///
/// # Errors
/// [`FetchError::Io`].
pub fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(FetchError::io("create the folder", dir))
}

/// A folder in `parent` that only this call knows, removed with the value; what is built in it can be renamed into
/// `parent` because both are on one file system. Also clears such folders that killed runs left behind.
///
/// # Errors
/// [`FetchError::Io`].
pub fn scratch(parent: &Path) -> Result<tempfile::TempDir> {
    create(parent)?;
    sweep(parent, SystemTime::now());
    tempfile::Builder::new()
        .prefix(SCRATCH_PREFIX)
        .suffix(SCRATCH_SUFFIX)
        .tempdir_in(parent)
        .map_err(FetchError::io("create a temporary folder in", parent))
}

/// Best effort: what cannot be removed stays and harms nothing.
fn sweep(parent: &Path, now: SystemTime) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours =
            name.to_str().is_some_and(|n| n.starts_with(SCRATCH_PREFIX) && n.ends_with(SCRATCH_SUFFIX));
        let Ok(meta) = entry.metadata() else { continue }; // does not follow links
        let age = meta.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        if ours && meta.is_dir() && age > STALE {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_scratch_of_ours_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["xmore-1.tmp", "theirs.tmp", "xmore-keep"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        sweep(dir.path(), SystemTime::now());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        sweep(dir.path(), SystemTime::now() + 2 * STALE);
        assert!(!dir.path().join("xmore-1.tmp").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = scratch(&file.join("downloads")).unwrap_err().to_string();
        assert!(error.contains("downloads"), "{error}");
    }
}
