//! What is worth knowing of how a source was read, though nothing of it is missing.

use std::fmt;
use std::path::PathBuf;

use xmore_files::path_to_text;
use xmore_files::table::{Found, Role};
use xmore_files::text::Conversion;

/// One thing to know of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file or folder.
    pub path: PathBuf,
    /// What there is to know.
    pub kind: NoteKind,
}

/// What there is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoteKind {
    /// Text is not UTF-8, so its encoding was guessed.
    Converted {
        /// Files of captions in which there is such text, 1 for a table.
        files: u64,
        /// What was done to it.
        conversion: Conversion,
    },
    /// A folder gave no pair.
    NoPairs {
        /// Images in it, none of which has a caption.
        images: u64,
        /// Files in it that may have the captions.
        tables: Vec<String>,
    },
    /// Several columns have a name that is usual for what they are taken for.
    SeveralColumns {
        /// What the column is for.
        role: Role,
        /// The one that was taken.
        taken: String,
        /// The others.
        others: Vec<String>,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", path_to_text(&self.path))?;
        match &self.kind {
            NoteKind::Converted { files: 1, conversion } => write!(f, "{conversion}"),
            NoteKind::Converted { files, conversion } => {
                write!(f, "in {files} files of captions: {conversion}")
            }
            NoteKind::NoPairs { images, tables } => {
                write!(
                    f,
                    "no pair: it holds {images} images, none of them with a caption in a .txt, .caption or .json beside it or in \
                     a metadata.csv, .jsonl or .parquet"
                )?;
                match tables.is_empty() {
                    true => Ok(()),
                    false => write!(f, "; there is {}, which can be given in its place", tables.join(", ")),
                }
            }
            NoteKind::SeveralColumns { role, taken, others } => {
                let others: Vec<String> = others.iter().map(|name| format!("{name:?}")).collect();
                write!(f, "column {taken:?} is taken for the {role}, not {}", others.join(", "))
            }
        }
    }
}

/// Files of which the text was converted, and how.
#[derive(Debug, Default)]
pub(super) struct Conversions {
    files: u64,
    conversion: Conversion,
}

impl Conversions {
    /// Counts a file.
    pub fn add(&mut self, conversion: Conversion) {
        if !conversion.is_certain() {
            self.files += 1;
            self.conversion.add(conversion);
        }
    }

    /// A note, if any file was converted.
    pub fn note(self, path: impl Into<PathBuf>) -> Option<Note> {
        let Conversions { files, conversion } = self;
        (files > 0).then(|| Note { path: path.into(), kind: NoteKind::Converted { files, conversion } })
    }
}

/// A note of the columns that were not taken, if there are some.
pub(super) fn of_columns(
    path: impl Into<PathBuf>,
    role: Role,
    found: &Found,
    columns: &[String],
) -> Option<Note> {
    let others: Vec<String> = found.others.iter().map(|&index| columns[index].clone()).collect();
    let kind = NoteKind::SeveralColumns { role, taken: columns[found.index].clone(), others };
    (!found.others.is_empty()).then(|| Note { path: path.into(), kind })
}
