//! What is wrong with labels, their files and their templates.

use thiserror::Error;

/// Errors of labels and templates.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Fewer than two labels: with one there is nothing to choose, and no confidence is defined.
    #[error("{found} label(s) given, at least 2 are needed: a classification chooses between labels")]
    TooFew {
        /// How many there were.
        found: usize,
    },
    /// A label twice would split its own probability.
    #[error(
        "label {label:?} is given twice{}; each label must be given once",
        lines.map_or_else(String::new, |(first, second)| format!(", on lines {first} and {second}"))
    )]
    Duplicate {
        /// The label.
        label: String,
        /// The lines, where it is from a file.
        lines: Option<(u64, u64)>,
    },
    /// A label without a visible character.
    #[error("label {} is empty", place + 1)]
    Empty {
        /// Its place among the labels, from 0.
        place: usize,
    },
    /// A table of labels without the column that has them.
    #[error(
        "{origin}: expected {}, found the columns {}",
        wanted.as_ref().map_or_else(|| "a column such as label or class".to_owned(), |name| format!("a column {name:?}")),
        columns.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    )]
    Column {
        /// The file.
        origin: String,
        /// The column that was asked for.
        wanted: Option<String>,
        /// The columns in its first line.
        columns: Vec<String>,
    },
    /// Something that should be labels and is not.
    #[error(
        "{origin}{}: expected {expected}, found {found}",
        line.map_or_else(String::new, |line| format!(", line {line}"))
    )]
    List {
        /// The file, or what else it is.
        origin: String,
        /// The line, if it is one's fault.
        line: Option<u64>,
        /// What was expected.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// A prompt template without a place for the label.
    #[error("template {template:?} has no `{{}}` (or `{{c}}`) where the label goes")]
    Template {
        /// The template.
        template: String,
    },
}
