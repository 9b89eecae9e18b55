//! The kernel mean: what a memory would say of an image like this one, as one vector.
//!
//! m(x) = Σ_j w_j e_j − ē over the pairs j whose images are nearest to x, with w_j ∝ exp(κ[(1 − μ) x·x_j + μ x·e_j]); x_j is a
//! pair's image, e_j its caption, ē the mean caption. A kernel mean under the model's own temperature instead of K captions that
//! count the same. It is not scaled to length 1: the length says how much the captions agree. docs/method.md has what it was
//! chosen over.

use xmore_memory::Memory;
use xmore_memory::store::EmbeddingSet;

use crate::error::Result;
use crate::math::dot;
use crate::retrieve::{Neighborhood, Retrieval};

/// Rows of which the mean caption is made at most, spread evenly over the memory.
const MEAN_ROWS: u64 = 100_000;
/// Rows that are summed in f32.
const PART: usize = 16;

/// Weights of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelWeights {
    /// Inverse temperature κ.
    pub sharpness: f64,
    /// Share μ of the captions' similarity.
    pub captions: f64,
}

/// m(x), `[dim]`; zero where nothing is near.
///
/// # Errors
/// Those of reading the memory.
pub(crate) fn kernel_mean(
    point: &[f32],
    neighborhood: &Neighborhood<'_>,
    mean: &[f64],
    kernel: KernelWeights,
) -> Result<Vec<f64>> {
    let count = neighborhood.similarities.len();
    let mut sum = vec![0.0; point.len()];
    if count == 0 {
        return Ok(sum);
    }
    let dim = point.len();
    let mut texts = vec![0.0; count * dim];
    for (pair, text) in texts.chunks_exact_mut(dim).enumerate() {
        neighborhood.text(pair, text)?;
    }
    let score = |(&image, text): (&f32, &[f32])| {
        let caption = if kernel.captions > 0.0 { f64::from(dot(point, text)) } else { 0.0 };
        kernel.sharpness * ((1.0 - kernel.captions) * f64::from(image) + kernel.captions * caption)
    };
    let scores: Vec<f64> = neighborhood.similarities.iter().zip(texts.chunks_exact(dim)).map(score).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.into_iter().map(|score| (score - largest).exp()).collect();
    // A few rows at a time in f32, which is twice as fast and as good: the rows themselves are float16.
    let mut part = vec![0.0f32; dim];
    for (weights, texts) in weights.chunks(PART).zip(texts.chunks(PART * dim)) {
        part.fill(0.0);
        for (&weight, text) in weights.iter().zip(texts.chunks_exact(dim)) {
            let weight = weight as f32;
            part.iter_mut().zip(text).for_each(|(part, &t)| *part += weight * t);
        }
        sum.iter_mut().zip(&part).for_each(|(sum, &part)| *sum += f64::from(part));
    }
    let total: f64 = weights.iter().sum();
    sum.iter_mut().zip(mean).for_each(|(sum, mean)| *sum = *sum / total - mean);
    Ok(sum)
}

/// The mean of the captions that may be looked at, `[dim]`; of a large memory of rows spread evenly.
///
/// # Errors
/// Those of reading the memory.
pub(crate) fn mean_caption(
    retrieval: &Retrieval,
    memory: &Memory,
    column: &EmbeddingSet,
) -> Result<Vec<f64>> {
    let step = memory.len().div_ceil(MEAN_ROWS).max(1) as usize;
    let mut sum = vec![0.0; column.dim()];
    let mut row = vec![0.0; column.dim()];
    let mut count = 0u64;
    for id in (0..memory.len()).step_by(step).filter(|&id| retrieval.filter().contains(id)) {
        column.text_embedding(id, &mut row)?;
        sum.iter_mut().zip(&row).for_each(|(sum, &v)| *sum += f64::from(v));
        count += 1;
    }
    sum.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
    Ok(sum)
}
