//! The answer to a query image: its logits, and what the memory adds to them.

use std::sync::Arc;

use super::gate::{LabelSupport, SupportKind};
use super::prototypes::Prototypes;
use super::{KernelState, Readings, deviation, logits, wide};
use crate::error::Result;
use crate::math::softmax;
use crate::probabilities::Probabilities;
use crate::retrieve::Neighborhood;

/// Weight A of the reading against the labels' kernel means, where the image has 1.
const AGAINST_MEANS: f64 = 0.3;
/// Weight B of the reading against the labels' texts.
const AGAINST_TEXTS: f64 = 0.3;
/// What the prototypes' weight adds to the temperature.
const PROTOTYPES_POOLED: f64 = 0.5;
/// Least similarity of the nearest pair that distances are compared with.
const MIN_NEAR: f64 = 1e-3;

/// The answer to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedPrediction {
    /// The distribution and its confidence.
    pub probabilities: Probabilities,
    /// How far the gate is open, in [0, 1].
    pub gate: f64,
    /// What opened it; `None` while it is closed.
    pub opened_by: Option<SupportKind>,
    /// Weight of the prototypes, in [0, 1]. With it and the gate at 0 the answer is zero-shot's.
    pub prototype_weight: f64,
    /// What a gate that is wholly open would have given, where that was asked for.
    pub open: Option<Probabilities>,
    /// What the memory shows of the labels, whatever the image.
    pub support: Arc<LabelSupport>,
}

/// Prototypes, and what their reading is multiplied by.
pub(super) struct ScaledPrototypes {
    pub prototypes: Prototypes,
    /// λ_l.
    pub factor: f64,
    /// h_c.
    pub support: Vec<f64>,
}

impl KernelState {
    /// The gate for an image of this zero-shot distribution and nearest similarity, and what opens it.
    fn gate(&self, zero_shot: &[f64], nearest: f64) -> (f64, Option<SupportKind>) {
        let usual = self.readings.as_ref().and_then(|readings| readings.usual.as_ref());
        let nearness = usual.filter(|usual| usual.near > 0.0).map(|usual| nearest / usual.near);
        let mut largest = (0.0, None);
        for measure in &self.measures {
            let gate = measure.gate(zero_shot, nearness);
            if gate > largest.0 {
                largest = (gate, Some(measure.support.kind));
            }
        }
        largest
    }

    /// The answer to a query image, a unit vector, by the pairs around it. `image` is zero-shot's.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub(crate) fn answer(
        &self,
        query: &[f32],
        image: &Probabilities,
        around: &Neighborhood<'_>,
    ) -> Result<GatedPrediction> {
        let (gate, opened_by) = match around.similarities.first() {
            Some(&nearest) => self.gate(&image.values, f64::from(nearest)),
            None => (0.0, None),
        };
        let prototypes = self.prototypes.as_ref().and_then(|p| p.read(query, &image.values, around));
        let prototype_weight = prototypes.as_ref().map_or(0.0, |(weight, _)| *weight);
        let mut prediction = GatedPrediction {
            probabilities: image.clone(),
            gate,
            opened_by,
            prototype_weight,
            open: None,
            support: self.support.clone(),
        };
        if gate == 0.0 && prototype_weight == 0.0 && !self.with_open {
            return Ok(prediction);
        }
        let z = logits(&wide(query), &self.labels, self.scale);
        let memory = match &self.readings {
            Some(readings) if gate > 0.0 || self.with_open => Some(self.read(readings, query, &z, around)?),
            _ => None,
        };
        let answer = |gate: f64| {
            if gate == 0.0 && prototype_weight == 0.0 {
                return image.clone();
            }
            let (mut f, mut temperature) = (z.clone(), 1.0);
            if let Some(memory) = &memory {
                f.iter_mut().zip(&memory.reading).for_each(|(f, reading)| *f += gate * reading);
                temperature *= 1.0 + gate * (AGAINST_MEANS + AGAINST_TEXTS);
                temperature *= 1.0 + gate * (memory.further - 1.0);
            }
            if let Some((weight, reading)) = &prototypes {
                f.iter_mut().zip(reading).for_each(|(f, reading)| *f += weight * reading);
                temperature *= 1.0 + PROTOTYPES_POOLED * weight;
            }
            f.iter_mut().for_each(|f| *f /= temperature);
            Probabilities::new(softmax(&f))
        };
        prediction.probabilities = answer(gate);
        prediction.open = self.with_open.then(|| answer(1.0));
        Ok(prediction)
    }

    /// What the captions around a query image say of the labels, in the unit of its logits `z`.
    fn read(
        &self,
        readings: &Readings,
        query: &[f32],
        z: &[f64],
        around: &Neighborhood<'_>,
    ) -> Result<MemoryReading> {
        let m = self.kernel_mean(query, around)?;
        let each = [logits(&m, &self.labels, self.scale), logits(&m, &readings.means, self.scale)];
        let spread = |x: &[f64]| deviation(x).sqrt();
        let factors = match &readings.usual {
            Some(usual) => [usual.texts, usual.means],
            None => each.each_ref().map(|r| if spread(r) > 0.0 { spread(z) / spread(r) } else { 0.0 }),
        };
        let weights = [AGAINST_TEXTS * factors[0], AGAINST_MEANS * factors[1]];
        let reading = each[0].iter().zip(&each[1]).map(|(e, u)| weights[0] * e + weights[1] * u).collect();
        let nearest = around.similarities.first().map_or(MIN_NEAR, |&s| f64::from(s).max(MIN_NEAR));
        let further = readings.usual.as_ref().map_or(1.0, |usual| (usual.near / nearest).max(1.0));
        Ok(MemoryReading { reading, further })
    }
}

/// What the captions around a query image say.
struct MemoryReading {
    /// B e + A u, `[C]`.
    reading: Vec<f64>,
    /// How much further the nearest pair is than is usual, at least 1.
    further: f64,
}

impl ScaledPrototypes {
    /// The weight w = (Σ_c q_c h_c)² and the reading l̃ of a query image, `[C]`; `None` if the weight is 0.
    fn read(&self, query: &[f32], zero_shot: &[f64], around: &Neighborhood<'_>) -> Option<(f64, Vec<f64>)> {
        let expected: f64 = zero_shot.iter().zip(&self.support).map(|(q, h)| q * h).sum();
        if expected == 0.0 {
            return None;
        }
        let read = self.prototypes.read(query, around.left_out());
        let total: f64 = self.support.iter().sum();
        let mean = read.iter().zip(&self.support).map(|(l, h)| h * l).sum::<f64>() / total;
        let reading = read.iter().zip(&self.support).map(|(l, h)| h * self.factor * (l - mean)).collect();
        Some((expected * expected, reading))
    }
}
