//! What a run of `xmore eval` found, for every form of output.

use xmore_eval::registry::{Missing, Suite};
use xmore_eval::{Dataset, Details, EvalReport};

/// What was found on one dataset.
pub(super) struct Outcome {
    pub(super) report: EvalReport,
    /// What only a measurement of this run has.
    pub(super) fresh: Option<Fresh>,
}

/// The dataset and the answers on single images.
pub(super) struct Fresh {
    pub(super) dataset: Dataset,
    pub(super) details: Details,
}

/// All that a run found.
pub(super) struct Results<'a> {
    pub(super) reports: &'a [&'a EvalReport],
    pub(super) missing: &'a [Missing],
    pub(super) suite: Option<Suite>,
    /// The model's name.
    pub(super) model: &'a str,
}
