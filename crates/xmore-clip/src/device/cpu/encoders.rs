//! Batches through towers on the processor: what runs side by side, and in what portions. None of it changes a number.

use std::time::Instant;

use rayon::prelude::*;

use crate::arch::Head;
use crate::device::{
    ImageEncoder, ImageNetwork, ImageTower, TOKENS_PER_PASS, TextEncoder, TextNetwork, TextTower,
};
use crate::error::Result;
use crate::nn::gemm::{Threads, split};
use crate::nn::pool_threads::with_spinning_pool;
use crate::preprocess::Pixels;

use super::Cpu;
use super::portions::balanced;

/// Tokens of texts up to which all threads share each layer.
const SHARED_TOKENS: usize = 512;

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
        let passes = apart.len().div_ceil(network.images_per_pass()).next_multiple_of(workers);
        let rows = with_spinning_pool(|| {
            let parts = split(apart.len(), passes).into_par_iter().filter(|images| !images.is_empty());
            let parts = parts.map(|images| network.forward(&mut { Threads::One }, &apart[images]));
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
    let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
    let total: usize = lengths.iter().sum();
    let count = match total {
        0..=SHARED_TOKENS => 1,
        _ => total.div_ceil(TOKENS_PER_PASS).next_multiple_of(rayon::current_num_threads()),
    };
    balanced(&lengths, count).into_iter().map(|run| &texts[run]).collect()
}
