//! `xmore-calibrated`: the image's logits and two readings of what the memory recalls of such images, added where the memory has shown
//! that it knows the labels.
//!
//! With m(x) of [`recall`], labels t_c, and s = exp(logit_scale):
//!
//! - **Round trip** ρ_c: a label goes to the memory's images as if it were one, their captions come back and are classified; ρ_c is the
//!   probability of the same label. It needs no labelled image, knows how finely the labels divide the world, and is near 1 / C
//!   for captions that have nothing to do with their images.
//! - **Readings**: e_c = s λ_e m(v)·t_c against the labels' texts, and u_c = s λ_u m(v)·m̂(t_c) against what the memory recalls of an image
//!   that looks like the label, which cancels what the memory says of everything. λ bring either to the spread of the image logits z on
//!   [`references`]: neither the modality gap nor the sharpness of text–text cosines matters.
//! - **Gate** g: how far ρ, on average and for the labels that this image may have, lies between [`CLOSED`] and [`OPEN`], which
//!   are higher for fewer than five labels ([`thresholds`]).
//! - **Answer**: softmax of (z + g(B e + A u)) / T; T pools the three as experts of one opinion and cools the answer where the image is
//!   further from the memory than is usual.
//!
//! Constants and their reasons are in docs/method.md. Nothing depends on other query images. Of an engine only neighbours
//! are known: λ then bring the spread on this very image to that of z, and nothing is said of usual distances.

use rayon::prelude::*;
use xmore_clip::Embeddings;

use crate::error::Result;
use crate::math::softmax;
use crate::methods::Belief;
use crate::recall::{Kernel, mean_caption, recall, references};
use crate::retrieve::{Retrieval, Surrounding};

/// Pairs of which a recall is made.
pub(crate) const NEAR: usize = 1024;
/// Reference images.
const REFERENCES: usize = 256;
/// Weight A of the reading against recalled labels, where the image has 1.
const AGAINST_RECALLED: f64 = 0.3;
/// Weight B of the reading against the labels' texts.
const AGAINST_TEXTS: f64 = 0.3;
/// A round trip that comes back to its label this often or less closes the gate: two times out of three it says something else.
const CLOSED: f64 = 1.0 / 3.0;
/// One that comes back half of the time opens it.
const OPEN: f64 = 0.5;
/// Share μ of captions in the kernel.
const CAPTIONS: f64 = 0.5;
/// Least similarity of the nearest pair that distances are compared with.
const MIN_NEAR: f64 = 1e-3;

/// What is known of a memory under some labels; made once.
pub(crate) struct Calibrated {
    scale: f64,
    /// t_c.
    labels: Vec<Vec<f64>>,
    /// ρ_c.
    round_trip: Vec<f64>,
    /// Mean of ρ_c.
    mean_round_trip: f64,
    /// ē.
    mean: Vec<f64>,
    /// m̂(t_c); empty while the gate is closed for all images.
    recalled: Vec<Vec<f64>>,
    /// Of a memory on this machine.
    usual: Option<Usual>,
}

/// What is usual on reference images.
struct Usual {
    /// λ_e.
    texts: f64,
    /// λ_u.
    recalled: f64,
    /// Median similarity of the nearest pair.
    near: f64,
}

/// The answer to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibratedBelief {
    /// The distribution and its confidence.
    pub belief: Belief,
    /// How far the gate is open, in [0, 1]: 0 is zero-shot.
    pub gate: f64,
}

impl Calibrated {
    /// Looks at what the memory or engine knows of the labels, unit rows `[C, dim]`; `scale` is exp(logit_scale).
    ///
    /// # Errors
    /// Those of reading the memory or asking the engine.
    pub(crate) fn new(retrieval: &Retrieval, labels: &Embeddings, scale: f64) -> Result<Self> {
        let local = retrieval.local()?;
        let around = retrieval.surround(labels.as_slice(), NEAR)?;
        let mean = match local {
            Some((memory, column)) => mean_caption(retrieval, memory, column)?,
            None => mean_of(&around, labels.dim())?,
        };
        let recalled_by = |sharpness: f64, captions: f64| -> Result<Vec<Vec<f64>>> {
            let rows: Vec<&[f32]> = labels.rows().collect();
            let kernel = Kernel { sharpness, captions };
            rows.into_par_iter()
                .zip(&around)
                .map(|(label, around)| recall(label, around, &mean, kernel))
                .collect()
        };
        let texts: Vec<Vec<f64>> =
            labels.rows().map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect();
        let round_trip: Vec<f64> = recalled_by(2.0 * scale, 0.0)?
            .par_iter()
            .enumerate()
            .map(|(c, recalled)| softmax(&logits(recalled, &texts, scale))[c])
            .collect();
        let mean_round_trip = round_trip.iter().sum::<f64>() / round_trip.len() as f64;
        let mut state = Self {
            scale,
            labels: texts,
            round_trip,
            mean_round_trip,
            mean: mean.clone(),
            recalled: Vec::new(),
            usual: None,
        };
        if state.is_closed() {
            return Ok(state);
        }
        state.recalled = recalled_by(scale, CAPTIONS)?.into_iter().map(unit).collect();
        if let Some((memory, column)) = local {
            let references = references(retrieval, memory, column, REFERENCES, NEAR)?;
            state.usual = state.usual_on(&references.images, &references.surroundings)?;
            if state.usual.is_none() {
                // A memory without spread says the same of everything.
                state.mean_round_trip = 0.0;
            }
        }
        Ok(state)
    }

    /// Whether every image is answered zero-shot.
    pub(crate) fn is_closed(&self) -> bool {
        self.mean_round_trip <= thresholds(self.labels.len())[0]
    }

    /// The mean round trip, in [0, 1]: how much the memory knows of the labels.
    pub(crate) fn round_trip(&self) -> f64 {
        self.mean_round_trip
    }

    fn usual_on(&self, images: &[f32], surroundings: &[Surrounding<'_>]) -> Result<Option<Usual>> {
        let dim = self.mean.len();
        let each: Vec<([f64; 3], f64)> = images
            .par_chunks_exact(dim)
            .zip(surroundings)
            .map(|(image, around)| {
                let m = self.recall(image, around)?;
                let wide: Vec<f64> = image.iter().map(|&v| f64::from(v)).collect();
                let of = |x: &[f64], to: &[Vec<f64>]| deviation(&logits(x, to, 1.0));
                let near = around.similarities.first().map_or(0.0, |&s| f64::from(s));
                Ok(([of(&wide, &self.labels), of(&m, &self.labels), of(&m, &self.recalled)], near))
            })
            .collect::<Result<_>>()?;
        let spread = |i: usize| each.iter().map(|(d, _)| d[i]).sum::<f64>().sqrt();
        let [image, texts, recalled] = [0, 1, 2].map(spread);
        if each.is_empty() || texts <= 0.0 || recalled <= 0.0 {
            return Ok(None);
        }
        let near = median(each.iter().map(|(_, near)| *near).collect());
        Ok(Some(Usual { texts: image / texts, recalled: image / recalled, near }))
    }

    fn recall(&self, image: &[f32], around: &Surrounding<'_>) -> Result<Vec<f64>> {
        recall(image, around, &self.mean, Kernel { sharpness: self.scale, captions: CAPTIONS })
    }

    /// The answer to a query image, a unit vector, by the pairs around it. `image` is zero-shot's.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub(crate) fn answer(
        &self,
        query: &[f32],
        image: &Belief,
        around: &Surrounding<'_>,
    ) -> Result<CalibratedBelief> {
        let expected: f64 = image.probabilities.iter().zip(&self.round_trip).map(|(p, r)| p * r).sum();
        let [closed, open] = thresholds(self.labels.len());
        let gate = ((expected.min(self.mean_round_trip) - closed) / (open - closed)).clamp(0.0, 1.0);
        if gate == 0.0 || around.similarities.is_empty() {
            return Ok(CalibratedBelief { belief: image.clone(), gate: 0.0 });
        }
        let wide: Vec<f64> = query.iter().map(|&v| f64::from(v)).collect();
        let z = logits(&wide, &self.labels, self.scale);
        let m = self.recall(query, around)?;
        let readings = [logits(&m, &self.labels, self.scale), logits(&m, &self.recalled, self.scale)];
        let spread = |x: &[f64]| deviation(x).sqrt();
        let lambdas = match &self.usual {
            Some(usual) => [usual.texts, usual.recalled],
            None => readings.each_ref().map(|r| if spread(r) > 0.0 { spread(&z) / spread(r) } else { 0.0 }),
        };
        let further = self
            .usual
            .as_ref()
            .map_or(1.0, |usual| (usual.near / f64::from(around.similarities[0]).max(MIN_NEAR)).max(1.0));
        let temperature = (1.0 + gate * (AGAINST_RECALLED + AGAINST_TEXTS)) * (1.0 + gate * (further - 1.0));
        let pooled: Vec<f64> = z
            .iter()
            .zip(&readings[0])
            .zip(&readings[1])
            .map(|((z, e), u)| {
                let memory = AGAINST_TEXTS * lambdas[0] * e + AGAINST_RECALLED * lambdas[1] * u;
                (z + gate * memory) / temperature
            })
            .collect();
        Ok(CalibratedBelief { belief: Belief::new(softmax(&pooled)), gate })
    }
}

/// Mean of an engine's captions around all labels, each caption once.
fn mean_of(around: &[Surrounding<'_>], dim: usize) -> Result<Vec<f64>> {
    let mut seen = std::collections::HashSet::new();
    let (mut sum, mut text) = (vec![0.0; dim], vec![0.0f32; dim]);
    for surrounding in around {
        for pair in 0..surrounding.similarities.len() {
            surrounding.text(pair, &mut text)?;
            let bits: Vec<u32> = text.iter().map(|v| v.to_bits()).collect();
            if seen.insert(bits) {
                sum.iter_mut().zip(&text).for_each(|(sum, &v)| *sum += f64::from(v));
            }
        }
    }
    let count = seen.len().max(1) as f64;
    sum.iter_mut().for_each(|sum| *sum /= count);
    Ok(sum)
}

/// The round trips that close and open the gate under `count` labels. Of fewer than five, chance alone comes back more than a fifth of the
/// time; then a sixth and a third of the way from chance to certainty are asked for.
fn thresholds(count: usize) -> [f64; 2] {
    let chance = 1.0 / count as f64;
    let beyond = |share: f64| chance + share * (1.0 - chance);
    [CLOSED.max(beyond(1.0 / 6.0)), OPEN.max(beyond(1.0 / 3.0))]
}

/// scale · x·t_c for each row.
fn logits(x: &[f64], rows: &[Vec<f64>], scale: f64) -> Vec<f64> {
    rows.iter().map(|row| scale * x.iter().zip(row).map(|(a, b)| a * b).sum::<f64>()).collect()
}

/// Mean square around the mean.
fn deviation(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / x.len() as f64
}

fn unit(mut x: Vec<f64>) -> Vec<f64> {
    let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    x.iter_mut().for_each(|v| *v /= norm);
    x
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests;
