//! Sources of image–caption pairs: what kind a path is, and what is read from it.
//!
//! A new kind of source is a new module with a `read(&Path) -> Result<Ingested>` and a new [`Source`] variant.

mod folder;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{AtPath, MemoryError, Result};

/// One distinct image with all its captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Path of the image. It is not opened while ingesting, so it may turn out not to exist.
    pub image_path: PathBuf,
    /// Its captions in the order of the source; never empty, and no caption is blank.
    pub captions: Vec<String>,
}

/// Everything read from a source, and everything that was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Pairs, one per distinct image, in the order of the source.
    pub pairs: Vec<Pair>,
    /// What was skipped, in the order of the source.
    pub skipped: Vec<Skip>,
}

/// One thing of a source that gives no pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The image (of a folder) or the table that holds the bad row.
    pub path: PathBuf,
    /// Why it was skipped.
    pub reason: SkipReason,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Why something was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The image has no `.txt` of the same stem beside it.
    NoCaption,
    /// The caption is blank (for a `.txt`: its first line is).
    EmptyCaption,
    /// The path is not UTF-8, so it could not be recorded faithfully.
    PathNotUtf8,
    /// A file or directory could not be read; holds the system's message.
    Unreadable(String),
    /// A row of a table is malformed.
    Row {
        /// Line of the table on which the row starts, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkipReason::NoCaption => f.write_str("no .txt file of the same name beside it"),
            SkipReason::EmptyCaption => f.write_str("its caption is empty"),
            SkipReason::PathNotUtf8 => f.write_str("its path is not UTF-8"),
            SkipReason::Unreadable(message) => write!(f, "cannot be read: {message}"),
            SkipReason::Row { line, what } => write!(f, "line {line}: {what}"),
        }
    }
}

/// A source of pairs, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A folder of images, each with its caption in a `.txt` of the same stem.
    Folder(PathBuf),
    /// A comma- or tab-separated table with an image column and a caption column.
    Table(PathBuf),
}

impl Source {
    /// Finds out what kind of source `path` is: a directory is a folder, `.csv` and `.tsv` are tables.
    ///
    /// # Errors
    /// [`MemoryError::Io`] if there is nothing at `path`, [`MemoryError::UnknownSource`] if it is of another kind.
    pub fn detect(path: impl AsRef<Path>) -> Result<Source> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).at("open", path)?;
        if metadata.is_dir() {
            return Ok(Source::Folder(path.to_owned()));
        }
        let extension = extension(path);
        let hint = match extension.as_str() {
            "csv" | "tsv" => return Ok(Source::Table(path.to_owned())),
            "parquet" | "tar" => format!("a .{extension} cannot be read yet: write its pairs to a .csv"),
            "txt" => "rename the file to .csv or .tsv if it is a table".to_owned(),
            "jpg" | "jpeg" | "png" | "webp" => "give the folder that holds the image".to_owned(),
            "" => "the file has no extension".to_owned(),
            other => format!("a .{other} file cannot be read"),
        };
        Err(MemoryError::UnknownSource { path: path.to_owned(), hint })
    }

    /// Reads all pairs of the source. Bad rows and images without a caption are skipped and listed.
    ///
    /// # Errors
    /// Only what makes the source as a whole unusable: it cannot be opened, or a table lacks a column.
    pub fn read(&self) -> Result<Ingested> {
        match self {
            Source::Folder(path) => folder::read(path),
            Source::Table(path) => table::read(path),
        }
    }
}

/// Extension in lower case, empty when there is none.
/// Whether a file's name is that of an image: .jpg, .jpeg, .png or .webp, in any case.
pub fn is_image_name(path: &Path) -> bool {
    matches!(extension(path).as_str(), "jpg" | "jpeg" | "png" | "webp")
}

fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_known_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Source::detect(dir.path()).unwrap(), Source::Folder(dir.path().to_owned()));
        for name in ["pairs.csv", "pairs.TSV"] {
            let path = dir.path().join(name);
            std::fs::write(&path, "image_path,caption\n").unwrap();
            assert_eq!(Source::detect(&path).unwrap(), Source::Table(path));
        }
    }

    #[test]
    fn other_things_are_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        for (name, hint) in
            [("a.parquet", ".csv"), ("a.jpg", "folder"), ("a", "no extension"), ("a.zip", ".zip")]
        {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let message = Source::detect(&path).unwrap_err().to_string();
            assert!(message.contains(hint) && message.contains(name), "{message}");
        }
        let message = Source::detect(dir.path().join("absent.csv")).unwrap_err().to_string();
        assert!(message.contains("absent.csv"), "{message}");
    }
}
