//! `xmore-kernel`: what the memory says of such images is added to the image's logits, as far as the memory knows the labels.

use super::{MethodInfo, Modalities};
use crate::evidence::Evidence;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "xmore-kernel",
    summary: "the image, and what the memory says of images like it, as far as it knows the labels",
    modalities: Modalities::Both,
    scores,
    sigmoids: None,
};

/// The distribution of [`crate::GatedPrediction`]; p_img without pairs.
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    match (&evidence.gated, &evidence.captions) {
        (Some(gated), _) => Some(gated.probabilities.values.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(evidence.image.values.clone()),
    }
}
