//! Attention's small products in bf16 by `tdpbf16ps`.

use std::arch::x86_64::*;

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::bf16::{fill, round_row_to_pieces, round_rows_side_by_side};
use crate::nn::gemm::{ColumnBlock, Strided};
use crate::nn::operand::Operand;

use super::bf16::STEP;
use super::output::vectors;
use super::rows::{Rows, rows_len};
use super::tile::{BLOCK_ROWS, Block, Configuration, Format, STEP_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

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
            for r in 0..here {
                let start = r / TILE_ROWS * steps * (TILE_BYTES / 4) + r % TILE_ROWS * 16;
                let row = a.row(first + r, at, self.depth);
                round_row_to_pieces(row, &mut self.rows.as_mut_slice()[start..], TILE_BYTES / 4);
            }
            let both = here > TILE_ROWS;
            let rows = Rows::new(bytemuck::cast_slice(self.rows.as_slice()), BLOCK_ROWS, steps);
            for p in 0..self.columns.div_ceil(WIDTH) {
                let panel = &self.buffer.as_slice()[p * self.panel_len()..(p + 1) * self.panel_len()];
                let columns = WIDTH.min(self.columns - p * WIDTH);
                let out = out.part(first, here, p * WIDTH, columns);
                // SAFETY: tiles and panel were sliced to their lengths, and the tiles are configured; with AMX there is AVX-512.
                #[allow(unsafe_code)]
                unsafe {
                    let mut block =
                        Block::begin([rows.tile(0), rows.tile(1)], both, panel.as_ptr().cast(), None);
                    block.step(Format::Bf16, steps, &sums);
                    block.store(&mut sums);
                    copy(&sums, here, columns, out);
                }
            }
        }
    }
}

/// Copies a block's sums to where they belong.
///
/// # Safety
/// The processor must have AVX-512, `out` so many rows and columns.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
unsafe fn copy(sums: &Sums, rows: usize, columns: usize, mut out: ColumnBlock<'_>) {
    let (out, stride) = out.pointer();
    for r in 0..rows {
        for (at, mask) in vectors(columns) {
            // SAFETY: the sums have 32 rows of 32; the mask keeps to the columns of the output's row.
            unsafe {
                _mm512_mask_storeu_ps(out.add(r * stride + at), mask, _mm512_load_ps(sums.row(r).add(at)));
            }
        }
    }
}
