//! `equal`: half image, half captions.

use super::{MethodInfo, Modalities};
use crate::evidence::Evidence;
use crate::probabilities::mix;

pub(super) const INFO: MethodInfo = MethodInfo {
    name: "equal",
    summary: "half image, half captions",
    modalities: Modalities::Both,
    scores,
    sigmoids: None,
};

/// ½ p_img + ½ p_cap, the paper's ablation; p_img where nothing was retrieved.
fn scores(evidence: &Evidence) -> Option<Vec<f64>> {
    Some(match &evidence.captions {
        Some(captions) => mix(&evidence.image, captions, 0.5),
        None => evidence.image.values.clone(),
    })
}
