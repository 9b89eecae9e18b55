//! Rows of the left operand whose lines conflict in the caches, copied further apart.
//!
//! A cache keeps a line in one of the few ways of a set, which the low bits of its address choose. A tile reads one line of each of its rows
//! at a time; where rows lie a multiple of 2 or 4 KiB apart, as those of 1,024 or 3,072 values do, all these lines fall into one or two
//! sets of the first cache, which have fewer ways than the tile has rows.

use rayon::prelude::*;

use super::packed::Panels;
use super::{Rows, Threads};
use crate::nn::simd::row_distance;

/// From a distance of so many values on (2 KiB) at most two sets are left.
const DISTANCE: usize = 512;
/// The lines of fewer rows of a tile fit into one set.
pub(super) const MIN_ROWS: usize = 9;
/// With fewer columns a value is read too seldom to be worth a copy.
const MIN_COLUMNS: usize = 128;
/// Rows that a thread copies at a time.
const CHUNK: usize = 16;

/// Rows that should be copied before they are multiplied.
pub(super) struct ConflictingRows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    pub(super) depth: usize,
    pub(super) count: usize,
}

/// The rows if they lie so that a copy pays.
pub(super) fn needed<'a>(rows: Rows<'a>, count: usize, panels: Panels<'_>) -> Option<ConflictingRows<'a>> {
    match rows {
        Rows::Dense { data, stride }
            if stride.is_multiple_of(DISTANCE)
                && count.min(panels.kernel.rows) >= MIN_ROWS
                && panels.columns >= MIN_COLUMNS =>
        {
            Some(ConflictingRows { data, stride, depth: panels.depth, count })
        }
        Rows::Dense { .. } | Rows::Windows(_) | Rows::Lines(_) => None,
    }
}

impl ConflictingRows<'_> {
    /// The rows in `buffer`, further apart.
    pub(super) fn spread<'b>(&self, buffer: &'b mut Vec<f32>, threads: Threads) -> Rows<'b> {
        let stride = row_distance(self.depth);
        buffer.resize(self.count * stride, 0.0);
        let copy = |(n, rows): (usize, &mut [f32])| {
            for (r, row) in rows.chunks_exact_mut(stride).enumerate() {
                let from = (n * CHUNK + r) * self.stride;
                row[..self.depth].copy_from_slice(&self.data[from..from + self.depth]);
            }
        };
        match threads {
            Threads::One => buffer.chunks_mut(CHUNK * stride).enumerate().for_each(copy),
            Threads::Pool => buffer.par_chunks_mut(CHUNK * stride).enumerate().for_each(copy),
        }
        Rows::Dense { data: buffer, stride }
    }
}
