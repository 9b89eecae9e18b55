//! `captions`: the retrieved captions alone: each is classified, and their answers are averaged.

use super::{MethodInfo, Modalities};
use crate::evidence::Evidence;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "captions",
    summary: "the retrieved captions alone: each is classified, and their answers are averaged",
    modalities: Modalities::Captions,
    scores,
    sigmoids: None,
};

/// p_cap; p_img where nothing was retrieved, as METHOD says.
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    Some(evidence.captions.as_ref().unwrap_or(&evidence.image).values.clone())
}
