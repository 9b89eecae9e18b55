//! Label sets by name: text files in one folder, one label a line.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xmore::Labels;

use crate::error::{ApiError, ErrorCode, ServerError};

/// Label sets of one folder.
const MOST_SETS: usize = 1_000;
/// Bytes of one file.
const MOST_BYTES: u64 = 4 << 20;

/// What is in the folder; read at the start and at each reload, and kept the same by saving.
pub(crate) struct LabelSets {
    folder: Option<PathBuf>,
    may_save: bool,
    most_labels: usize,
    sets: RwLock<BTreeMap<String, Vec<String>>>,
    /// Held while files are read or written: `sets` is not, so that reading a set never waits for a disk.
    files: Mutex<()>,
}

impl LabelSets {
    /// Reads the folder.
    pub(crate) fn open(
        folder: Option<&Path>,
        may_save: bool,
        most_labels: usize,
    ) -> Result<Self, ServerError> {
        if let Some(folder) = folder.filter(|_| may_save) {
            std::fs::create_dir_all(folder).map_err(|e| wrong(folder, e.to_string()))?;
        }
        let sets = RwLock::new(folder.map_or_else(|| Ok(BTreeMap::new()), read_folder)?);
        Ok(Self { folder: folder.map(Path::to_owned), may_save, most_labels, sets, files: Mutex::default() })
    }

    /// Reads the folder again.
    ///
    /// # Errors
    /// [`ServerError::LabelSets`]; the sets stay as they were.
    pub(crate) fn reload(&self) -> Result<(), ServerError> {
        if let Some(folder) = &self.folder {
            let _files = self.files();
            let read = read_folder(folder)?;
            *self.sets_mut() = read;
        }
        Ok(())
    }

    /// Whether sets can be saved.
    pub(crate) fn may_save(&self) -> bool {
        self.may_save && self.folder.is_some()
    }

    /// Names, and how many labels each has.
    pub(crate) fn list(&self) -> Result<Vec<(String, usize)>, ApiError> {
        Ok(self.sets().iter().map(|(name, labels)| (name.clone(), labels.len())).collect())
    }

    /// A set's labels.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownLabelSet`].
    pub(crate) fn read(&self, name: &str) -> Result<Vec<String>, ApiError> {
        self.sets().get(name).cloned().ok_or_else(|| unknown(name))
    }

    /// Saves a set, whole or not at all; returns its labels as they were saved.
    ///
    /// # Errors
    /// [`ErrorCode::Disabled`]; [`ErrorCode::InvalidParameter`] for a name or labels that cannot be; [`ErrorCode::TooMany`].
    pub(crate) fn save(&self, name: &str, labels: Vec<String>) -> Result<Vec<String>, ApiError> {
        let folder = self.folder()?;
        check_name(name)?;
        let labels: Vec<String> = labels.iter().map(|label| label.trim().to_owned()).collect();
        if let Some(label) = labels.iter().find(|label| label.is_empty() || label.contains(['\n', '\r'])) {
            let message = format!("label {label:?} is empty, or has more than one line");
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        Labels::new(labels.iter().map(String::as_str))?;
        let _files = self.files();
        let is_full = {
            let sets = self.sets();
            sets.len() >= MOST_SETS && !sets.contains_key(name)
        };
        if labels.len() > self.most_labels || is_full {
            let message = format!("at most {MOST_SETS} sets of {} labels each are kept", self.most_labels);
            return Err(ApiError::new(ErrorCode::TooMany, message));
        }
        let text = labels.join("\n") + "\n";
        if text.len() as u64 > MOST_BYTES {
            let message = format!("{} bytes of labels; at most {MOST_BYTES} are kept", text.len());
            return Err(ApiError::new(ErrorCode::TooMany, message));
        }
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(folder.join(format!("{name}.txt")))?;
            Ok(())
        };
        write().map_err(|error: std::io::Error| ApiError::internal(&format!("label set {name}: {error}")))?;
        self.sets_mut().insert(name.to_owned(), labels.clone());
        Ok(labels)
    }

    /// Removes a set.
    ///
    /// # Errors
    /// [`ErrorCode::Disabled`], [`ErrorCode::UnknownLabelSet`].
    pub(crate) fn remove(&self, name: &str) -> Result<(), ApiError> {
        let folder = self.folder()?;
        let _files = self.files();
        if !self.sets().contains_key(name) {
            return Err(unknown(name));
        }
        // Names of sets were checked when they came in.
        std::fs::remove_file(folder.join(format!("{name}.txt")))
            .map_err(|error| ApiError::internal(&format!("label set {name}: {error}")))?;
        self.sets_mut().remove(name);
        Ok(())
    }

    fn sets(&self) -> RwLockReadGuard<'_, BTreeMap<String, Vec<String>>> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sets_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Vec<String>>> {
        self.sets.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self) -> Result<&Path, ApiError> {
        self.folder.as_deref().filter(|_| self.may_save).ok_or_else(|| {
            ApiError::new(
                ErrorCode::Disabled,
                "label sets cannot be saved here: start the server with --label-sets DIR --save-label-sets",
            )
        })
    }
}

fn read_folder(folder: &Path) -> Result<BTreeMap<String, Vec<String>>, ServerError> {
    let mut sets = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| wrong(folder, e.to_string()))? {
        let path = entry.map_err(|e| wrong(folder, e.to_string()))?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_text(&path)) else {
            continue;
        };
        check_name(name).map_err(|error| wrong(&path, error.message))?;
        let bytes = std::fs::metadata(&path).map_err(|e| wrong(&path, e.to_string()))?.len();
        if bytes > MOST_BYTES || sets.len() == MOST_SETS {
            return Err(wrong(&path, format!("more than {MOST_BYTES} bytes, or than {MOST_SETS} files")));
        }
        let labels = Labels::read(&path).map_err(|error| wrong(&path, error.to_string()))?;
        sets.insert(name.to_owned(), labels.names().to_vec());
    }
    Ok(sets)
}

fn wrong(path: &Path, reason: String) -> ServerError {
    ServerError::LabelSets { path: path.to_owned(), reason }
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt")) && path.is_file()
}

/// A name becomes a file's.
fn check_name(name: &str) -> Result<(), ApiError> {
    let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    if !name.is_empty() && name.len() <= 64 && name.trim() == name && name.chars().all(good) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidParameter,
        format!("{name:?} names no label set: expected up to 64 letters, digits, spaces, - and _"),
    ))
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(ErrorCode::UnknownLabelSet, format!("no label set {name:?}; /v1/label-sets lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T, ApiError>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn sets_are_saved_read_again_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pets.txt"), "cat\ndog\n").unwrap();
        std::fs::write(folder.path().join("notes.md"), "not a set").unwrap();
        let sets = LabelSets::open(Some(folder.path()), true, 3).unwrap();
        assert_eq!(sets.read("pets").unwrap(), ["cat", "dog"]);
        let saved = sets.save("Vögel 1", vec![" tit ".into(), "wren".into()]).unwrap();
        assert_eq!(saved, ["tit", "wren"]);
        let again = LabelSets::open(Some(folder.path()), false, 3).unwrap();
        assert_eq!(again.list().unwrap(), [("Vögel 1".to_owned(), 2), ("pets".to_owned(), 2)]);
        sets.remove("pets").unwrap();
        assert_eq!(code(sets.read("pets")), Some(ErrorCode::UnknownLabelSet));
        assert!(!folder.path().join("pets.txt").exists());
        assert_eq!(code(again.save("x", vec!["a".into(), "b".into()])), Some(ErrorCode::Disabled));
    }

    #[test]
    fn names_and_labels_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sets = LabelSets::open(Some(folder.path()), true, 3).unwrap();
        let two = || vec!["a".to_owned(), "b".to_owned()];
        for name in ["", "..", "../x", "a/b", " a", "a.txt", "a\0", &"x".repeat(65)] {
            assert_eq!(code(sets.save(name, two())), Some(ErrorCode::InvalidParameter), "{name:?}");
        }
        for labels in [vec![], vec!["a"], vec!["a", "a"], vec!["a", "b\nc"], vec!["a", " "]] {
            let labels = labels.into_iter().map(str::to_owned).collect();
            assert_eq!(code(sets.save("x", labels)), Some(ErrorCode::InvalidParameter));
        }
        let four = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(code(sets.save("x", four)), Some(ErrorCode::TooMany));
        // What cannot be read again at the next start is not saved.
        let long = vec!["a".repeat(MOST_BYTES as usize), "b".to_owned()];
        assert_eq!(code(sets.save("x", long)), Some(ErrorCode::TooMany));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
