//! Labels as files and lists have them, before they are checked: what every form's reader gives.

use super::Label;
use super::error::LabelError;
use crate::error::Result;

/// Labels, or rows of a table of them, in one file or list: bounds memory.
pub(super) const MAX_LABELS: usize = 200_000;

/// One label of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelEntry {
    /// The label, its prompts and its further names.
    pub label: Label,
    /// What the file calls it besides, such as a WordNet id.
    pub id: Option<String>,
    /// Its line, where the file has one label on each.
    pub line: Option<u64>,
}

/// What a form's reader found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<LabelEntry>,
    pub(super) notes: Vec<String>,
}

impl LabelEntry {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { label: Label::new(name), ..Self::default() }
    }
}

/// Whether text is an id of WordNet's as ImageNet has them, such as `n01440764`.
pub fn is_wordnet_id(text: &str) -> bool {
    text.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses more labels, or rows with them, than are read.
pub(super) fn check_count(count: usize, origin: &str) -> Result<()> {
    if count <= MAX_LABELS {
        return Ok(());
    }
    Err(LabelError::List {
        origin: origin.to_owned(),
        line: None,
        expected: format!("at most {MAX_LABELS} labels"),
        found: "more".to_owned(),
    }
    .into())
}

/// Puts numbered entries into the order of their numbers.
pub(super) fn in_order(mut numbered: Vec<(u64, LabelEntry)>) -> Vec<LabelEntry> {
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, entry)| entry).collect()
}

/// `1 line`, `2 lines`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
