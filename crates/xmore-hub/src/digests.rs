//! SHA-256 of model files: what was recorded when a model was fetched or first used with a memory, and what the files are now.
//!
//! The fingerprint samples files (see `xmore_clip`'s module of that name), so that a start does not read gigabytes. Every byte is covered
//! here: a file is read in full when its state on disk (size, times of change, inode) is not that of the last time, and once more when
//! [`verify`](super::verify()) asks for it. Bytes that change without any of these, as on a failing disk, are found by the latter alone.
//!
//! The records are one file, `model-digests.json` in xmore's cache folder, with a checksum (see `cache_file`). Where there is none, or it is
//! damaged, files are read and recorded anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};
use crate::fetch::{CopyError, cache, copy_hashed};
use xmore_files::cache_file::{self, CacheFile};

const FILE: &str = "model-digests.json";
/// Records of tens of thousands of files; more is none of ours.
const MAX_BYTES: u64 = 16 << 20;

/// What is known of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    sha256: String,
    /// The file's state when it was last found to have this digest.
    state: State,
}

/// What changes with a file's bytes unless a disk fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    size: u64,
    modified: u128,
    /// Time of change of the inode, and its number: set by the system alone.
    changed: (i64, i64),
    inode: u64,
}

impl State {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        #[cfg(unix)]
        let (changed, inode) = {
            use std::os::unix::fs::MetadataExt;
            ((metadata.ctime(), metadata.ctime_nsec()), metadata.ino())
        };
        #[cfg(not(unix))]
        let (changed, inode) = ((0, 0), 0);
        Ok(Self { size: metadata.len(), modified, changed, inode })
    }
}

/// All records.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Digests {
    /// By the files' paths, links followed.
    files: BTreeMap<PathBuf, Record>,
    #[serde(skip)]
    changed: bool,
}

impl Digests {
    /// Reads the records of this user's cache folder; none where there is no such folder.
    pub(super) fn open() -> Self {
        let content = path().map(|path| cache_file::read(&path, FILE, MAX_BYTES));
        match content {
            Some(CacheFile::Whole(content)) => serde_json::from_slice(&content).unwrap_or_default(),
            _ => Self::default(),
        }
    }

    /// Writes them, if there is anything new.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub(super) fn save(&self) -> Result<()> {
        let Some(path) = path().filter(|_| self.changed) else { return Ok(()) };
        let io = |e| ModelError::io("write", &path, e);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).map_err(io)?;
        let content = serde_json::to_vec(self).map_err(|e| io(io::Error::other(e)))?;
        cache_file::write(&path, FILE, &content).map_err(io)
    }

    /// The digest recorded of a file.
    pub(super) fn recorded(&self, file: &Path) -> Option<&str> {
        self.files.get(&real(file)).map(|record| record.sha256.as_str())
    }

    /// The files below a folder that have records.
    pub(super) fn below<'a>(&'a self, folder: &Path) -> impl Iterator<Item = &'a Path> + use<'a> {
        let folder = real(folder);
        self.files.keys().map(PathBuf::as_path).filter(move |file| file.starts_with(&folder))
    }

    /// All files that have records.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Records a digest that was just found.
    pub(super) fn record(&mut self, file: &Path, sha256: String) -> Result<()> {
        let state = State::of(file).map_err(|e| ModelError::io("read", file, e))?;
        self.files.insert(real(file), Record { sha256, state });
        self.changed = true;
        Ok(())
    }

    /// Checks files against their records, reading those whose state is another than when they were recorded; those without a record
    /// are read and recorded. `expected` has the digest that a file is known to have from elsewhere.
    ///
    /// # Errors
    /// [`ModelError::ModelChanged`], [`ModelError::Io`].
    pub(super) fn check(
        &mut self,
        files: &[PathBuf],
        expected: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<()> {
        for file in files {
            let state = State::of(file).map_err(|e| ModelError::io("read", file, e))?;
            let known = self.files.get(&real(file));
            let recorded = expected(file).or_else(|| known.map(|record| record.sha256.clone()));
            if known.is_some_and(|known| known.state == state && Some(&known.sha256) == recorded.as_ref()) {
                continue;
            }
            let found = sha256(file)?;
            if let Some(recorded) = recorded.filter(|recorded| *recorded != found) {
                return Err(ModelError::ModelChanged { path: file.clone(), recorded, found });
            }
            self.files.insert(real(file), Record { sha256: found, state });
            self.changed = true;
        }
        Ok(())
    }
}

fn path() -> Option<PathBuf> {
    Some(cache::home().ok()?.join(FILE))
}

fn real(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// SHA-256 of a file in hexadecimal.
///
/// # Errors
/// [`ModelError::Io`].
pub fn sha256(path: &Path) -> Result<String> {
    let io = |e| ModelError::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    match copy_hashed(&mut file, &mut io::sink(), u64::MAX - 1, &mut |_| ()) {
        Ok((_, digest)) => Ok(digest),
        Err(CopyError::Read(e) | CopyError::Write(e)) => Err(io(e)),
    }
}
