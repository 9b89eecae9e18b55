//! Exact search: every stored row against every query in one pass, in parallel over blocks of rows.

use std::sync::{Mutex, PoisonError};

use half::f16;
use rayon::prelude::*;
use rten_simd::SimdOp;

use super::SearchPart;
use super::codes::kernel::BLOCK;
use super::dot::{DotProducts, pad_rows, padded};
use super::rowset::Filter;
use super::top::Top;

/// Rows of a unit of parallel work.
const UNIT_ROWS: usize = 2048;

/// Bytes of f32 rows that are converted at a time, so that they stay in the first-level cache for all queries.
const TILE_BYTES: usize = 32 * 1024;

/// Queries of one pass over the rows: bounds the working space of a large batch.
const PASS_QUERIES: usize = 256;

/// The `n` best of each query among the filter's rows. The caller has checked that `n > 0`, that `queries` is `[q, dim]`, and
/// that it is finite.
pub(super) fn top_n(
    parts: &[SearchPart<'_>],
    dim: usize,
    queries: &[f32],
    n: usize,
    filter: &Filter<'_>,
) -> Vec<Top> {
    let mut units = Vec::new();
    for part in parts {
        for (i, rows) in part.rows.chunks(UNIT_ROWS * dim).enumerate() {
            let first_id = part.first_id + (i * UNIT_ROWS) as u64;
            if filter.touches(first_id..first_id + (rows.len() / dim) as u64) {
                units.push(Unit { first_id, rows });
            }
        }
    }
    queries.chunks(PASS_QUERIES * dim).flat_map(|queries| scan_all(&units, dim, queries, n, filter)).collect()
}

/// One pass over all units for a few queries, `[q, dim]`.
fn scan_all(units: &[Unit<'_>], dim: usize, queries: &[f32], n: usize, filter: &Filter<'_>) -> Vec<Top> {
    let count = queries.len() / dim;
    let queries = pad_rows(queries, dim);
    // As many states as threads, handed from unit to unit: the first rows that a state sees all enter its heaps,
    // so one state per unit would spend more time on heaps than on products.
    let states: Mutex<Vec<State>> = Mutex::new(Vec::new());
    let lock = || states.lock().unwrap_or_else(PoisonError::into_inner);
    units.par_iter().for_each(|unit| {
        let free = lock().pop();
        let mut state = free.unwrap_or_else(|| State::new(dim, count, n));
        state.scan(unit, &queries, filter);
        lock().push(state);
    });
    let states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
    let merged = states.into_iter().map(|state| state.tops).reduce(|mut a, b| {
        for (a, b) in a.iter_mut().zip(b) {
            a.merge(b);
        }
        a
    });
    merged.unwrap_or_else(|| (0..count).map(|_| Top::new(n)).collect())
}

/// Consecutive stored rows, `[≤ UNIT_ROWS, dim]`.
struct Unit<'a> {
    first_id: u64,
    rows: &'a [f16],
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
    /// Rows that a filter lets through, gathered: their ids and values.
    ids: Vec<u64>,
    gathered: Vec<f16>,
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
            ids: Vec::new(),
            gathered: Vec::new(),
        }
    }

    /// Offers every row of the unit that may be found to each query's best.
    fn scan(&mut self, unit: &Unit<'_>, queries: &[f32], filter: &Filter<'_>) {
        let range = unit.first_id..unit.first_id + (unit.rows.len() / self.dim) as u64;
        if filter.is_open(range) {
            for (i, rows) in unit.rows.chunks(self.tile_rows * self.dim).enumerate() {
                let first_id = unit.first_id + (i * self.tile_rows) as u64;
                self.offer(rows, queries, |row| first_id + row as u64);
            }
            return;
        }
        for (i, rows) in unit.rows.chunks(BLOCK * self.dim).enumerate() {
            let first_id = unit.first_id + (i * BLOCK) as u64;
            let mask = filter.block(first_id, rows.len() / self.dim);
            for (r, row) in rows.chunks_exact(self.dim).enumerate().filter(|(r, _)| mask >> r & 1 == 1) {
                self.ids.push(first_id + r as u64);
                self.gathered.extend_from_slice(row);
                if self.ids.len() == self.tile_rows {
                    self.offer_gathered(queries);
                }
            }
        }
        self.offer_gathered(queries);
    }

    fn offer_gathered(&mut self, queries: &[f32]) {
        let (ids, gathered) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.gathered));
        if !ids.is_empty() {
            self.offer(&gathered, queries, |row| ids[row]);
        }
        (self.ids, self.gathered) = (ids, gathered);
        self.ids.clear();
        self.gathered.clear();
    }

    /// Scores up to `tile_rows` rows.
    fn offer(&mut self, rows: &[f16], queries: &[f32], id: impl Fn(usize) -> u64) {
        let count = rows.len() / self.dim;
        let products = &mut self.products[..self.tops.len() * count];
        DotProducts { rows, dim: self.dim, queries, scratch: &mut self.scratch, out: products }.dispatch();
        for (top, products) in self.tops.iter_mut().zip(products.chunks_exact(count)) {
            for (row, &similarity) in products.iter().enumerate() {
                top.offer(id(row), similarity);
            }
        }
    }
}
