//! Blocks of sums over rows and panels, shared by the formats.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::nn::gemm::{Threads, split};
use crate::nn::weight_memory::WeightMemory;

use super::output::{Output, Place};
use super::rows::Rows;
use super::tile::{
    BLOCK_ROWS, Block, Configuration, Format, MAX_PREFETCH, ROW_BYTES, STEP_BYTES, Sums, TILE_ROWS, WIDTH,
};

/// Bytes of rows that are taken together, and stay in the second cache while panels pass by.
pub(super) const ROW_BLOCK: usize = 3 << 19;

thread_local! {
    /// Sums of a thread's blocks between two runs of their panel, kept from one product to the next: new memory would be filled with zeros each time. (The buffers of
    /// `with_buffers` are floats that begin anywhere, and these are read and written as tiles.)
    static BETWEEN: RefCell<Vec<Sums>> = const { RefCell::new(Vec::new()) };
}

/// A weight in panels of 32 columns, each `[steps, 16, 32, 4 bytes]`; inputs and columns that do not exist are zero.
pub(super) struct Panels {
    buffer: WeightMemory<u32>,
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
        let mut buffer = WeightMemory::zeroed(columns.div_ceil(WIDTH) * len);
        let panels = buffer.as_mut_slice().par_chunks_mut(len).enumerate();
        let filled = panels.map(|(p, panel)| fill(p * WIDTH..columns.min((p + 1) * WIDTH), panel)).collect();
        (Self { buffer, format, steps, columns }, filled)
    }

    /// Bytes of all panels.
    pub(super) fn bytes(&self) -> usize {
        self.columns.div_ceil(WIDTH) * self.steps * STEP_BYTES
    }

    /// Where a step of a panel begins.
    fn panel(&self, p: usize, step: usize) -> *const u8 {
        let len = STEP_BYTES / 4;
        self.buffer.as_slice()[(p * self.steps + step) * len..(p + 1) * self.steps * len].as_ptr().cast()
    }

    /// Multiplies all rows by all panels. `finish` turns some rows of a block's sums into the layer's results and writes them to `output`, each once. The
    /// processor does that while it multiplies the next block.
    pub(super) fn multiply(
        &self,
        rows: Rows<'_>,
        output: &Output<'_>,
        threads: Threads,
        finish: impl Fn(&mut Sums, Place, Range<usize>) + Sync,
    ) {
        assert_eq!(rows.steps, self.steps);
        let panels = self.columns.div_ceil(WIDTH);
        match threads {
            Threads::One => self.run(rows, 0..panels, output, &finish),
            Threads::Pool => {
                let parts = split(panels, 2 * rayon::current_num_threads());
                parts.into_par_iter().for_each(|panels| self.run(rows, panels, output, &finish));
            }
        }
    }

    /// Computes the columns of these panels, in the order of [`Panels::runs`].
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
        let blocks = rows.count.div_ceil(BLOCK_ROWS);
        // The next run's panel is prefetched by all blocks evenly: a core has few lines under way at a time, and the rows' come by the same way.
        let ahead = STEP_BYTES.div_ceil(blocks.max(1)).min(MAX_PREFETCH);
        let parts = (rows.count * self.steps * ROW_BYTES).div_ceil(PART);
        let runs = self.runs(panels.clone(), blocks, parts);
        // Sums of blocks between two runs of their panel: of one panel, or of all where each panel is left for the next. And those of the last block that was
        // computed to its end.
        let each = if parts > 1 { blocks } else { 0 };
        let kept = if runs.len() > panels.len() { blocks + each * (panels.len() - 1) } else { 0 };
        let mut between = BETWEEN.take();
        if between.len() < kept {
            between.resize(kept, Sums::new());
        }
        let mut sums = Sums::new();
        let mut before: Option<Place> = None;
        for (run, &(p, Range { start, end })) in runs.iter().enumerate() {
            let (first, last) = (start == 0, end == self.steps);
            let next = runs.get(run + 1).map(|(p, steps)| self.panel(*p, steps.start));
            for n in 0..blocks {
                let place = self.place(rows.count, p, n);
                let tile = place.row / TILE_ROWS;
                let both = place.rows > TILE_ROWS;
                let tiles = [tile, tile + usize::from(both)].map(|tile| rows.tile(tile, start));
                let next = next.map(|next| (next.wrapping_add(n * (end - start) * ahead), ahead));
                let own = (p - panels.start) * each + n;
                let kept = (!first).then(|| &between[own]);
                // SAFETY: tiles and panel were sliced to their lengths, and the tiles are configured.
                #[allow(unsafe_code)]
                unsafe {
                    let mut block = Block::begin(tiles, both, self.panel(p, start), next, kept);
                    for piece in 0..PIECES {
                        let to = if last { &sums } else { &between[own] };
                        block.step(self.format, part(end - start, piece, PIECES).len(), to);
                        if last {
                            output.prefetch(place, part(place.rows, piece, PIECES));
                        }
                        if let Some(place) = before {
                            finish(&mut sums, place, part(place.rows, piece, PIECES));
                        }
                    }
                    block.store(if last { &mut sums } else { &mut between[own] });
                }
                before = last.then_some(place);
            }
        }
        if let Some(place) = before {
            finish(&mut sums, place, 0..place.rows);
        }
        BETWEEN.set(between);
    }

    /// Panels and their steps, in the order in which all blocks of rows are multiplied by them. The steps are in so many parts, of which the rows stay in the
    /// second cache while all panels pass by, and each part of a panel in runs that stay in the first.
    fn runs(&self, panels: Range<usize>, blocks: usize, parts: usize) -> Vec<(usize, Range<usize>)> {
        if blocks < MIN_BLOCKS {
            return panels.map(|p| (p, 0..self.steps)).collect();
        }
        let mut runs = Vec::new();
        for steps in split(self.steps, parts) {
            for p in panels.clone() {
                let chunks = split(steps.len(), steps.len().div_ceil(CHUNK)).into_iter();
                runs.extend(chunks.map(|chunk| (p, steps.start + chunk.start..steps.start + chunk.end)));
            }
        }
        runs
    }

    /// Block `n` of `rows` rows and a panel.
    fn place(&self, rows: usize, panel: usize, n: usize) -> Place {
        let (row, column) = (n * BLOCK_ROWS, panel * WIDTH);
        let columns = (self.columns - column).min(WIDTH);
        Place { row, rows: (rows - row).min(BLOCK_ROWS), column, columns }
    }
}

/// The most steps of a panel that are multiplied by all rows before the next ones: 32 KiB, which stay in the first cache.
const CHUNK: usize = 16;
/// Blocks of rows from which on that pays.
const MIN_BLOCKS: usize = 3;
/// Bytes of all rows in the steps that are multiplied by all panels before the next steps. A second layer may have several times the inputs of the first, whose
/// rows are divided by [`ROW_BLOCK`].
const PART: usize = 1 << 20;
/// Pieces in which a block is multiplied, while the one before is finished.
const PIECES: usize = 2;

/// Part `n` of so many, of steps or rows.
fn part(count: usize, n: usize, parts: usize) -> Range<usize> {
    n * count / parts..(n + 1) * count / parts
}
