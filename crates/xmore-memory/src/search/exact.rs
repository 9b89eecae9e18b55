//! Exact search: every stored row against every query in one pass, in parallel over blocks of rows.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rten_simd::SimdOp;

use super::Hit;
use super::dot::{DotProducts, pad_rows, padded};
use super::top::Top;
use crate::store::{Column, Modality};

/// Rows of a unit of parallel work.
const BLOCK_ROWS: usize = 2048;

/// Bytes of f32 rows that are converted at a time, so that they stay in the first-level cache for all queries.
const TILE_BYTES: usize = 32 * 1024;

/// Queries of one pass over the rows: bounds the working space of a large batch.
const PASS_QUERIES: usize = 256;

/// The `n` best of each query, best first. The caller has checked that `n > 0`, that `queries` is `[q, dim]`, and
/// that it is finite.
pub(super) fn top_n(column: &Column, modality: Modality, queries: &[f32], n: usize) -> Vec<Vec<Hit>> {
    let dim = column.dim();
    let blocks: Vec<Block> = column
        .parts()
        .iter()
        .flat_map(|part| {
            let rows = part.embeddings(modality).map_or(&[][..], |e| e.matrix.data());
            let blocks = rows.chunks(BLOCK_ROWS * dim).enumerate();
            blocks.map(|(i, rows)| Block { first_id: part.first_id() + (i * BLOCK_ROWS) as u64, rows })
        })
        .collect();
    queries.chunks(PASS_QUERIES * dim).flat_map(|queries| scan_all(&blocks, dim, queries, n)).collect()
}

/// One pass over all blocks for a few queries, `[q, dim]`.
fn scan_all(blocks: &[Block], dim: usize, queries: &[f32], n: usize) -> Vec<Vec<Hit>> {
    let count = queries.len() / dim;
    let queries = pad_rows(queries, dim);
    // As many states as threads, handed from block to block: the first rows that a state sees all enter its heaps,
    // so one state per block would spend more time on heaps than on products.
    let states: Mutex<Vec<State>> = Mutex::new(Vec::new());
    let lock = || states.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.par_iter().for_each(|block| {
        let free = lock().pop();
        let mut state = free.unwrap_or_else(|| State::new(dim, count, n));
        state.scan(block, &queries);
        lock().push(state);
    });
    let states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
    let merged = states.into_iter().map(|state| state.tops).reduce(|mut a, b| {
        for (a, b) in a.iter_mut().zip(b) {
            a.merge(b);
        }
        a
    });
    merged.unwrap_or_default().into_iter().map(Top::into_hits).collect()
}

/// Consecutive stored rows, `[≤ BLOCK_ROWS, dim]`.
struct Block<'a> {
    first_id: u64,
    rows: &'a [half::f16],
}

/// Working space of one thread.
struct State {
    dim: usize,
    /// Best hits so far, `[q]`.
    tops: Vec<Top>,
    /// Rows converted at a time.
    tile_rows: usize,
    /// Converted rows, `[tile_rows, padded(dim)]`.
    scratch: Vec<f32>,
    /// Inner products, `[q, tile_rows]`.
    products: Vec<f32>,
}

impl State {
    fn new(dim: usize, queries: usize, n: usize) -> State {
        let tile_rows = (TILE_BYTES / (padded(dim) * size_of::<f32>())).clamp(8, 256);
        State {
            dim,
            tops: (0..queries).map(|_| Top::new(n)).collect(),
            tile_rows,
            scratch: vec![0.0; tile_rows * padded(dim)],
            products: vec![0.0; queries * tile_rows],
        }
    }

    /// Offers every row of the block to each query's best.
    fn scan(&mut self, block: &Block, queries: &[f32]) {
        for (i, rows) in block.rows.chunks(self.tile_rows * self.dim).enumerate() {
            let first_id = block.first_id + (i * self.tile_rows) as u64;
            let count = rows.len() / self.dim;
            let products = &mut self.products[..self.tops.len() * count];
            DotProducts { rows, dim: self.dim, queries, scratch: &mut self.scratch, out: products }
                .dispatch();
            for (top, products) in self.tops.iter_mut().zip(products.chunks_exact(count)) {
                for (row, &similarity) in products.iter().enumerate() {
                    top.offer(first_id + row as u64, similarity);
                }
            }
        }
    }
}
