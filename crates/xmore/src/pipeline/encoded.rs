//! Query images that several encoders have embedded.

use crate::error::XmoreError;
use crate::partly_seen::PartlySeen;
use crate::retrieve::Queries;

/// Photos encoded by every encoder that needs them.
#[derive(Default)]
pub struct EncodedQueries {
    /// Index of the first file behind them.
    pub end: usize,
    /// For each row, the index of its file.
    pub kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub failed: Vec<(usize, XmoreError)>,
    /// How many were looked at only in part.
    pub partly_seen: PartlySeen,
    /// The rows, if there are any.
    pub queries: Option<Queries>,
}

impl EncodedQueries {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Puts those that come next behind these.
    pub fn append(&mut self, next: Self) {
        self.end = next.end;
        self.kept.extend(next.kept);
        self.failed.extend(next.failed);
        self.partly_seen += next.partly_seen;
        match (&mut self.queries, next.queries) {
            (Some(queries), Some(next)) => queries.append(next),
            (queries @ None, next) => *queries = next,
            (Some(_), None) => {}
        }
    }
}
