//! Weights in bf16, laid out as the tile functions read them, made once when a layer is loaded.

use rayon::prelude::*;

use crate::nn::simd::MAX_WIDTH;
use crate::nn::weight_memory::WeightMemory;

use super::kernel::Kernel;
use super::round::round_row;

/// A matrix `[depth, columns]` in panels of `2 * lanes` columns, each panel `[pairs, width]`, where a pair is two inputs of a column. The last
/// panel is one vector wide if that suffices; inputs and columns that do not exist are zero.
pub(super) struct Panels {
    buffer: WeightMemory<u32>,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) kernel: &'static Kernel,
}

impl Panels {
    /// From the columns, each given as a row of `depth` elements and a factor.
    pub(super) fn from_rows<'w>(
        kernel: &'static Kernel,
        columns: usize,
        depth: usize,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let (full, pairs) = (kernel.panel_columns(), depth.div_ceil(2));
        let mut buffer = WeightMemory::zeroed(panels_len(kernel, depth, columns));
        // A chunk is one panel; the last may be shorter.
        let panels = buffer.as_mut_slice().par_chunks_mut((pairs * full).max(1));
        panels.enumerate().for_each(|(p, panel)| {
            let width = kernel.panel_width(columns, p);
            fill(panel, width, (p * full..columns.min((p + 1) * full)).map(&row));
        });
        Self { buffer, depth, columns, kernel }
    }

    /// Pairs of inputs.
    pub(super) fn pairs(&self) -> usize {
        self.depth.div_ceil(2)
    }

    /// A panel and its width.
    pub(super) fn panel(&self, p: usize) -> (&[u32], usize) {
        let width = self.kernel.panel_width(self.columns, p);
        let start = p * self.kernel.panel_columns() * self.pairs();
        (&self.buffer.as_slice()[start..start + width * self.pairs()], width)
    }
}

/// Pairs of a packed matrix.
pub(super) fn panels_len(kernel: &Kernel, depth: usize, columns: usize) -> usize {
    depth.div_ceil(2) * columns.next_multiple_of(kernel.lanes)
}

/// Writes rows as columns of pairs: `panel[k * width + r]` is pair k of row r, of which there are at most [`MAX_WIDTH`].
pub(super) fn fill<'w>(panel: &mut [u32], width: usize, rows: impl Iterator<Item = (&'w [f32], f32)>) {
    // A block of lines stays in the first cache while all rows are written to it.
    const LINES: usize = 64;
    let mut some: [(&[f32], f32); MAX_WIDTH] = [(&[], 0.0); MAX_WIDTH];
    let mut count = 0;
    for (place, row) in some.iter_mut().zip(rows) {
        *place = row;
        count += 1;
    }
    let mut rounded = [0u32; LINES];
    for (n, lines) in panel.chunks_mut(width * LINES).enumerate() {
        for (r, (row, factor)) in some[..count].iter().enumerate() {
            let part = &row[2 * n * LINES..row.len().min(2 * (n + 1) * LINES)];
            let rounded = &mut rounded[..part.len().div_ceil(2)];
            round_row(part, *factor, rounded);
            for (line, &pair) in lines.chunks_exact_mut(width).zip(rounded.iter()) {
                line[r] = pair;
            }
        }
    }
}
