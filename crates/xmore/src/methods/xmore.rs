//! `xmore`: image and captions, each weighed by its confidence, as published (X-MoRe).

use super::{MethodInfo, Modalities};
use crate::evidence::Evidence;
use crate::probabilities::{image_weight, mix};

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "xmore",
    summary: "image and captions, each weighed by its confidence, as published (X-MoRe)",
    modalities: Modalities::Both,
    scores,
    sigmoids: None,
};

/// α / (α + β) p_img + β / (α + β) p_cap with the confidences α and β on this image (arXiv 2308.15273): no order, no stream; p_img where
/// nothing was retrieved.
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    let image = &evidence.image;
    Some(match &evidence.captions {
        Some(captions) => mix(image, captions, image_weight(image, captions)),
        None => image.values.clone(),
    })
}
