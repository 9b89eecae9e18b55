//! Attention of one head in bf16 by `tdpbf16ps`: scores, their weights rounded straight into tiles (`query_block.rs`), and values.
//!
//! The row of the result is divided by the sum of its weights (as FlashAttention does, Dao et al. 2022, algorithm 1), which is fewer numbers than the weights are.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::attention::{Head, HeadAttention};
use crate::nn::gemm::ColumnBlock;

use super::bf16::{STEP, round_to_tile};
use super::output::{Floats, Place, vectors};
use super::panels::{fill, fill_transposed};
use super::query_block::QueryBlock;
use super::rows::{Rows, rows_len};
use super::tile::{BLOCK_ROWS, Block, Configuration, Format, STEP_BYTES, Sums, TILE_ROWS, WIDTH};

/// Buffers of a thread. The processor must have AMX.
pub(crate) struct AmxAttention {
    operands: HeadOperands,
    /// A block's queries as tiles.
    queries: AlignedBuffer<u32>,
}

/// The keys and values of a head, and what is computed of a block of its queries.
pub(super) struct HeadOperands {
    pub(super) keys: HeadPanels,
    pub(super) values: HeadPanels,
    /// A block's weights as tiles.
    weights: AlignedBuffer<u32>,
    /// The scores of a panel that is multiplied, of the one before, and of the one before that, whose weights are computed.
    scores: [Sums; SCORES],
}

/// A right operand in panels of 32 columns, each `[steps, 16, 32]` pairs.
pub(super) struct HeadPanels {
    buffer: AlignedBuffer<u32>,
    steps: usize,
    count: usize,
}

impl HeadPanels {
    /// Panels for so many inputs and columns, with the first one's of each, to be filled.
    pub(super) fn resize(
        &mut self,
        inputs: usize,
        columns: usize,
    ) -> impl Iterator<Item = (usize, &mut [u32])> {
        (self.steps, self.count) = (inputs.div_ceil(STEP), columns.div_ceil(WIDTH));
        let len = self.steps * STEP_BYTES / 4;
        grow(&mut self.buffer, self.count * len);
        let panels = self.buffer.as_mut_slice()[..self.count * len].chunks_exact_mut(len);
        panels.enumerate().map(|(p, panel)| (p * WIDTH, panel))
    }

    fn panel(&self, p: usize) -> *const u8 {
        let len = self.steps * STEP_BYTES / 4;
        self.buffer.as_slice()[p * len..(p + 1) * len].as_ptr().cast()
    }
}

fn grow<T: bytemuck::Pod>(buffer: &mut AlignedBuffer<T>, len: usize) {
    if buffer.as_slice().len() < len {
        *buffer = AlignedBuffer::zeroed(len);
    }
}

impl HeadOperands {
    pub(super) fn new() -> Self {
        let panels = || HeadPanels { buffer: AlignedBuffer::zeroed(0), steps: 0, count: 0 };
        let scores = std::array::from_fn(|_| Sums::new());
        Self { keys: panels(), values: panels(), weights: AlignedBuffer::zeroed(0), scores }
    }

    /// Attention of `count` queries. `queries` gives where the one or two tiles of a block of them begin, `seen` up to which key a query sees, and `write` takes
    /// each panel of a block's results, and the factors that its rows are yet to be multiplied by.
    ///
    /// # Safety
    /// Tiles must be configured, and the queries have the keys' steps.
    #[allow(unsafe_code)]
    pub(super) unsafe fn attend(
        &mut self,
        count: usize,
        mut queries: impl FnMut(Range<usize>) -> [*const u8; 2],
        seen: impl Fn(usize) -> usize,
        mut write: impl FnMut(&Sums, &[f32; BLOCK_ROWS], Range<usize>, usize),
    ) {
        let Self { keys, values, weights, scores } = self;
        let len = rows_len(BLOCK_ROWS, values.steps);
        grow(weights, len / 4);
        let weights: &mut [u8] = &mut bytemuck::cast_slice_mut(weights.as_mut_slice())[..len];
        let mut sums = Sums::new();
        for first in (0..count).step_by(BLOCK_ROWS) {
            let rows = first..count.min(first + BLOCK_ROWS);
            let both = rows.len() > TILE_ROWS;
            let tiles = queries(rows.clone());
            // Weights behind the last key that is seen are zero.
            let panels = rows.clone().map(&seen).max().unwrap_or(0).div_ceil(WIDTH);
            let mut block = QueryBlock::new(rows.clone());
            for p in 0..panels + BEHIND {
                // SAFETY: tiles and panel have that many steps, the tiles are configured. AMX in bf16 is permitted, which asks for the other instructions, too. The
                // processor multiplies while it computes weights.
                unsafe {
                    let product = (p < panels).then(|| {
                        let mut product = Block::begin(tiles, both, keys.panel(p), None, None);
                        product.step(Format::Bf16, keys.steps, &scores[p % SCORES]);
                        product
                    });
                    if let Some(stored) = p.checked_sub(BEHIND) {
                        block.weigh(stored, &scores[stored % SCORES], &seen, weights);
                    }
                    if let Some(product) = product {
                        product.store(&mut scores[p % SCORES]);
                    }
                }
            }
            let scales = block.scales();
            let tiles = Rows::new(weights, BLOCK_ROWS, values.steps);
            for p in 0..=values.count {
                // SAFETY: as above.
                unsafe {
                    let product = (p < values.count).then(|| {
                        let rows = [tiles.tile(0, 0), tiles.tile(1, 0)];
                        let mut product = Block::begin(rows, both, values.panel(p), None, None);
                        product.step(Format::Bf16, panels, &sums);
                        product
                    });
                    if let Some(before) = p.checked_sub(1) {
                        write(&sums, &scales, rows.clone(), before);
                    }
                    if let Some(product) = product {
                        product.store(&mut sums);
                    }
                }
            }
        }
    }
}

/// So many panels of keys after its scores were multiplied, a panel's weights are computed: what was just stored from tiles is not read at once, for which the
/// processor would wait.
const BEHIND: usize = 2;
/// Panels whose scores are kept.
const SCORES: usize = BEHIND + 1;

impl AmxAttention {
    pub(crate) fn new() -> Self {
        Self { operands: HeadOperands::new(), queries: AlignedBuffer::zeroed(0) }
    }

    /// Packs the keys and values of a head.
    fn pack(&mut self, head: &Head<'_>) {
        let &Head { keys, values, key_count, at, width, .. } = head;
        for (first, panel) in self.operands.keys.resize(width, key_count) {
            let row = |c: usize| (first + c < key_count).then(|| (keys.row(first + c, at, width), 1.0));
            // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
            #[allow(unsafe_code)]
            unsafe {
                fill_transposed(panel, row);
            }
        }
        for (first, panel) in self.operands.values.resize(key_count, width) {
            let have = WIDTH.min(width - first);
            let row = |r: usize| if r < key_count { values.row(r, at + first, have) } else { &[] };
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                fill(panel, row);
            }
        }
    }
}

impl HeadAttention for AmxAttention {
    fn attend(&mut self, head: &Head<'_>, out: &mut ColumnBlock<'_>) {
        let &Head { queries, query_count, key_count, at, width, causal, .. } = head;
        self.pack(head);
        let Self { operands, queries: buffer } = self;
        let len = rows_len(BLOCK_ROWS, operands.keys.steps);
        grow(buffer, len / 4);
        let tiles: &mut [u8] = &mut bytemuck::cast_slice_mut(buffer.as_mut_slice())[..len];
        // SAFETY: there is such an attention where AMX is permitted, and a thread computes one head at a time.
        #[allow(unsafe_code)]
        let _tiles = unsafe { Configuration::set() };
        let steps = operands.keys.steps;
        let round = |rows: Range<usize>| {
            for (r, row) in rows.enumerate() {
                let tile = &mut tiles[r / TILE_ROWS * (len / 2)..][..len / 2];
                round_to_tile(queries.row(row, at, width), r % TILE_ROWS, tile);
            }
            let rows = Rows::new(tiles, BLOCK_ROWS, steps);
            [rows.tile(0, 0), rows.tile(1, 0)]
        };
        let seen = |row: usize| if causal { (row + 1).min(key_count) } else { key_count };
        let out = Floats(out.skip_rows(0));
        // SAFETY: the tiles are configured; the output is borrowed.
        #[allow(unsafe_code)]
        unsafe {
            operands.attend(query_count, round, seen, |sums, scales, rows, p| {
                let columns = WIDTH.min(width - p * WIDTH);
                let place = Place { row: rows.start, rows: rows.len(), column: p * WIDTH, columns };
                write_scaled(sums, scales, &out, place);
            });
        }
    }
}

/// Writes a block's rows of sums, each times its scale.
///
/// # Safety
/// The processor must have AVX-512, and no other thread may use the block's place.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
unsafe fn write_scaled(sums: &Sums, scales: &[f32; BLOCK_ROWS], out: &Floats<'_>, place: Place) {
    for (r, &scale) in scales.iter().enumerate().take(place.rows) {
        let to = out.row(place, r);
        for (at, mask) in vectors(place.columns) {
            // SAFETY: the sums have 32 rows of 32, the output's row the columns that the mask keeps to.
            unsafe {
                let scaled = _mm512_mul_ps(_mm512_load_ps(sums.row(r).add(at)), _mm512_set1_ps(scale));
                _mm512_mask_storeu_ps(to.add(at), mask, scaled);
            }
        }
    }
}
