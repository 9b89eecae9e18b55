//! Labels in a file of any of the usual forms, which its content tells.

use std::path::Path;

use xmore_files::text::decode_text;
use xmore_files::{read_bounded, read_input};

use super::entries::LabelEntry;
use super::error::LabelError;
use super::{Label, Labels, json, lines, table};
use crate::error::{Result, XmoreError};

/// The largest file of labels that is read.
pub const MAX_LABEL_BYTES: u64 = 16 << 20;

/// Labels as a file has them.
///
/// | content | labels |
/// |---|---|
/// | lines | one label each; blank lines and comments (`# …`, `// …`) are left out, quotes around a whole line, bullets and line numbers too |
/// | csv, tsv, with `,` `;` `\|` or tabs | the column named `label`, `class`, `name` or the like; with a column `prompt`, each label's own prompts; with a column `synonyms`, its further names, between `\|` or `;` |
/// | JSON list | strings, `[id, name]`, or objects with `label` or `name`, and perhaps `prompts` and `synonyms` |
/// | JSON object | a prompt, a list of prompts, or an object with `prompts` and `synonyms` for each label; or names by number, numbers by name, or `id2label` among other things |
/// | JSON lines | a string, list or object each |
///
/// Text is UTF-8 or UTF-16, with or without a byte order mark, else Windows-1252; lines end in any way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFile {
    entries: Vec<LabelEntry>,
    notes: Vec<String>,
}

impl LabelFile {
    /// Reads a file. `column` names the column that has the labels, where the file is a table.
    ///
    /// # Errors
    /// [`XmoreError::Io`], also for a file of more than [`MAX_LABEL_BYTES`]; [`LabelError::Column`] for a table without the column, or
    /// any that is known; [`LabelError::List`] for what is no list of labels.
    pub fn read(path: &Path, column: Option<&str>) -> Result<Self> {
        let bytes = read_input(path, MAX_LABEL_BYTES).map_err(|e| XmoreError::io("read", path, e))?;
        Self::parse(&bytes, &path.display().to_string(), column)
    }

    /// The same of a file that was found in a folder rather than named by a user: only a regular one is read.
    ///
    /// # Errors
    /// As [`LabelFile::read`].
    pub fn read_regular(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path, MAX_LABEL_BYTES).map_err(|e| XmoreError::io("read", path, e))?;
        Self::parse(&bytes, &path.display().to_string(), None)
    }

    /// The same from a file's bytes; `name` is the file's in errors, and where it ends in `.csv` or `.tsv` the file is a table.
    ///
    /// # Errors
    /// As [`LabelFile::read`].
    pub fn parse(bytes: &[u8], name: &str, column: Option<&str>) -> Result<Self> {
        let decoded = decode_text(bytes);
        if let Some(at) = decoded.text.find('\0') {
            return Err(LabelError::List {
                origin: name.to_owned(),
                line: Some(1 + decoded.text[..at].matches('\n').count() as u64),
                expected: "text".to_owned(),
                found: "a zero byte: another kind of file".to_owned(),
            }
            .into());
        }
        let text = decoded.text.replace("\r\n", "\n").replace('\r', "\n");
        let is_table = [".csv", ".tsv"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
        let mut found = if column.is_some() {
            table::read(&text, name, column, true)?.unwrap_or_default()
        } else if text.trim_start().starts_with(['[', '{']) && !lines::first_is_bracketed(&text) {
            json::parse(&text, name)?
        } else {
            match table::read(&text, name, None, is_table)? {
                Some(found) => found,
                None => lines::read(&text, name)?,
            }
        };
        if !decoded.conversion.is_certain() {
            found.notes.insert(0, decoded.conversion.to_string());
        }
        Ok(Self { entries: found.entries, notes: found.notes })
    }

    /// What was left out or guessed, to be told to the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The labels as they are, not yet checked.
    pub fn into_labels(self) -> Vec<Label> {
        self.entries.into_iter().map(|entry| entry.label).collect()
    }

    /// The labels.
    ///
    /// # Errors
    /// As [`Labels::new`]; a label that is there twice is told with its lines.
    pub fn labels(&self) -> Result<Labels> {
        let labels = self.repeatable()?;
        let Some((first, second)) = labels.repeated() else { return Ok(labels) };
        let lines = self.entries[first].line.zip(self.entries[second].line);
        Err(LabelError::Duplicate { label: labels.names()[second].clone(), lines }.into())
    }

    /// The labels of a published dataset; see [`Labels::repeatable`].
    ///
    /// # Errors
    /// As [`Labels::repeatable`].
    pub fn repeatable(&self) -> Result<Labels> {
        Labels::repeatable_with_prompts(self.entries.iter().map(|entry| entry.label.clone()))
    }

    /// All entries.
    pub fn entries(&self) -> &[LabelEntry] {
        &self.entries
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
