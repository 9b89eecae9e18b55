//! `templates`: the image alone, each label averaged over many prompts.

use super::{MethodInfo, Modalities};
use crate::evidence::Evidence;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "templates",
    summary: "the image alone, each label averaged over many prompts",
    modalities: Modalities::Image,
    scores,
    sigmoids: Some(|sigmoids| sigmoids.templates.as_ref()),
};

/// p_img, class embeddings averaged over many templates (open_clip, CLIP_benchmark).
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    Some(evidence.templates.as_ref()?.values.clone())
}
