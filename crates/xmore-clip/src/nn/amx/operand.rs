//! Attention's small products in bf16 by `tdpbf16ps`.

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::bf16::{fill, round_row_to_pieces, round_rows_side_by_side};
use crate::nn::gemm::{ColumnBlock, Strided};
use crate::nn::operand::Operand;

use super::bf16::{STEP, store};
use super::product::Place;
use super::rows::{Rows, rows_len};
use super::tile::{BLOCK_ROWS, Block, Format, STEP_BYTES, Sums, TILE_BYTES, TILE_ROWS, Tiles, WIDTH};

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

    fn resize(&mut self, depth: usize, columns: usize) {
        (self.depth, self.columns) = (depth, columns);
        let len = columns.div_ceil(WIDTH) * self.panel_len();
        if self.buffer.as_slice().len() < len {
            self.buffer = AlignedBuffer::zeroed(len);
        }
    }

    /// Panel `p`, all of it.
    fn panel_mut(&mut self, p: usize) -> &mut [u32] {
        let len = self.panel_len();
        &mut self.buffer.as_mut_slice()[p * len..(p + 1) * len]
    }
}

impl Operand for AmxOperand {
    fn tile_rows(&self) -> usize {
        BLOCK_ROWS
    }

    fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(16)
    }

    fn set_transposed(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        self.resize(len, count);
        let have = len.div_ceil(2) * WIDTH;
        for p in 0..count.div_ceil(WIDTH) {
            let columns = p * WIDTH..count.min((p + 1) * WIDTH);
            let (lines, missing) = self.panel_mut(p).split_at_mut(have);
            fill(lines, WIDTH, columns.map(|c| (rows.row(c, at, len), 1.0)));
            missing.fill(0);
        }
    }

    fn set(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        const ZEROS: [f32; WIDTH] = [0.0; WIDTH];
        self.resize(count, len);
        for p in 0..len.div_ceil(WIDTH) {
            let have = WIDTH.min(len - p * WIDTH);
            let row = |r| if r < count { rows.row(r, at + p * WIDTH, have) } else { &ZEROS[..have] };
            for (k, line) in self.panel_mut(p).chunks_exact_mut(WIDTH).enumerate() {
                round_rows_side_by_side(row(2 * k), row(2 * k + 1), &mut line[..have]);
            }
        }
    }

    fn multiply(&mut self, a: Strided<'_>, count: usize, at: usize, out: &mut ColumnBlock<'_>) {
        const NO_BIAS: [f32; WIDTH] = [0.0; WIDTH];
        let steps = self.steps();
        let len = rows_len(BLOCK_ROWS, steps) / 4;
        if self.rows.as_slice().len() < len {
            self.rows = AlignedBuffer::zeroed(len);
        }
        // SAFETY: there are such operands where AMX is permitted, and a thread multiplies by one at a time.
        #[allow(unsafe_code)]
        let _tiles = unsafe { Tiles::configure() };
        let mut sums = Sums([0; BLOCK_ROWS * WIDTH]);
        for first in (0..count).step_by(BLOCK_ROWS) {
            let here = BLOCK_ROWS.min(count - first);
            for r in 0..here {
                let start = r / TILE_ROWS * steps * (TILE_BYTES / 4) + r % TILE_ROWS * 16;
                let row = a.row(first + r, at, self.depth);
                round_row_to_pieces(row, &mut self.rows.as_mut_slice()[start..], TILE_BYTES / 4);
            }
            let both = here > TILE_ROWS;
            let rows = Rows::new(bytemuck::cast_slice(self.rows.as_slice()), BLOCK_ROWS, steps);
            for p in 0..self.columns.div_ceil(WIDTH) {
                let panel = &self.buffer.as_slice()[p * self.panel_len()..(p + 1) * self.panel_len()];
                let block = Block {
                    rows: [rows.tile(0), rows.tile(1)],
                    both,
                    panel: panel.as_ptr().cast(),
                    steps,
                    next: std::ptr::null(),
                };
                let columns = WIDTH.min(self.columns - p * WIDTH);
                let out = out.part(first, here, p * WIDTH, columns);
                let mut place = Place { row: 0, rows: here, column: 0, columns, out };
                // SAFETY: tiles and panel were sliced to their lengths, and the tiles are configured; with AMX there is AVX-512.
                #[allow(unsafe_code)]
                unsafe {
                    block.multiply(Format::Bf16, &mut sums);
                    store(&sums, &mut place, &NO_BIAS, false);
                }
            }
        }
    }
}
