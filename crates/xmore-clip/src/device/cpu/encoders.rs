//! Batches through towers on the processor: what runs side by side, and in what portions. None of it changes a number.

use std::time::Instant;

use rayon::prelude::*;

use crate::arch::Head;
use crate::device::{ImageEncoder, ImageNetwork, ImageTower, TextEncoder, TextNetwork, TextTower};
use crate::error::Result;
use crate::nn::gemm::{Threads, split};
use crate::nn::pool_threads::with_spinning_pool;
use crate::preprocess::Pixels;

use super::Cpu;

/// Tokens of texts that one thread takes together.
const TOKENS_PER_PASS: usize = 512;

impl Cpu {
    pub(crate) fn image_encoder(&self, tower: ImageTower<Self>) -> CpuImages {
        CpuImages { network: tower.network, head: tower.head }
    }

    pub(crate) fn text_encoder(&self, tower: TextTower<Self>) -> CpuTexts {
        CpuTexts { network: tower.network, head: tower.head }
    }
}

/// An image tower on the processor.
pub(crate) struct CpuImages {
    network: Box<dyn ImageNetwork<Cpu>>,
    head: Option<Head<Cpu>>,
}

/// A text tower on the processor.
pub(crate) struct CpuTexts {
    network: Box<dyn TextNetwork<Cpu>>,
    head: Option<Head<Cpu>>,
}

/// From features to unit rows `[rows, dim]`.
fn embed(head: Option<&Head<Cpu>>, rows: usize, features: Vec<f32>, dim: usize) -> Vec<f32> {
    let mut rows = match head {
        Some(head) => head.forward(&mut { Threads::Pool }, rows, &features, dim),
        None => features,
    };
    normalize_rows(&mut rows, dim);
    rows
}

/// Scales each row of `[rows, width]` to unit length; a row of zeros stays one.
pub(crate) fn normalize_rows(x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width) {
        let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
    }
}

impl ImageEncoder for CpuImages {
    fn features(&self, images: &[&Pixels]) -> Result<(Vec<f32>, usize)> {
        let network = &self.network;
        // Whole images for each thread as long as every thread gets as many; the last few are shared by all threads.
        let workers = rayon::current_num_threads();
        let apart = if workers == 1 { images.len() } else { images.len() / workers * workers };
        let (apart, shared) = images.split_at(apart);
        let each = network.images_per_pass().clamp(1, (apart.len() / workers).max(1));
        let rows = with_spinning_pool(|| {
            let parts = apart.par_chunks(each).map(|images| network.forward(&mut { Threads::One }, images));
            let mut rows = parts.collect::<Vec<_>>().concat();
            if !shared.is_empty() {
                rows.extend(network.forward(&mut { Threads::Pool }, shared));
            }
            rows
        });
        Ok((rows, network.width()))
    }

    fn embeddings(&self, images: &[&Pixels], dim: usize) -> Result<Vec<f32>> {
        Ok(embed(self.head.as_ref(), images.len(), self.features(images)?.0, dim))
    }

    fn time_passes(&self, images: &[&Pixels], dim: usize, repeats: usize) -> Result<Vec<f64>> {
        let timed = (0..repeats).map(|_| {
            let start = Instant::now();
            self.embeddings(images, dim)?;
            Ok(start.elapsed().as_secs_f64())
        });
        timed.collect()
    }
}

impl CpuTexts {
    fn run(&self, texts: &[&[u32]], context: &[f32]) -> Vec<f32> {
        let portions = portions(texts);
        if portions.len() == 1 {
            return with_spinning_pool(|| self.network.forward(&mut { Threads::Pool }, texts, context));
        }
        let parts =
            portions.into_par_iter().map(|texts| self.network.forward(&mut { Threads::One }, texts, context));
        parts.collect::<Vec<_>>().concat()
    }
}

impl TextEncoder for CpuTexts {
    fn width(&self) -> usize {
        self.network.width()
    }

    fn vocabulary(&self) -> usize {
        self.network.vocabulary()
    }

    fn takes_context(&self) -> bool {
        self.network.takes_context()
    }

    fn features(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        Ok(self.run(texts, &[]))
    }

    fn embeddings(&self, texts: &[&[u32]], context: &[f32], dim: usize) -> Result<Vec<f32>> {
        Ok(embed(self.head.as_ref(), texts.len(), self.run(texts, context), dim))
    }
}

/// Cuts a batch of texts into portions of nearly the same number of tokens, a multiple of the threads where there are enough.
fn portions<'a, 'b>(texts: &'b [&'a [u32]]) -> Vec<&'b [&'a [u32]]> {
    let total: usize = texts.iter().map(|t| t.len()).sum();
    let workers = rayon::current_num_threads();
    let count = match total.div_ceil(TOKENS_PER_PASS) {
        1 => 1,
        n => n.next_multiple_of(workers),
    };
    let ends: Vec<usize> = texts
        .iter()
        .scan(0, |sum, text| {
            *sum += text.len();
            Some(*sum)
        })
        .collect();
    let bounds = split(total, count).into_iter().map(|range| ends.partition_point(|&end| end <= range.end));
    let mut from = 0;
    let portions = bounds.map(|to| {
        let portion = &texts[from..to.max(from)];
        from = to.max(from);
        portion
    });
    portions.filter(|portion| !portion.is_empty()).collect()
}
