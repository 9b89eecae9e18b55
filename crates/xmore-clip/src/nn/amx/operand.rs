//! Attention's small products in bf16 by `tdpbf16ps`.

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::gemm::{ColumnBlock, Strided};
use crate::nn::operand::Operand;

use super::bf16::{STEP, round_to_tile};
use super::output::{Floats, Output, Place};
use super::panels::{fill, fill_transposed};
use super::rows::{Rows, rows_len};
use super::tile::{BLOCK_ROWS, Block, Configuration, Format, STEP_BYTES, Sums, TILE_ROWS, WIDTH};

/// The right operand in panels of 32 columns, each `[steps, 16, 32]` pairs, in a buffer that is reused. The processor must have AMX.
pub(crate) struct AmxOperand {
    buffer: AlignedBuffer<u32>,
    depth: usize,
    columns: usize,
    /// A block's rows of the left operand.
    rows: AlignedBuffer<u32>,
}

impl AmxOperand {
    pub(crate) fn new() -> Self {
        Self { buffer: AlignedBuffer::zeroed(0), depth: 0, columns: 0, rows: AlignedBuffer::zeroed(0) }
    }

    fn steps(&self) -> usize {
        self.depth.div_ceil(STEP).max(1)
    }

    /// Pairs of a panel, those that do not exist included.
    fn panel_len(&self) -> usize {
        self.steps() * STEP_BYTES / 4
    }

    /// The panels for so many columns, with the first one's of each.
    fn resize(&mut self, depth: usize, columns: usize) -> impl Iterator<Item = (usize, &mut [u32])> {
        (self.depth, self.columns) = (depth, columns);
        let (count, len) = (columns.div_ceil(WIDTH), self.panel_len());
        if self.buffer.as_slice().len() < count * len {
            self.buffer = AlignedBuffer::zeroed(count * len);
        }
        let panels = self.buffer.as_mut_slice()[..count * len].chunks_exact_mut(len);
        panels.enumerate().map(|(p, panel)| (p * WIDTH, panel))
    }
}

impl Operand for AmxOperand {
    fn tile_rows(&self) -> usize {
        BLOCK_ROWS
    }

    fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(WIDTH)
    }

    fn set_transposed(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        for (first, panel) in self.resize(len, count) {
            let row = |c: usize| (first + c < count).then(|| (rows.row(first + c, at, len), 1.0));
            // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
            #[allow(unsafe_code)]
            unsafe {
                fill_transposed(panel, row);
            }
        }
    }

    fn set(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        for (first, panel) in self.resize(count, len) {
            let have = WIDTH.min(len - first);
            let row = |r: usize| if r < count { rows.row(r, at + first, have) } else { &[] };
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                fill(panel, row);
            }
        }
    }

    fn multiply(&mut self, a: Strided<'_>, count: usize, at: usize, out: &mut ColumnBlock<'_>) {
        let steps = self.steps();
        let len = rows_len(BLOCK_ROWS, steps) / 4;
        if self.rows.as_slice().len() < len {
            self.rows = AlignedBuffer::zeroed(len);
        }
        // SAFETY: there are such operands where AMX is permitted, and a thread multiplies by one at a time.
        #[allow(unsafe_code)]
        let _tiles = unsafe { Configuration::set() };
        let mut sums = Sums::new();
        for first in (0..count).step_by(BLOCK_ROWS) {
            let here = BLOCK_ROWS.min(count - first);
            let tiles = self.rows.as_mut_slice()[..len].chunks_exact_mut(len / 2);
            for (n, tile) in tiles.enumerate() {
                for r in 0..here.saturating_sub(n * TILE_ROWS).min(TILE_ROWS) {
                    let row = a.row(first + n * TILE_ROWS + r, at, self.depth);
                    round_to_tile(row, r, bytemuck::cast_slice_mut(tile));
                }
            }
            let both = here > TILE_ROWS;
            let rows = Rows::new(bytemuck::cast_slice(self.rows.as_slice()), BLOCK_ROWS, steps);
            let mut out = out.skip_rows(first);
            for p in 0..self.columns.div_ceil(WIDTH) {
                let panel = &self.buffer.as_slice()[p * self.panel_len()..(p + 1) * self.panel_len()];
                // SAFETY: tiles and panel were sliced to their lengths, and the tiles are configured; the output is borrowed.
                #[allow(unsafe_code)]
                unsafe {
                    let mut block =
                        Block::begin([rows.tile(0), rows.tile(1)], both, panel.as_ptr().cast(), None);
                    block.step(Format::Bf16, steps, &sums);
                    match out.whole_part(block.rows(), p * WIDTH, WIDTH) {
                        // What lies behind the rows and columns that are wanted may be anything.
                        Some((to, stride)) => block.store_to(to.cast(), 4 * stride),
                        None => {
                            block.store(&mut sums);
                            let columns = WIDTH.min(self.columns - p * WIDTH);
                            let place = Place { row: 0, rows: here, column: p * WIDTH, columns };
                            Output::Floats(Floats(out.skip_rows(0))).write(&sums, place, 0..here);
                        }
                    }
                }
            }
        }
    }
}
