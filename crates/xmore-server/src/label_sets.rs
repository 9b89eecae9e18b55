//! Label sets by name: files in one folder, in any form that labels are read in.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::json;
use xmore::{LabelFile, LabelList, Labels};
use xmore_files::replace_file;

use crate::api_error::{ApiError, ErrorCode};
use crate::error::ServerError;

/// Label sets of one folder.
const MAX_SETS: usize = 1_000;
/// Extensions of files with labels.
const KINDS: [&str; 5] = ["txt", "csv", "tsv", "json", "jsonl"];
/// Bytes of one file.
const MAX_BYTES: u64 = 4 << 20;

type Sets = BTreeMap<String, Arc<Labels>>;

/// What is in the folder; read at the start and at each reload, and kept the same by saving.
pub(crate) struct LabelSets {
    folder: Option<PathBuf>,
    may_save: bool,
    most_labels: usize,
    sets: RwLock<Sets>,
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
        Ok(self.sets().iter().map(|(name, labels)| (name.clone(), labels.names().len())).collect())
    }

    /// A set's labels.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownLabelSet`].
    pub(crate) fn read(&self, name: &str) -> Result<Arc<Labels>, ApiError> {
        self.sets().get(name).cloned().ok_or_else(|| unknown(name))
    }

    /// Saves a set, whole or not at all; returns its labels as they were saved.
    ///
    /// # Errors
    /// [`ErrorCode::Disabled`]; [`ErrorCode::InvalidParameter`] for a name or labels that cannot be; [`ErrorCode::TooMany`].
    pub(crate) fn save(&self, name: &str, labels: LabelList) -> Result<Arc<Labels>, ApiError> {
        let folder = self.folder()?;
        check_name(name)?;
        let labels = Labels::with_prompts(labels.0)?;
        if let Some(label) = labels.names().iter().find(|label| label.contains(['\n', '\r'])) {
            let message = format!("label {label:?} has more than one line");
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        let _files = self.files();
        let is_full = {
            let sets = self.sets();
            sets.len() >= MAX_SETS && !sets.contains_key(name)
        };
        if labels.names().len() > self.most_labels || is_full {
            let message = format!("at most {MAX_SETS} sets of {} labels each are kept", self.most_labels);
            return Err(ApiError::new(ErrorCode::TooMany, message));
        }
        let (text, kind) = written(&labels);
        if text.len() as u64 > MAX_BYTES {
            let message = format!("{} bytes of labels; at most {MAX_BYTES} are kept", text.len());
            return Err(ApiError::new(ErrorCode::TooMany, message));
        }
        let write = || {
            replace_file(&folder.join(format!("{name}.{kind}")), |file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })?;
            remove_files(folder, name, Some(kind))
        };
        write().map_err(|error: std::io::Error| ApiError::internal(&format!("label set {name}: {error}")))?;
        let labels = Arc::new(labels);
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
        remove_files(folder, name, None)
            .map_err(|error| ApiError::internal(&format!("label set {name}: {error}")))?;
        self.sets_mut().remove(name);
        Ok(())
    }

    fn sets(&self) -> RwLockReadGuard<'_, Sets> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sets_mut(&self) -> RwLockWriteGuard<'_, Sets> {
        self.sets.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self) -> Result<&Path, ApiError> {
        self.folder
            .as_deref()
            .filter(|_| self.may_save)
            .ok_or_else(|| ApiError::new(ErrorCode::Disabled, "this server does not save label sets"))
    }
}

/// A set as a file's text, and the file's extension: one label a line where that is read as the same labels, else JSON.
fn written(labels: &Labels) -> (String, &'static str) {
    let lines = labels.names().join("\n") + "\n";
    let again = LabelFile::parse(lines.as_bytes(), "", None).and_then(|file| file.labels());
    if again.is_ok_and(|again| again == *labels) {
        return (lines, "txt");
    }
    let own = labels.own_prompts().iter().zip(labels.synonyms());
    let values: Vec<_> = (labels.names().iter().zip(own))
        .map(|(label, (prompts, synonyms))| json!({"label": label, "prompts": prompts, "synonyms": synonyms}))
        .collect();
    (json!(values).to_string(), "json")
}

/// Removes the files of a set, but for the one with the extension `kept`.
fn remove_files(folder: &Path, name: &str, kept: Option<&str>) -> std::io::Result<()> {
    for kind in KINDS.iter().filter(|kind| Some(**kind) != kept) {
        match std::fs::remove_file(folder.join(format!("{name}.{kind}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn read_folder(folder: &Path) -> Result<Sets, ServerError> {
    let mut sets = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| wrong(folder, e.to_string()))? {
        let path = entry.map_err(|e| wrong(folder, e.to_string()))?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_set(&path)) else {
            continue;
        };
        check_name(name).map_err(|error| wrong(&path, error.message))?;
        let bytes = std::fs::metadata(&path).map_err(|e| wrong(&path, e.to_string()))?.len();
        if bytes > MAX_BYTES || sets.len() == MAX_SETS {
            return Err(wrong(&path, format!("more than {MAX_BYTES} bytes, or than {MAX_SETS} files")));
        }
        let file = LabelFile::read_regular(&path).map_err(|error| wrong(&path, error.to_string()))?;
        for note in file.notes() {
            tracing::warn!("{}: {note}", path.display());
        }
        let labels = file.labels().map_err(|error| wrong(&path, error.to_string()))?;
        if sets.insert(name.to_owned(), Arc::new(labels)).is_some() {
            return Err(wrong(&path, format!("another file of the folder has the set {name:?} already")));
        }
    }
    Ok(sets)
}

fn wrong(path: &Path, reason: String) -> ServerError {
    ServerError::LabelSets { path: path.to_owned(), reason }
}

fn is_set(path: &Path) -> bool {
    let is_known =
        |extension: &std::ffi::OsStr| KINDS.iter().any(|kind| extension.eq_ignore_ascii_case(kind));
    path.extension().is_some_and(is_known) && path.is_file()
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

    fn list(names: &[&str]) -> LabelList {
        LabelList(names.iter().map(|&name| xmore::Label::new(name)).collect())
    }

    fn code<T>(result: Result<T, ApiError>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn sets_are_saved_read_again_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pets.txt"), "cat\ndog\n").unwrap();
        std::fs::write(folder.path().join("notes.md"), "not a set").unwrap();
        let sets = LabelSets::open(Some(folder.path()), true, 3).unwrap();
        assert_eq!(sets.read("pets").unwrap().names(), ["cat", "dog"]);
        let saved = sets.save("Vögel 1", list(&[" tit ", "wren"])).unwrap();
        assert_eq!(saved.names(), ["tit", "wren"]);
        let again = LabelSets::open(Some(folder.path()), false, 3).unwrap();
        assert_eq!(again.list().unwrap(), [("Vögel 1".to_owned(), 2), ("pets".to_owned(), 2)]);
        sets.remove("pets").unwrap();
        assert_eq!(code(sets.read("pets")), Some(ErrorCode::UnknownLabelSet));
        assert!(!folder.path().join("pets.txt").exists());
        assert_eq!(code(again.save("x", list(&["a", "b"]))), Some(ErrorCode::Disabled));
    }

    #[test]
    fn sets_of_every_form_come_back_as_they_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        let here = |name: &str| folder.path().join(name);
        std::fs::write(here("numbered.csv"), "id,label\n0,cat\n1,dog\n").unwrap();
        let sets = LabelSets::open(Some(folder.path()), true, 3).unwrap();
        assert_eq!(sets.read("numbered").unwrap().names(), ["cat", "dog"]);
        let own = LabelList::parse(r#"{"cat": ["a cat.", "a {}"], "dog": []}"#).unwrap();
        let synonyms = LabelList::parse(r#"[{"label": "cat", "synonyms": ["kitty"]}, "dog"]"#).unwrap();
        for (labels, file) in [
            (own, "x.json"),
            (synonyms, "x.json"),
            (list(&["# 1", "[b", "c"]), "x.json"),
            (list(&["#a", "b, c"]), "x.txt"),
            (list(&["0 a", "1 b"]), "x.json"),
        ] {
            let saved = sets.save("x", labels).unwrap();
            let again = LabelSets::open(Some(folder.path()), false, 3).unwrap();
            assert_eq!(again.read("x").unwrap(), saved);
            assert!(here(file).exists() && std::fs::read_dir(folder.path()).unwrap().count() == 2, "{file}");
        }
        sets.save("numbered", list(&["a", "b"])).unwrap();
        assert!(!here("numbered.csv").exists());
        std::fs::write(here("x.txt"), "a\nb\n").unwrap();
        let error = LabelSets::open(Some(folder.path()), true, 3).map(drop).unwrap_err().to_string();
        assert!(error.contains("another file"), "{error}");
    }

    #[test]
    fn names_and_labels_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sets = LabelSets::open(Some(folder.path()), true, 3).unwrap();
        let two = || list(&["a", "b"]);
        for name in ["", "..", "../x", "a/b", " a", "a.txt", "a\0", &"x".repeat(65)] {
            assert_eq!(code(sets.save(name, two())), Some(ErrorCode::InvalidParameter), "{name:?}");
        }
        for labels in [vec![], vec!["a"], vec!["a", "a"], vec!["a", "b\nc"], vec!["a", " "]] {
            assert_eq!(code(sets.save("x", list(&labels))), Some(ErrorCode::InvalidParameter));
        }
        assert_eq!(code(sets.save("x", list(&["a", "b", "c", "d"]))), Some(ErrorCode::TooMany));
        // What cannot be read again at the next start is not saved.
        let long = list(&[&"a".repeat(MAX_BYTES as usize), "b"]);
        assert_eq!(code(sets.save("x", long)), Some(ErrorCode::TooMany));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
