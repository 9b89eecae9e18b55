//! `zero-shot`: the image alone, each label in one prompt.

use super::MethodInfo;
use crate::evidence::Evidence;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "zero-shot",
    summary: "the image alone, each label in one prompt",
    needs_memory: false,
    scores,
};

/// p_img.
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    Some(evidence.image.values.clone())
}
