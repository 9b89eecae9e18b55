//! The matrix product: rows of activations times packed weights, with bias, residual and activation in the same pass.
//!
//! Crates were compared first (see docs/decisions/matrix-product.md): on CLIP's shapes they reach 60–80 % of what the processor can multiply and
//! add. Blocking follows Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), except that the left
//! operand is not packed: its rows are read where they lie, through pointers. That suits 50 to 200 rows, and convolutions.

mod kernel;
mod packed;
mod small;
mod spread;
#[cfg(test)]
mod tests;
mod windows;

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activation;
use super::simd::{LINE, MAX_ROWS};
use super::thread_buffers::with_buffers;
use kernel::{STEPS_PER_PREFETCH, Tile, WIDEST_PANEL};
pub(crate) use packed::Packed;
use packed::Panels;
pub(crate) use small::{ColumnBlock, OperandBuffer, Strided};
pub(crate) use windows::{Lines, Windows};

/// Inputs that are multiplied before the next block of them: a panel of so many rows stays in the second cache.
const DEPTH_BLOCK: usize = 768;
/// Rows that are taken together: their block of inputs stays in the second cache, too.
const ROW_BLOCK: usize = 256;
/// Rows that a task has at least where only rows are split, since each task reads all weights.
const ROWS_PER_TASK: usize = 56;
/// Columns whose sums are finished before the next ones begin, so that they stay in the second cache.
const COLUMN_BLOCK: usize = 512;

/// The left operand: rows that lie somewhere in a slice, each in one or more pieces ("taps").
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Row `r` is `data[r * stride..]`.
    Dense { data: &'a [f32], stride: usize },
    /// Row `r` is a window of an image, a piece for each of its pixels.
    Windows(Windows<'a>),
    /// Row `r` is a window of an image of few channels, a piece for each of its lines.
    Lines(Lines<'a>),
}

/// Whether a product may use all threads of the pool, or is itself one of many that run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    Pool,
}

/// What happens to a product before it is stored.
#[derive(Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// Added to every row, `[columns]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// Adds to what the output holds.
    pub(crate) add: bool,
    /// Applied last.
    pub(crate) activation: Option<Activation>,
}

/// The output: row `r` is `data[r * stride..][..columns]`.
pub(crate) struct Output<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) stride: usize,
}

/// `out = activation(out·add + rows · weight + bias)` for `count` rows.
pub(crate) fn multiply(
    rows: Rows<'_>,
    count: usize,
    weight: &Packed,
    out: &mut Output<'_>,
    finish: Finish<'_>,
    threads: Threads,
) {
    let panels = weight.view();
    if count == 0 || panels.columns == 0 {
        return;
    }
    if let Some(dense) = spread::needed(rows, count, panels) {
        return with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
            multiply_as_they_lie(dense.spread(buffer, threads), count, panels, out, finish, threads)
        });
    }
    multiply_as_they_lie(rows, count, panels, out, finish, threads);
}

fn multiply_as_they_lie(
    rows: Rows<'_>,
    count: usize,
    panels: Panels<'_>,
    out: &mut Output<'_>,
    finish: Finish<'_>,
    threads: Threads,
) {
    let job = Job::new(rows, count, panels, out, finish);
    let full = panels.kernel.panel_columns();
    let all_panels = panels.columns.div_ceil(full);
    let work = count * panels.columns * panels.depth;
    let workers = rayon::current_num_threads();
    if threads == Threads::One || workers == 1 || work < 1 << 17 {
        // SAFETY: all rows and panels, by this thread alone; `out` is borrowed.
        #[allow(unsafe_code)]
        return unsafe { job.run(0..count, 0..all_panels) };
    }
    // Rows are split where there are many, else columns: each thread then reads only its share of the weights. Where these are few, rows, too.
    let row_tasks = count / ROWS_PER_TASK;
    let [row_parts, column_parts] = if row_tasks >= 4 * workers {
        [4 * workers, 1]
    } else if all_panels >= 2 * workers {
        [1, 2 * workers]
    } else {
        let most = (count / (2 * panels.kernel.rows)).max(1);
        [(4 * workers).div_ceil(all_panels).min(most), all_panels]
    };
    let columns = split(all_panels, column_parts);
    let tasks: Vec<_> = split(count, row_parts)
        .into_iter()
        .flat_map(|rows| columns.iter().map(move |columns| (rows.clone(), columns.clone())))
        .collect();
    // SAFETY: the rectangles of rows and panels are disjoint and end at `count` and `all_panels`; `out` is borrowed.
    #[allow(unsafe_code)]
    let run = |(rows, panels)| unsafe { job.run(rows, panels) };
    tasks.into_par_iter().for_each(run);
}

/// `0..n` in `parts` ranges of nearly the same length.
pub(crate) fn split(n: usize, parts: usize) -> Vec<Range<usize>> {
    let parts = parts.clamp(1, n.max(1));
    (0..parts).map(|i| i * n / parts..(i + 1) * n / parts).collect()
}

/// Cuts `rows` rows, all that `data` has, into as many parts: the rows of each, and their elements.
pub(crate) fn split_rows<T>(data: &mut [T], rows: usize, parts: usize) -> Vec<(Range<usize>, &mut [T])> {
    let length = data.len() / rows.max(1);
    let mut rest = data;
    let mut part = |range: Range<usize>| {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(range.len() * length);
        rest = others;
        (range, own)
    };
    split(rows, parts).into_iter().map(&mut part).collect()
}

/// One product with everything that its parts need; parts may run on several threads.
struct Job<'a> {
    rows: Rows<'a>,
    taps: usize,
    /// Inputs of a piece.
    depth: usize,
    panels: Panels<'a>,
    out: OutPointer,
    stride: usize,
    finish: Finish<'a>,
}

/// Where the output lies. Parts of a job write disjoint rectangles of it.
#[derive(Clone, Copy)]
struct OutPointer(*mut f32);

// SAFETY: only `Job::run` writes through the pointer, whose callers promise that parts which run at the same time are disjoint.
#[allow(unsafe_code)]
unsafe impl Sync for OutPointer {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Send for OutPointer {}

impl<'a> Job<'a> {
    /// Checks all bounds, on which `run` relies.
    fn new(
        rows: Rows<'a>,
        count: usize,
        panels: Panels<'a>,
        out: &mut Output<'_>,
        finish: Finish<'a>,
    ) -> Self {
        let (taps, depth) = match rows {
            Rows::Dense { data, stride } => {
                let needed = count.checked_sub(1).map_or(0, |last| last * stride + panels.depth);
                assert!(data.len() >= needed, "{count} rows of {} in {}", panels.depth, data.len());
                (1, panels.depth)
            }
            Rows::Windows(windows) => {
                let taps = windows.taps();
                assert_eq!(panels.depth, taps * windows.zeros.len(), "inputs, in {taps} taps");
                (taps, windows.zeros.len())
            }
            Rows::Lines(lines) => {
                assert_eq!(panels.depth, lines.kernel * lines.depth(), "inputs, in {} lines", lines.kernel);
                (lines.kernel, lines.depth())
            }
        };
        let needed = count.checked_sub(1).map_or(0, |last| last * out.stride + panels.columns);
        assert!(out.data.len() >= needed && (count < 2 || out.stride >= panels.columns), "output too small");
        assert!(panels.data.len() >= packed::packed_len(panels.kernel, panels.depth, panels.columns));
        assert!(finish.bias.is_none_or(|bias| bias.len() == panels.columns), "one bias for each column");
        Self { rows, taps, depth, panels, out: OutPointer(out.data.as_mut_ptr()), stride: out.stride, finish }
    }

    /// Computes the rectangle of these rows and panels.
    ///
    /// # Safety
    /// The rows must be among the `count` rows given to [`Job::new`], the panels among the weight's, and the output that it was given
    /// must still be borrowed. No other thread may at the same time run the same rows with the same panels, nor use the rectangle.
    #[allow(unsafe_code)]
    unsafe fn run(&self, rows: Range<usize>, panels: Range<usize>) {
        let blocks = rows.len().div_ceil(ROW_BLOCK).max(1);
        let mut pointers = Vec::new();
        for block in split(rows.len(), blocks) {
            let rows = rows.start + block.start..rows.start + block.end;
            // SAFETY: a part of the caller's rectangle.
            unsafe { self.run_block(rows, panels.clone(), &mut pointers) };
        }
    }

    /// # Safety
    /// As for [`Job::run`].
    #[allow(unsafe_code)]
    unsafe fn run_block(&self, rows: Range<usize>, panels: Range<usize>, pointers: &mut Vec<*const f32>) {
        let kernel = self.panels.kernel;
        let tiles = split(rows.len(), rows.len().div_ceil(kernel.rows));
        // [tile, tap, row in tile]
        pointers.clear();
        pointers.resize(tiles.len() * self.taps * MAX_ROWS, std::ptr::null());
        for (tile, places) in tiles.iter().zip(pointers.chunks_exact_mut(self.taps * MAX_ROWS)) {
            match self.rows {
                Rows::Windows(windows) => windows.places(rows.start + tile.start, tile.len(), places),
                Rows::Lines(lines) => lines.places(rows.start + tile.start, tile.len(), places),
                Rows::Dense { data, stride } => {
                    for (row, place) in tile.clone().zip(places) {
                        *place = data[(rows.start + row) * stride..][..self.depth].as_ptr();
                    }
                }
            }
        }
        let steps = self.depth_steps();
        let groups = split(panels.len(), (panels.len() * kernel.panel_columns()).div_ceil(COLUMN_BLOCK));
        let order: Vec<(usize, &DepthStep)> = groups
            .iter()
            .flat_map(|group| steps.iter().map(move |step| (group, step)))
            .flat_map(|(group, step)| group.clone().map(move |panel| (panel, step)))
            .map(|(panel, step)| (panels.start + panel, step))
            .collect();
        for (n, &(panel, step)) in order.iter().enumerate() {
            // The last tiles prefetch the panel that comes next, as many as do by one line at a time: lines that are fetched long before they are read are
            // gone from the second cache by then.
            let next = order.get(n + 1).map_or(&[][..], |&(panel, step)| self.panel(panel, step).0);
            let lines = next.len() / LINE;
            let lines_each = (step.taps.len() * step.inputs.len() / STEPS_PER_PREFETCH).max(1);
            let last = lines.div_ceil(lines_each).clamp(1, tiles.len());
            for (t, tile) in tiles.iter().enumerate() {
                let places = &pointers[t * self.taps * MAX_ROWS..][..self.taps * MAX_ROWS];
                let share = (t + last)
                    .checked_sub(tiles.len())
                    .map_or(&[][..], |t| &next[t * lines / last * LINE..(t + 1) * lines / last * LINE]);
                let at = Place { row: rows.start + tile.start, rows: tile.len(), panel };
                // SAFETY: the tile is a part of the caller's rectangle, and `places` has its rows' pieces,
                // whose lengths were checked when it was filled.
                unsafe { self.tile(places, at, step, share) };
            }
        }
    }

    /// The weights of a panel for a step, and the panel's width.
    fn panel(&self, panel: usize, step: &DepthStep) -> (&[f32], usize) {
        let column = panel * self.panels.kernel.panel_columns();
        let width = self.panels.kernel.panel_width(self.panels.columns, panel);
        let start = column * self.panels.depth + (step.taps.start * self.depth + step.inputs.start) * width;
        (&self.panels.data[start..start + step.taps.len() * step.inputs.len() * width], width)
    }

    /// The order in which inputs are multiplied: whole taps together, or parts of a long one.
    fn depth_steps(&self) -> Vec<DepthStep> {
        let mut parts = Vec::new();
        if self.depth * 2 <= DEPTH_BLOCK {
            let together = (DEPTH_BLOCK + DEPTH_BLOCK / 4) / self.depth.max(1);
            parts.extend(
                split(self.taps, self.taps.div_ceil(together)).into_iter().map(|taps| (taps, 0..self.depth)),
            );
        } else {
            let inputs = split(self.depth, self.depth.div_ceil(DEPTH_BLOCK));
            parts
                .extend((0..self.taps).flat_map(|tap| inputs.iter().map(move |i| (tap..tap + 1, i.clone()))));
        }
        let last = parts.len() - 1;
        let steps = parts.into_iter().enumerate();
        steps.map(|(n, (taps, inputs))| DepthStep { taps, inputs, first: n == 0, last: n == last }).collect()
    }

    /// # Safety
    /// As for [`Job::run`], of the tile `at`; `places` holds pointers to its rows' pieces, `[tap, row]`, each of the job's depth.
    #[allow(unsafe_code)]
    unsafe fn tile(&self, places: &[*const f32], at: Place, step: &DepthStep, next: &[f32]) {
        let kernel = self.panels.kernel;
        let (panel, width) = self.panel(at.panel, step);
        let column = at.panel * kernel.panel_columns();
        let columns = (self.panels.columns - column).min(width);
        let function = kernel.tile(at.rows, width / kernel.lanes);
        let bias = self.finish.bias.filter(|_| step.first).map(|bias| &bias[column..column + columns]);
        // SAFETY: `new` checked that the output holds every row and column; the caller's tile is among them.
        let out = unsafe { self.out.0.add(at.row * self.stride + column) };
        let mut tile = Tile {
            a: places[step.taps.start * MAX_ROWS..].as_ptr(),
            taps: step.taps.len(),
            skip: step.inputs.start,
            depth: step.inputs.len(),
            b: panel.as_ptr(),
            c: out,
            stride: self.stride,
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            add: !step.first || self.finish.add,
            ceiling: self.finish.activation.filter(|_| step.last).and_then(Activation::ceiling),
            prefetch: next.as_ptr_range(),
        };
        // SAFETY: `new` checked that the output holds every row and column and that the panels are complete; the caller promises the
        // pieces, and that no other thread touches the tile. A panel with columns that do not exist is computed outside the output.
        unsafe {
            if columns == width {
                function(&tile);
            } else {
                run_edge_tile(function, &mut tile, bias, at.rows, columns, width);
            }
            if let Some(activation) =
                self.finish.activation.filter(|activation| step.last && activation.ceiling().is_none())
            {
                activation.apply_rows(out, self.stride, at.rows, columns);
            }
        }
    }
}

/// Runs a tile on a copy of its output and bias that has the panel's full width, and copies the columns that exist back.
///
/// # Safety
/// As for the tile function, but the output and the bias need have `columns` columns only.
#[allow(unsafe_code)]
unsafe fn run_edge_tile(
    function: kernel::TileFn,
    tile: &mut Tile,
    bias: Option<&[f32]>,
    rows: usize,
    columns: usize,
    width: usize,
) {
    let mut scratch = [0.0f32; MAX_ROWS * WIDEST_PANEL];
    let mut wide_bias = [0.0f32; WIDEST_PANEL];
    if let Some(bias) = bias {
        wide_bias[..columns].copy_from_slice(bias);
        tile.bias = wide_bias.as_ptr();
    }
    let (out, stride) = (tile.c, tile.stride);
    (tile.c, tile.stride) = (scratch.as_mut_ptr(), width);
    // SAFETY: the output has `rows` rows of `columns`, which no other thread touches; the scratch holds the largest tile.
    unsafe {
        if tile.add {
            for r in 0..rows {
                std::ptr::copy_nonoverlapping(out.add(r * stride), tile.c.add(r * width), columns);
            }
        }
        function(tile);
        for r in 0..rows {
            std::ptr::copy_nonoverlapping(tile.c.add(r * width), out.add(r * stride), columns);
        }
    }
}

/// Where a tile lies.
struct Place {
    row: usize,
    rows: usize,
    panel: usize,
}

/// Inputs `inputs` of each of the pieces `taps`.
struct DepthStep {
    taps: Range<usize>,
    inputs: Range<usize>,
    first: bool,
    last: bool,
}
