//! Small products in bf16, as attention has by the thousand: nothing is blocked or allocated.

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::gemm::{ColumnBlock, Strided};
use crate::nn::operand::Operand;
use crate::nn::simd::{MAX_ROWS, MAX_WIDTH};

use super::kernel::{KERNELS, Kernel, Tile};
use super::panels::{fill, panels_len};
use super::round::{round_row, round_rows_side_by_side};

/// The right operand, packed into a buffer that is reused.
pub(crate) struct Bf16Operand {
    kernel: &'static Kernel,
    buffer: AlignedBuffer<u32>,
    depth: usize,
    columns: usize,
    /// A tile's rows of the left operand.
    rows: Vec<u32>,
}

impl Bf16Operand {
    pub(crate) fn new() -> Self {
        Self::for_kernel(KERNELS.best())
    }

    pub(super) fn for_kernel(kernel: &'static Kernel) -> Self {
        Self { kernel, buffer: AlignedBuffer::zeroed(0), depth: 0, columns: 0, rows: Vec::new() }
    }

    fn resize(&mut self, depth: usize, columns: usize) {
        (self.depth, self.columns) = (depth, columns);
        let len = panels_len(self.kernel, depth, columns);
        if self.buffer.as_slice().len() < len {
            self.buffer = AlignedBuffer::zeroed(len);
        }
    }

    fn pairs(&self) -> usize {
        self.depth.div_ceil(2)
    }

    /// Where panel `p` begins, and its width.
    fn panel(&self, p: usize) -> (usize, usize) {
        (p * self.kernel.panel_columns() * self.pairs(), self.kernel.panel_width(self.columns, p))
    }
}

impl Operand for Bf16Operand {
    fn tile_rows(&self) -> usize {
        self.kernel.rows
    }

    fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.kernel.lanes)
    }

    fn set_transposed(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        self.resize(len, count);
        let full = self.kernel.panel_columns();
        for p in 0..count.div_ceil(full) {
            let (start, width) = self.panel(p);
            let columns = p * full..count.min((p + 1) * full);
            let panel = &mut self.buffer.as_mut_slice()[start..start + width * len.div_ceil(2)];
            fill(panel, width, columns.map(|c| (rows.row(c, at, len), 1.0)));
        }
    }

    fn set(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        const ZEROS: [f32; MAX_WIDTH] = [0.0; MAX_WIDTH];
        self.resize(count, len);
        let full = self.kernel.panel_columns();
        for p in 0..len.div_ceil(full) {
            let (start, width) = self.panel(p);
            let have = width.min(len - p * full);
            let row = |r| if r < count { rows.row(r, at + p * full, have) } else { &ZEROS[..have] };
            let panel = &mut self.buffer.as_mut_slice()[start..start + width * count.div_ceil(2)];
            for (k, line) in panel.chunks_exact_mut(width).enumerate() {
                round_rows_side_by_side(row(2 * k), row(2 * k + 1), &mut line[..have]);
            }
        }
    }

    fn multiply(&mut self, a: Strided<'_>, count: usize, at: usize, out: &mut ColumnBlock<'_>) {
        const NO_BIAS: [f32; MAX_WIDTH] = [0.0; MAX_WIDTH];
        let (kernel, pairs, full) = (self.kernel, self.pairs(), self.kernel.panel_columns());
        let space = out.columns();
        assert!(space == self.columns || space >= self.padded(self.columns));
        self.rows.resize(kernel.rows * pairs, 0);
        for first in (0..count).step_by(kernel.rows) {
            let rows = kernel.rows.min(count - first);
            let mut pointers = [std::ptr::null(); MAX_ROWS];
            for ((r, pointer), row) in
                pointers[..rows].iter_mut().enumerate().zip(self.rows.chunks_exact_mut(pairs))
            {
                round_row(a.row(first + r, at, self.depth), 1.0, row);
                *pointer = row.as_ptr();
            }
            for p in 0..self.columns.div_ceil(full) {
                let (start, width) = self.panel(p);
                let columns = width.min(space - p * full);
                let mut place = out.part(first, rows, p * full, columns);
                let mut scratch = [0.0f32; MAX_ROWS * MAX_WIDTH];
                let whole = columns == width;
                let (c, stride) = if whole { place.pointer() } else { (scratch.as_mut_ptr(), width) };
                let tile = Tile {
                    a: pointers,
                    pairs,
                    b: self.buffer.as_slice()[start..start + width * pairs].as_ptr(),
                    c,
                    stride,
                    add: false,
                    bias: NO_BIAS.as_ptr(),
                    prefetch: std::ptr::null()..std::ptr::null(),
                };
                // SAFETY: rows, panel and bias were sliced to their lengths; the output has the tile's rows and `width` columns, or is the
                // scratch, which holds the largest tile.
                #[allow(unsafe_code)]
                unsafe {
                    kernel.tile(rows, width / kernel.lanes)(&tile);
                }
                if !whole {
                    place.copy_from(&scratch, width);
                }
            }
        }
    }
}
