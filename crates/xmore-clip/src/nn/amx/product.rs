//! Blocks of sums over rows and panels, shared by the formats.

use std::ops::Range;

use rayon::prelude::*;

use crate::nn::activation::Activation;
use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::gemm::{Threads, split};

use super::output::{Output, Place};
use super::rows::Rows;
use super::tile::{
    BLOCK_ROWS, Block, Configuration, Format, PREFETCH_BYTES, PREFETCH_RUNS, STEP_BYTES, Sums, TILE_ROWS,
    WIDTH,
};

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

    /// Multiplies all rows by all panels. `to_floats` turns some rows of a block's sums into the layer's results, in 32-bit floats in their place; the
    /// activation follows. The processor does that, and writes them, while it multiplies the next block.
    pub(super) fn multiply(
        &self,
        rows: Rows<'_>,
        output: &Output<'_>,
        activation: Option<Activation>,
        threads: Threads,
        to_floats: impl Fn(&mut Sums, Place, Range<usize>) + Sync,
    ) {
        assert_eq!(rows.steps, self.steps);
        let finish = |sums: &mut Sums, place: Place, part: Range<usize>| {
            to_floats(sums, place, part.clone());
            if let Some(activation) = activation {
                activation.apply(sums.floats(part.clone()));
            }
            // SAFETY: there are weights where AMX is permitted; each block is finished once, by one thread.
            #[allow(unsafe_code)]
            unsafe {
                output.write(sums, place, part);
            }
        };
        let panels = self.columns.div_ceil(WIDTH);
        match threads {
            Threads::One => self.run(rows, 0..panels, output, &finish),
            Threads::Pool => {
                let parts = split(panels, 2 * rayon::current_num_threads());
                parts.into_par_iter().for_each(|panels| self.run(rows, panels, output, &finish));
            }
        }
    }

    /// Computes the columns of these panels.
    fn run(
        &self,
        rows: Rows<'_>,
        panels: Range<usize>,
        output: &Output<'_>,
        finish: &impl Fn(&mut Sums, Place, Range<usize>),
    ) {
        // SAFETY: weights of a format are packed for AMX where it is permitted, and a thread runs one product at a time: `finish` starts none.
        #[allow(unsafe_code)]
        let _tiles = unsafe { Configuration::set() };
        let mut sums = Sums::new();
        // The block whose sums are in `sums`.
        let mut before: Option<Place> = None;
        for p in panels.clone() {
            let column = p * WIDTH;
            for (n, row) in (0..rows.count).step_by(BLOCK_ROWS).enumerate() {
                let (here, tile) = ((rows.count - row).min(BLOCK_ROWS), row / TILE_ROWS);
                let both = here > TILE_ROWS;
                let next = (p + 1 < panels.end && n < PREFETCH_RUNS)
                    .then(|| self.panel(p + 1).wrapping_add(n * self.steps * PREFETCH_BYTES));
                let tiles = [rows.tile(tile), rows.tile(tile + usize::from(both))];
                let place = Place { row, rows: here, column, columns: (self.columns - column).min(WIDTH) };
                // SAFETY: tiles and panel were sliced to their lengths, and the tiles are configured.
                #[allow(unsafe_code)]
                unsafe {
                    let mut block = Block::begin(tiles, both, self.panel(p), next);
                    for piece in 0..PIECES {
                        block.step(self.format, part(self.steps, piece).len(), &sums);
                        output.prefetch(place, part(here, piece));
                        if let Some(place) = before {
                            finish(&mut sums, place, part(place.rows, piece));
                        }
                    }
                    block.store(&mut sums);
                }
                before = Some(place);
            }
        }
        if let Some(place) = before {
            finish(&mut sums, place, 0..place.rows);
        }
    }
}

/// Pieces in which a block is multiplied, while the one before is finished.
const PIECES: usize = 8;

/// Piece `n` of so many steps or rows.
fn part(count: usize, n: usize) -> Range<usize> {
    n * count / PIECES..(n + 1) * count / PIECES
}
