//! `zero-shot`: the image alone, each label in one prompt.

use super::{MethodInfo, Modalities};
use crate::evidence::Evidence;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "zero-shot",
    summary: "the image alone, each label in one prompt",
    modalities: Modalities::Image,
    scores,
    sigmoids: Some(|sigmoids| Some(&sigmoids.image)),
};

/// p_img.
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    Some(evidence.image.values.clone())
}
