//! `xmore-kernel`: the image's logits, and three readings of what a memory has of such images, added as far as the memory has shown that
//! it knows the labels.
//!
//! With m(x) of [`kernel_mean`], labels t_c, and s = exp(logit_scale):
//!
//! - **Support** ([`gate`]): three measures of whether the memory knows a label. A label goes to the memory's images as if it were one, and
//!   the captions that come back are classified (ρ_c, the *label round trip*); captions name the label and their images look like it (h_c,
//!   *names*); captions near the label have images, around which other captions are classified (r_c, the *caption round trip*). None
//!   needs a labeled image; all are near 0 or 1 / C for captions that have nothing to do with their images. ρ and r count less for
//!   labels of several words of which captions have the last only: "beer bottle" is not known because "bottle" is. All three are
//!   multiplied by how far captions fit their own images better than other images' captions do ([`trust`]).
//! - **Gate** g: how far the largest of the three, on average and for the labels that this image may have, lies between what
//!   closes and what opens it. Round trips count for more where the memory has images as near to this one as its own are to one another,
//!   and for nothing where it has none like it. With two labels only names open it.
//! - **Readings**: e_c = s λ_e m(v)·t_c against the labels' texts; u_c = s λ_u m(v)·m̂(t_c) against the kernel mean of an image that
//!   looks like the label, which cancels what the memory says of everything; l_c = λ_l (v − μ)·w_c against [`prototypes`] of the images that
//!   name the label. λ bring each to the spread of the image logits z on images of the memory: neither the modality gap nor the
//!   sharpness of text–text cosines matters.
//! - **Answer**: softmax of (z + g(B e + A u) + w l̃) / T with w = (Σ_c q_c h_c)², q = softmax z, l̃_c = h_c (l_c − Σ h l / Σ h). T pools the readings
//!   as experts of one opinion and cools the answer where the image is further from the memory than is usual.
//!
//! Constants and their reasons are in docs/method.md. Nothing depends on other query images. Of a remote index only neighbors
//! are known: it has the label round trip and the first two readings, λ then bring the spread on this very image to that of z, and nothing
//! is said of usual distances.

mod answer;
mod gate;
mod mean;
mod names;
mod prototypes;
mod references;
mod trust;

use std::collections::BTreeSet;
use std::sync::Arc;

use rayon::prelude::*;
use xmore_clip::Embeddings;

use crate::error::Result;
use crate::labels::Labels;
use crate::math::{dot, dot_wide, softmax};
use crate::retrieve::{Neighborhood, Retrieval};
pub use answer::GatedPrediction;
use answer::ScaledPrototypes;
use gate::Measure;
pub use gate::{LabelSupport, Support, SupportKind};
use mean::{KernelWeights, kernel_mean, mean_caption};
use names::Named;
use prototypes::Prototypes;
use references::{Images, Pairs};
use trust::pairing_trust;

/// Pairs of which a kernel mean is made.
pub(crate) const NEAR: usize = 1024;
/// Images of the memory that stand for query images.
const REFERENCES: usize = 256;
/// Images of the memory that a label's images are compared with.
const OTHERS: usize = 512;
/// Images of the memory whose covariance is taken.
const SAMPLE: usize = 4096;
/// Images of captions like the label, for the caption round trip.
const CAPTION_IMAGES: usize = 2;
/// Pairs around each of them.
const CAPTION_NEAR: usize = 128;
/// Share μ of captions in the kernel.
const CAPTIONS: f64 = 0.5;

/// What is known of a memory under some labels; made once.
pub(crate) struct KernelState {
    scale: f64,
    /// t_c.
    labels: Vec<Vec<f64>>,
    /// None if the memory says the same of everything.
    measures: Vec<Measure>,
    /// What is told of the measures.
    support: Arc<LabelSupport>,
    /// ē.
    mean: Vec<f64>,
    /// `None` while the gate is closed for all images.
    readings: Option<Readings>,
    prototypes: Option<ScaledPrototypes>,
    /// Whether every answer has that of an open gate beside it.
    with_open: bool,
}

/// What kernel means of query images are compared with.
struct Readings {
    /// m̂(t_c).
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

impl KernelState {
    /// Looks at what the memory or remote index knows of the labels; `texts` are their unit rows `[C, dim]`, `scale` is exp(logit_scale).
    /// `with_open`: answers have that of an open gate beside them.
    ///
    /// # Errors
    /// Those of reading the memory or asking the remote index.
    pub(crate) fn new(
        retrieval: &Retrieval,
        labels: &Labels,
        texts: &Embeddings,
        scale: f64,
        with_open: bool,
    ) -> Result<Self> {
        let rows: Vec<&[f32]> = texts.rows().collect();
        let in_f64 = rows.iter().map(|row| wide(row)).collect();
        let around = retrieval.neighborhoods(texts.as_slice(), NEAR)?;
        let local = retrieval.local()?;
        let mean = match local {
            Some((memory, set)) => mean_caption(retrieval, memory, set)?,
            None => mean_of(&around, texts.dim())?,
        };
        let mut state = Self {
            scale,
            labels: in_f64,
            measures: Vec::new(),
            support: Arc::new(LabelSupport {
                labels: rows.len(),
                named: None,
                pairing: None,
                kinds: Vec::new(),
            }),
            mean,
            readings: None,
            prototypes: None,
            with_open,
        };
        let Some((memory, set)) = local else {
            let round_trip = state.label_round_trip(&rows, &around)?;
            state.measures.push(Measure::new(SupportKind::LabelRoundTrip, round_trip));
            if state.needs_neighbors() {
                state.readings = Some(Readings { means: state.label_means(&rows, &around)?, usual: None });
            }
            return Ok(state.with_support(None, None));
        };
        let pairs = Pairs { memory, set, filter: retrieval.filter() };
        let sample = pairs.sample(SAMPLE)?;
        let pairing = pairing_trust(pairs, &sample, OTHERS)?;
        let mut named = Named::find(pairs, labels, &rows, &sample, OTHERS)?;
        named.support.iter_mut().for_each(|support| *support *= pairing);
        let names = Measure::new(SupportKind::Names, named.support.clone());
        state.measures = if rows.len() == 2 {
            // Round trips of two labels both come back by chance one time in four.
            vec![names]
        } else {
            // "Beer bottle" is not known because "bottle" is.
            let known = |kind, support: Vec<f64>| {
                let each = support.iter().zip(&named.head_only);
                Measure::new(kind, each.map(|(support, head)| pairing * support * (1.0 - head)).collect())
            };
            vec![
                known(SupportKind::LabelRoundTrip, state.label_round_trip(&rows, &around)?),
                names,
                known(SupportKind::CaptionRoundTrip, state.caption_round_trip(pairs, texts)?),
            ]
        };
        let supported = named.support.iter().filter(|&&support| support > 0.0).count();
        state.prototypes = state.scaled_prototypes(named, &sample);
        if state.needs_neighbors() {
            let means = state.label_means(&rows, &around)?;
            match state.usual(pairs, &sample, &means)? {
                Some(usual) => state.readings = Some(Readings { means, usual: Some(usual) }),
                // A memory without spread says the same of everything.
                None => state.measures.clear(),
            }
        }
        Ok(state.with_support(Some(supported), Some(pairing)))
    }

    /// Whether the pairs around query images are looked at.
    pub(crate) fn needs_neighbors(&self) -> bool {
        self.with_open || !self.measures.iter().all(|measure| measure.support.is_closed())
    }

    /// Why the gate opens or stays closed.
    pub(crate) fn support(&self) -> &LabelSupport {
        &self.support
    }

    /// The same state with what is told of its measures.
    fn with_support(mut self, named: Option<usize>, pairing: Option<f64>) -> Self {
        let kinds = self.measures.iter().map(|measure| measure.support).collect();
        self.support = Arc::new(LabelSupport { labels: self.labels.len(), named, pairing, kinds });
        self
    }

    /// ρ_c: a label as if it were an image, the captions around it, classified: the probability of the same label.
    fn label_round_trip(&self, labels: &[&[f32]], around: &[Neighborhood<'_>]) -> Result<Vec<f64>> {
        let kernel = KernelWeights { sharpness: 2.0 * self.scale, captions: 0.0 };
        let trip = labels.par_iter().zip(around).enumerate().map(|(c, (label, around))| {
            let m = kernel_mean(label, around, &self.mean, kernel)?;
            Ok(softmax(&logits(&m, &self.labels, self.scale))[c])
        });
        trip.collect()
    }

    /// r_c: the images of the captions most like a label, the other captions around them, classified: the mean probability of the label.
    fn caption_round_trip(&self, pairs: Pairs<'_>, labels: &Embeddings) -> Result<Vec<f64>> {
        let images_of = pairs.images_by_captions(labels.as_slice(), CAPTION_IMAGES)?;
        // Labels share images.
        let distinct: BTreeSet<u64> = images_of.iter().flatten().copied().collect();
        let images = pairs.images(distinct)?;
        let around = pairs.around_own(&images.rows, &images.embeddings, CAPTION_NEAR)?;
        let mut labels_of: Vec<Vec<usize>> = vec![Vec::new(); images.rows.len()];
        for (label, rows) in images_of.iter().enumerate() {
            for place in rows.iter().filter_map(|row| images.rows.binary_search(row).ok()) {
                labels_of[place].push(label);
            }
        }
        let each: Vec<Vec<(usize, f64)>> = labels_of
            .into_par_iter()
            .zip(&around)
            .enumerate()
            .map(|(place, (wanted, around))| {
                let m = self.kernel_mean(images.at(place), around)?;
                let m: Vec<f32> = m.into_iter().map(|v| v as f32).collect();
                let logits: Vec<f64> = labels.rows().map(|t| self.scale * f64::from(dot(&m, t))).collect();
                let p = softmax(&logits);
                Ok(wanted.into_iter().map(|label| (label, p[label])).collect())
            })
            .collect::<Result<_>>()?;
        let mut sums = vec![(0.0, 0usize); labels.len()];
        for (label, p) in each.into_iter().flatten() {
            sums[label].0 += p;
            sums[label].1 += 1;
        }
        Ok(sums.into_iter().map(|(sum, count)| sum / count.max(1) as f64).collect())
    }

    /// m̂(t_c).
    fn label_means(&self, labels: &[&[f32]], around: &[Neighborhood<'_>]) -> Result<Vec<Vec<f64>>> {
        labels
            .par_iter()
            .zip(around)
            .map(|(label, around)| Ok(unit(self.kernel_mean(label, around)?)))
            .collect()
    }

    /// What is usual on the first images of the sample; `None` without spread.
    fn usual(&self, pairs: Pairs<'_>, sample: &Images, means: &[Vec<f64>]) -> Result<Option<Usual>> {
        let images = sample.first(REFERENCES);
        let rows = &sample.rows[..sample.rows.len().min(REFERENCES)];
        let around = pairs.around_own(rows, images, NEAR)?;
        let each: Vec<([f64; 3], f64)> = images
            .par_chunks_exact(self.mean.len())
            .zip(&around)
            .map(|(image, around)| {
                let m = self.kernel_mean(image, around)?;
                let of = |x: &[f64], to: &[Vec<f64>]| deviation(&logits(x, to, 1.0));
                let near = around.similarities.first().map_or(0.0, |&s| f64::from(s));
                Ok(([of(&wide(image), &self.labels), of(&m, &self.labels), of(&m, means)], near))
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

    /// Prototypes of at least two labels, and λ_l by the first images of the sample; `None` without them or without spread.
    fn scaled_prototypes(&self, named: Named, sample: &Images) -> Option<ScaledPrototypes> {
        let Named { images, support, .. } = named;
        let supported: Vec<bool> = support.iter().map(|&h| h > 0.0).collect();
        if supported.iter().filter(|&&supported| supported).count() < 2 {
            return None;
        }
        let prototypes = Prototypes::new(images, &supported, sample, self.mean.len())?;
        let of_supported = |values: Vec<f64>| -> Vec<f64> {
            values.into_iter().zip(&supported).filter(|(_, supported)| **supported).map(|(v, _)| v).collect()
        };
        let deviations = sample.first(REFERENCES).par_chunks_exact(self.mean.len()).map(|image| {
            let z = of_supported(logits(&wide(image), &self.labels, self.scale));
            [deviation(&z), deviation(&of_supported(prototypes.read(image, &[])))]
        });
        let [z, l] = deviations.reduce(|| [0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        (l > 0.0).then(|| ScaledPrototypes { prototypes, factor: (z / l).sqrt(), support })
    }

    fn kernel_mean(&self, image: &[f32], around: &Neighborhood<'_>) -> Result<Vec<f64>> {
        kernel_mean(image, around, &self.mean, KernelWeights { sharpness: self.scale, captions: CAPTIONS })
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

/// Where a value lies between two others, in [0, 1].
fn ramp(value: f64, [low, high]: [f64; 2]) -> f64 {
    ((value - low) / (high - low)).clamp(0.0, 1.0)
}

/// A row in f64.
fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&v| f64::from(v)).collect()
}

/// Mean of rows, `[dim]`; zero without rows.
fn mean_row<'a>(rows: impl IntoIterator<Item = &'a [f32]>, dim: usize) -> Vec<f64> {
    let (mut mean, mut count) = (vec![0.0; dim], 0usize);
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        count += 1;
    }
    mean.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
    mean
}

/// scale · x·t_c for each row.
fn logits(x: &[f64], rows: &[Vec<f64>], scale: f64) -> Vec<f64> {
    rows.iter().map(|row| scale * dot_wide(x, row)).collect()
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
