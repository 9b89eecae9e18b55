//! Blocks of sums over rows and panels, shared by the formats.

use std::ops::Range;

use rayon::prelude::*;

use crate::nn::activation::Activation;
use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::gemm::{ColumnBlock, Threads, split};

use super::rows::Rows;
use super::tile::{BLOCK_ROWS, Block, Format, PREFETCH_RUNS, STEP_BYTES, Sums, TILE_ROWS, Tiles, WIDTH};

/// A weight in panels of 32 columns, each `[steps, 16, 32, 4 bytes]`; inputs and columns that do not exist are zero.
pub(super) struct Panels {
    buffer: AlignedBuffer<u32>,
    pub(super) format: Format,
    pub(super) steps: usize,
    pub(super) columns: usize,
}

impl Panels {
    /// From a function that fills each panel, `[groups, 32]` groups of 4 bytes, of which all are zero; it gets the numbers of the panel's columns. What it
    /// returns comes in the order of the panels.
    pub(super) fn new<T: Send>(
        format: Format,
        columns: usize,
        steps: usize,
        fill: impl Fn(Range<usize>, &mut [u32]) -> T + Sync,
    ) -> (Self, Vec<T>) {
        let len = STEP_BYTES / 4 * steps;
        let count = columns.div_ceil(WIDTH);
        let mut buffer = AlignedBuffer::zeroed(count * len);
        let panels = buffer.as_mut_slice()[..count * len].par_chunks_mut(len).enumerate();
        let filled = panels.map(|(p, panel)| fill(p * WIDTH..columns.min((p + 1) * WIDTH), panel)).collect();
        (Self { buffer, format, steps, columns }, filled)
    }

    fn panel(&self, p: usize) -> *const u8 {
        let len = STEP_BYTES / 4 * self.steps;
        self.buffer.as_slice()[p * len..(p + 1) * len].as_ptr().cast()
    }

    /// Multiplies all rows by all panels; `store` writes the sums of each block to its place in the output, where the activation follows.
    pub(super) fn multiply(
        &self,
        rows: Rows<'_>,
        out: &mut [f32],
        activation: Option<Activation>,
        threads: Threads,
        store: impl Fn(&Sums, &mut Place<'_>) + Sync,
    ) {
        assert_eq!(rows.steps, self.steps);
        let parts = match threads {
            Threads::One => 1,
            Threads::Pool => 2 * rayon::current_num_threads(),
        };
        let ranges = split(self.columns.div_ceil(WIDTH), parts);
        let columns: Vec<_> =
            ranges.iter().map(|r| r.start * WIDTH..self.columns.min(r.end * WIDTH)).collect();
        let blocks = ColumnBlock::split_at(out, self.columns, &columns);
        let run = |(panels, mut block): (Range<usize>, ColumnBlock<'_>)| {
            self.run(rows, panels, &mut block, activation, &store);
        };
        match threads {
            Threads::One => ranges.into_iter().zip(blocks).for_each(run),
            Threads::Pool => ranges.into_par_iter().zip(blocks).for_each(run),
        }
    }

    /// Computes the columns of these panels, which `out` consists of.
    fn run(
        &self,
        rows: Rows<'_>,
        panels: Range<usize>,
        out: &mut ColumnBlock<'_>,
        activation: Option<Activation>,
        store: &impl Fn(&Sums, &mut Place<'_>),
    ) {
        // SAFETY: weights of a format are packed for AMX where it is permitted, and a thread runs one product at a time: `store` starts none.
        #[allow(unsafe_code)]
        let _tiles = unsafe { Tiles::configure() };
        let mut sums = Sums([0; BLOCK_ROWS * WIDTH]);
        let first = panels.start;
        for p in panels.clone() {
            let column = p * WIDTH;
            let columns = (self.columns - column).min(WIDTH);
            for (n, row) in (0..rows.count).step_by(BLOCK_ROWS).enumerate() {
                let (here, tile) = ((rows.count - row).min(BLOCK_ROWS), row / TILE_ROWS);
                let both = here > TILE_ROWS;
                let next = if p + 1 < panels.end && n < PREFETCH_RUNS {
                    self.panel(p + 1).wrapping_add(n * self.steps * (STEP_BYTES / PREFETCH_RUNS))
                } else {
                    std::ptr::null()
                };
                let block = Block {
                    rows: [rows.tile(tile), rows.tile(tile + usize::from(both))],
                    both,
                    panel: self.panel(p),
                    steps: self.steps,
                    next,
                };
                // SAFETY: tiles and panel were sliced to their lengths, and the tiles are configured.
                #[allow(unsafe_code)]
                unsafe {
                    block.multiply(self.format, &mut sums);
                }
                let out = out.part(row, here, (p - first) * WIDTH, columns);
                let mut place = Place { row, rows: here, column, columns, out };
                store(&sums, &mut place);
                if let Some(activation) = activation {
                    place.out.activate(activation);
                }
            }
        }
    }
}

/// A block of sums in the product.
pub(super) struct Place<'a> {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
    pub(super) columns: usize,
    /// The rows and columns that exist.
    pub(super) out: ColumnBlock<'a>,
}
