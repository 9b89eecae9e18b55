//! How long the stages of a batch took.

use std::time::Duration;

/// How long a batch's stages took, and the wait before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) queue: Duration,
    pub(crate) decode: Duration,
    pub(crate) encode: Duration,
    pub(crate) search: Duration,
    pub(crate) ensemble: Duration,
}

impl Times {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            queue: self.queue.max(other.queue),
            decode: self.decode.max(other.decode),
            encode: self.encode.max(other.encode),
            search: self.search.max(other.search),
            ensemble: self.ensemble.max(other.ensemble),
        }
    }
}
