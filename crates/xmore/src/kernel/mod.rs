//! `xmore-kernel`: the image's logits and two readings of the captions of such images in the memory, added where the memory has shown
//! that it knows the labels.
//!
//! With m(x) of [`kernel_mean`], labels t_c, and s = exp(logit_scale):
//!
//! - **Label coverage** ρ_c: a label goes to the memory's images as if it were one, their captions come back and are classified; ρ_c is the
//!   probability of the same label. It needs no labeled image, knows how finely the labels divide the world, and is near 1 / C
//!   for captions that have nothing to do with their images.
//! - **Readings**: e_c = s λ_e m(v)·t_c against the labels' texts, and u_c = s λ_u m(v)·m̂(t_c) against the kernel mean of an image
//!   that looks like the label, which cancels what the memory says of everything. λ bring either to the spread of the image logits z on
//!   [`references`]: neither the modality gap nor the sharpness of text–text cosines matters.
//! - **Gate** g: how far ρ, on average and for the labels that this image may have, lies between [`CLOSED`] and [`OPEN`], which
//!   are higher for fewer than five labels ([`thresholds`]).
//! - **Answer**: softmax of (z + g(B e + A u)) / T; T pools the three as experts of one opinion and cools the answer where the image is
//!   further from the memory than is usual.
//!
//! Constants and their reasons are in docs/method.md. Nothing depends on other query images. Of a remote index only neighbors
//! are known: λ then bring the spread on this very image to that of z, and nothing is said of usual distances.

mod mean;

use rayon::prelude::*;
use xmore_clip::Embeddings;

use crate::error::Result;
use crate::math::softmax;
use crate::probabilities::Probabilities;
use crate::retrieve::{Neighborhood, Retrieval};
use mean::{KernelWeights, kernel_mean, mean_caption, references};

/// Pairs of which a kernel mean is made.
pub(crate) const NEAR: usize = 1024;
/// Reference images.
const REFERENCES: usize = 256;
/// Weight A of the reading against means labels, where the image has 1.
const AGAINST_MEANS: f64 = 0.3;
/// Weight B of the reading against the labels' texts.
const AGAINST_TEXTS: f64 = 0.3;
/// A label whose captions come back to it this often or less closes the gate: two times out of three it says something else.
const CLOSED: f64 = 1.0 / 3.0;
/// One whose captions come back half of the time opens it.
const OPEN: f64 = 0.5;
/// Share μ of captions in the kernel.
const CAPTIONS: f64 = 0.5;
/// Least similarity of the nearest pair that distances are compared with.
const MIN_NEAR: f64 = 1e-3;

/// What is known of a memory under some labels; made once.
pub(crate) struct KernelState {
    scale: f64,
    /// t_c.
    labels: Vec<Vec<f64>>,
    /// ρ_c.
    label_coverage: Vec<f64>,
    /// Mean of ρ_c.
    mean_label_coverage: f64,
    /// ē.
    mean: Vec<f64>,
    /// m̂(t_c); empty while the gate is closed for all images.
    means: Vec<Vec<f64>>,
    /// Of a memory on this machine.
    usual: Option<Usual>,
}

/// What is usual on reference images.
struct Usual {
    /// λ_e.
    texts: f64,
    /// λ_u.
    means: f64,
    /// Median similarity of the nearest pair.
    near: f64,
}

/// The answer to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedPrediction {
    /// The distribution and its confidence.
    pub probabilities: Probabilities,
    /// How far the gate is open, in [0, 1]: 0 is zero-shot.
    pub gate: f64,
}

impl KernelState {
    /// Looks at what the memory or remote index knows of the labels, unit rows `[C, dim]`; `scale` is exp(logit_scale).
    ///
    /// # Errors
    /// Those of reading the memory or asking the remote index.
    pub(crate) fn new(retrieval: &Retrieval, labels: &Embeddings, scale: f64) -> Result<Self> {
        let local = retrieval.local()?;
        let around = retrieval.neighborhoods(labels.as_slice(), NEAR)?;
        let mean = match local {
            Some((memory, column)) => mean_caption(retrieval, memory, column)?,
            None => mean_of(&around, labels.dim())?,
        };
        let kernel_means = |sharpness: f64, captions: f64| -> Result<Vec<Vec<f64>>> {
            let rows: Vec<&[f32]> = labels.rows().collect();
            let kernel = KernelWeights { sharpness, captions };
            rows.into_par_iter()
                .zip(&around)
                .map(|(label, around)| kernel_mean(label, around, &mean, kernel))
                .collect()
        };
        let texts: Vec<Vec<f64>> =
            labels.rows().map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect();
        let label_coverage: Vec<f64> = kernel_means(2.0 * scale, 0.0)?
            .par_iter()
            .enumerate()
            .map(|(c, means)| softmax(&logits(means, &texts, scale))[c])
            .collect();
        let mean_label_coverage = label_coverage.iter().sum::<f64>() / label_coverage.len() as f64;
        let mut state = Self {
            scale,
            labels: texts,
            label_coverage,
            mean_label_coverage,
            mean: mean.clone(),
            means: Vec::new(),
            usual: None,
        };
        if state.is_closed() {
            return Ok(state);
        }
        state.means = kernel_means(scale, CAPTIONS)?.into_iter().map(unit).collect();
        if let Some((memory, column)) = local {
            let references = references(retrieval, memory, column, REFERENCES, NEAR)?;
            state.usual = state.usual_on(&references.images, &references.neighborhoods)?;
            if state.usual.is_none() {
                // A memory without spread says the same of everything.
                state.mean_label_coverage = 0.0;
            }
        }
        Ok(state)
    }

    /// Whether every image is answered zero-shot.
    pub(crate) fn is_closed(&self) -> bool {
        self.mean_label_coverage <= thresholds(self.labels.len())[0]
    }

    /// The mean label coverage, in [0, 1]: how much the memory knows of the labels.
    pub(crate) fn label_coverage(&self) -> f64 {
        self.mean_label_coverage
    }

    fn usual_on(&self, images: &[f32], neighborhoods: &[Neighborhood<'_>]) -> Result<Option<Usual>> {
        let dim = self.mean.len();
        let each: Vec<([f64; 3], f64)> = images
            .par_chunks_exact(dim)
            .zip(neighborhoods)
            .map(|(image, around)| {
                let m = self.kernel_mean(image, around)?;
                let wide: Vec<f64> = image.iter().map(|&v| f64::from(v)).collect();
                let of = |x: &[f64], to: &[Vec<f64>]| deviation(&logits(x, to, 1.0));
                let near = around.similarities.first().map_or(0.0, |&s| f64::from(s));
                Ok(([of(&wide, &self.labels), of(&m, &self.labels), of(&m, &self.means)], near))
            })
            .collect::<Result<_>>()?;
        let spread = |i: usize| each.iter().map(|(d, _)| d[i]).sum::<f64>().sqrt();
        let [image, texts, means] = [0, 1, 2].map(spread);
        if each.is_empty() || texts <= 0.0 || means <= 0.0 {
            return Ok(None);
        }
        let near = median(each.iter().map(|(_, near)| *near).collect());
        Ok(Some(Usual { texts: image / texts, means: image / means, near }))
    }

    fn kernel_mean(&self, image: &[f32], around: &Neighborhood<'_>) -> Result<Vec<f64>> {
        kernel_mean(image, around, &self.mean, KernelWeights { sharpness: self.scale, captions: CAPTIONS })
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
        let expected: f64 = image.values.iter().zip(&self.label_coverage).map(|(p, r)| p * r).sum();
        let [closed, open] = thresholds(self.labels.len());
        let gate = ((expected.min(self.mean_label_coverage) - closed) / (open - closed)).clamp(0.0, 1.0);
        if gate == 0.0 || around.similarities.is_empty() {
            return Ok(GatedPrediction { probabilities: image.clone(), gate: 0.0 });
        }
        let wide: Vec<f64> = query.iter().map(|&v| f64::from(v)).collect();
        let z = logits(&wide, &self.labels, self.scale);
        let m = self.kernel_mean(query, around)?;
        let readings = [logits(&m, &self.labels, self.scale), logits(&m, &self.means, self.scale)];
        let spread = |x: &[f64]| deviation(x).sqrt();
        let lambdas = match &self.usual {
            Some(usual) => [usual.texts, usual.means],
            None => readings.each_ref().map(|r| if spread(r) > 0.0 { spread(&z) / spread(r) } else { 0.0 }),
        };
        let further = self
            .usual
            .as_ref()
            .map_or(1.0, |usual| (usual.near / f64::from(around.similarities[0]).max(MIN_NEAR)).max(1.0));
        let temperature = (1.0 + gate * (AGAINST_MEANS + AGAINST_TEXTS)) * (1.0 + gate * (further - 1.0));
        let pooled: Vec<f64> = z
            .iter()
            .zip(&readings[0])
            .zip(&readings[1])
            .map(|((z, e), u)| {
                let memory = AGAINST_TEXTS * lambdas[0] * e + AGAINST_MEANS * lambdas[1] * u;
                (z + gate * memory) / temperature
            })
            .collect();
        Ok(GatedPrediction { probabilities: Probabilities::new(softmax(&pooled)), gate })
    }
}

/// Mean of a remote index's captions around all labels, each caption once.
fn mean_of(around: &[Neighborhood<'_>], dim: usize) -> Result<Vec<f64>> {
    let mut seen = std::collections::HashSet::new();
    let (mut sum, mut text) = (vec![0.0; dim], vec![0.0f32; dim]);
    for neighborhood in around {
        for pair in 0..neighborhood.similarities.len() {
            neighborhood.text(pair, &mut text)?;
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

/// The label coverages that close and open the gate under `count` labels. Of fewer than five, chance alone comes back more than a fifth of the
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
