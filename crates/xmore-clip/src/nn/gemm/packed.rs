//! Weights laid out as the tile functions read them, made once when a layer is loaded.

use rayon::prelude::*;

use super::kernel::{self, Kernel, WIDEST_PANEL};
use crate::nn::weight_memory::WeightMemory;

/// A matrix `[depth, columns]` in the kernel's panels of columns, each panel `[depth, width]` in row-major order. The last panel
/// has as few vectors as suffice; columns that do not exist are zero.
pub(crate) struct Packed {
    buffer: WeightMemory<f32>,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) kernel: &'static Kernel,
}

impl Packed {
    /// From the columns, each given as a row of `depth` elements and a factor: a linear layer's weight as PyTorch stores it.
    pub(crate) fn from_rows<'w>(
        columns: usize,
        depth: usize,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        Self::for_kernel(kernel::for_columns(columns), columns, depth, row)
    }

    pub(super) fn for_kernel<'w>(
        kernel: &'static Kernel,
        columns: usize,
        depth: usize,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let full = kernel.panel_columns();
        let mut buffer = WeightMemory::zeroed(packed_len(kernel, depth, columns));
        // A chunk is one panel; the last may be shorter.
        buffer.as_mut_slice().par_chunks_mut((depth * full).max(1)).enumerate().for_each(|(p, panel)| {
            let width = kernel.panel_width(columns, p);
            let first = p * full;
            transpose((first..columns.min(first + full)).map(&row), panel, width);
        });
        Self { buffer, depth, columns, kernel }
    }

    /// Rows of the matrix: inputs of a layer.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Columns of the matrix: outputs of a layer.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn view(&self) -> Panels<'_> {
        Panels { data: self.buffer.as_slice(), depth: self.depth, columns: self.columns, kernel: self.kernel }
    }
}

/// Elements of a packed matrix.
pub(super) fn packed_len(kernel: &Kernel, depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(kernel.lanes) * depth
}

/// A packed matrix that lies anywhere.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) data: &'a [f32],
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) kernel: &'static Kernel,
}

/// Writes rows as columns: `to[i * width + r] = row[i] * factor` for row number `r`, at most `WIDEST_PANEL` of them.
pub(super) fn transpose<'w>(rows: impl Iterator<Item = (&'w [f32], f32)>, to: &mut [f32], width: usize) {
    // A block of lines stays in the first cache while all rows are written to it.
    const LINES: usize = 64;
    let mut some: [(&[f32], f32); WIDEST_PANEL] = [(&[], 0.0); WIDEST_PANEL];
    let mut count = 0;
    for (place, row) in some.iter_mut().zip(rows) {
        *place = row;
        count += 1;
    }
    for (n, lines) in to.chunks_mut(width * LINES).enumerate() {
        for (r, (row, factor)) in some[..count].iter().enumerate() {
            let row = row.get(n * LINES..).unwrap_or_default();
            for (line, &value) in lines.chunks_exact_mut(width).zip(row) {
                line[r] = value * factor;
            }
        }
    }
}
