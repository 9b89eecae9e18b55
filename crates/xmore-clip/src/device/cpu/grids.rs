//! Patches of pictures of any aspect to tokens, with learned positions that are resampled to each picture's grid.
//!
//! Reference: transformers' `Siglip2VisionEmbeddings`, which resamples by PyTorch's `interpolate(mode="bilinear", antialias=True)`: a triangle
//! filter, widened where there are fewer positions than learned, columns before rows. A grid of one column is treated like any other, where PyTorch
//! 2.15 gives other numbers than for the transposed grid.

use crate::nn::gemm::Threads;
use crate::nn::linear::Linear;
use crate::preprocess::{PatchGrid, Pixels};
use crate::profile;

/// The layer.
pub(crate) struct GridEmbedding {
    linear: Linear,
    /// `[side, side, width]`.
    positions: Vec<f32>,
    side: usize,
}

impl GridEmbedding {
    /// `positions` are `[side * side, width]`.
    pub(crate) fn new(linear: Linear, positions: &[f32], side: usize) -> Self {
        Self { linear, positions: positions.to_vec(), side }
    }

    /// The images' tokens one behind another, and how many each has.
    pub(crate) fn forward(&self, images: &[&Pixels], threads: Threads) -> (Vec<f32>, Vec<usize>) {
        let pixels: Vec<f32> = images.iter().flat_map(|image| image.as_slice()).copied().collect();
        let flops = pixels.len() * 2 * self.linear.outputs();
        let mut x = profile::time("patches", flops, || self.linear.forward(&pixels, threads));
        let grids = images.iter().map(|image| image.grid().expect("checked with the model's preprocessing"));
        let (mut rest, mut lengths) = (x.as_mut_slice(), Vec::new());
        for grid in grids {
            let positions = self.resampled(grid);
            let (own, others) = rest.split_at_mut(positions.len());
            own.iter_mut().zip(&positions).for_each(|(x, p)| *x += p);
            lengths.push(positions.len() / self.linear.outputs());
            rest = others;
        }
        (x, lengths)
    }

    /// The positions of a grid, `[rows * columns, width]`.
    fn resampled(&self, grid: PatchGrid) -> Vec<f32> {
        let (side, width) = (self.side, self.linear.outputs());
        let columns = taps(side, grid.columns as usize);
        let mut narrow = Vec::with_capacity(side * columns.len() * width);
        for line in self.positions.chunks_exact(side * width) {
            columns.iter().for_each(|taps| taps.add(line, width, &mut narrow));
        }
        let mut out = Vec::with_capacity(grid.rows as usize * columns.len() * width);
        let line = columns.len() * width;
        taps(side, grid.rows as usize).iter().for_each(|taps| taps.add(&narrow, line, &mut out));
        out
    }
}

/// Which of the learned positions lie under a place, and their weights.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Taps {
    /// Appends the weighted sum of rows of `width` values.
    fn add(&self, rows: &[f32], width: usize, out: &mut Vec<f32>) {
        let start = out.len();
        out.resize(start + width, 0.0);
        for (row, weight) in rows[self.first * width..].chunks_exact(width).zip(&self.weights) {
            out[start..].iter_mut().zip(row).for_each(|(out, value)| *out += value * weight);
        }
    }
}

/// Those of each of `to` places over `from` positions.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let each = |place: usize| {
        let center = scale * (place as f64 + 0.5);
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |at: usize| (1.0 - ((at as f64 - center + 0.5) / support).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        Taps { first, weights: weights.into_iter().map(|weight| (weight / total) as f32).collect() }
    };
    (0..to).map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_cover_the_learned_positions() {
        for (from, to) in [(16, 16), (16, 5), (16, 40), (1, 7), (7, 1)] {
            for taps in taps(from, to) {
                assert!(
                    !taps.weights.is_empty() && taps.first + taps.weights.len() <= from,
                    "{from} to {to}"
                );
                assert!((taps.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
        // Of as many places each has its own position.
        let own: Vec<_> = taps(9, 9).iter().map(|t| t.weights.iter().position(|&w| w == 1.0)).collect();
        assert!(own.iter().all(Option::is_some));
    }
}
