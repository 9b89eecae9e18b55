//! How far `xmore-kernel` took the memory into account, and what it would have given otherwise.

use serde::{Deserialize, Serialize};
use xmore::{Evidence, LabelSupport, Method, SupportKind};

use super::metrics::{Outcome, mean, share};
use crate::error::Result;

/// How far `xmore-kernel` took the memory into account, and the accuracies of what else could have been done with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// What the memory shows of the labels.
    #[serde(flatten)]
    pub labels: LabelSupport,
    /// Mean over the images of how far the gate is open, in [0, 1].
    pub mean_gate: f64,
    /// Mean over the images of the prototypes' weight, in [0, 1].
    pub mean_prototype_weight: f64,
    /// What opened the gate, and for which share of the images; the rest is closed.
    pub opened_by: Vec<(SupportKind, f64)>,
    /// Accuracy as measured.
    pub acc1: f64,
    /// Accuracy if the gate had been wholly open for every image.
    pub acc1_open_gate: f64,
    /// Accuracy of the paper's method.
    pub acc1_xmore: f64,
}

/// Gathers it image by image.
#[derive(Default)]
pub(super) struct MemoryTally {
    labels: Option<LabelSupport>,
    gates: Vec<f64>,
    weights: Vec<f64>,
    opened_by: Vec<(SupportKind, usize)>,
    right: [usize; 3],
}

impl MemoryTally {
    /// Adds an image, if the kernel's answer to it has that of an open gate beside it.
    pub fn add(&mut self, evidence: &Evidence, truth: usize) -> Result<()> {
        let Some((gated, open)) = evidence.gated.as_ref().and_then(|g| Some((g, g.open.as_ref()?))) else {
            return Ok(());
        };
        self.labels.get_or_insert_with(|| (*gated.support).clone());
        self.gates.push(gated.gate);
        self.weights.push(gated.prototype_weight);
        if let Some(kind) = gated.opened_by {
            match self.opened_by.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => self.opened_by.push((kind, 1)),
            }
        }
        let xmore = evidence.scores(Method::Xmore)?;
        let answers = [&gated.probabilities.values, &open.values, &xmore];
        for (right, scores) in self.right.iter_mut().zip(answers) {
            *right += usize::from(Outcome::new(scores, truth).right());
        }
        Ok(())
    }

    /// `images` are all of the dataset, those that could not be read included. `None` if nothing was added.
    pub fn report(self, images: usize) -> Option<MemoryUse> {
        let [acc1, acc1_open_gate, acc1_xmore] = self.right.map(|right| share(right, images));
        let read = self.gates.len();
        Some(MemoryUse {
            labels: self.labels?,
            mean_gate: mean(&self.gates),
            mean_prototype_weight: mean(&self.weights),
            opened_by: self.opened_by.into_iter().map(|(kind, count)| (kind, share(count, read))).collect(),
            acc1,
            acc1_open_gate,
            acc1_xmore,
        })
    }
}
