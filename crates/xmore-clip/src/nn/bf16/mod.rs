//! The matrix product in bf16: weights rounded when loaded, rows of activations when multiplied, sums in 32 bits.
//!
//! Everything between products stays in 32-bit floats. See docs/decisions/bf16-products.md.

mod kernel;
mod operand;
mod panels;
mod round;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activation;
use super::gemm::{ColumnBlock, Threads, split};
use super::packed_weight::PackedWeight;
use super::simd::{MAX_ROWS, MAX_WIDTH, row_distance};
use super::thread_buffers::with_buffers;
use kernel::{KERNELS, Kernel, Tile};
pub(super) use operand::Bf16Operand;
use panels::Panels;
pub(super) use round::SMALLEST;
use round::round_rows;

/// Pairs of rows that are taken together: 768 KiB, which stays in the second cache while panels pass by.
const ROW_BLOCK: usize = 3 << 16;
/// Multiply-adds from which on a second thread is worth using.
const MIN_PARALLEL: usize = 1 << 17;

/// A weight in bf16 and its bias.
pub(crate) struct Bf16 {
    weight: Panels,
    /// Zeros up to a whole panel.
    bias: Vec<f32>,
}

/// Rows in bf16.
#[derive(Clone, Copy)]
struct Rows<'a> {
    pairs: &'a [u32],
    count: usize,
    /// From one row to the next, in pairs.
    stride: usize,
}

impl Bf16 {
    /// Whether the processor has instructions on vectors for it, and uses them.
    pub(super) fn has_instruction() -> bool {
        kernel::has_instruction(KERNELS.best())
    }

    /// From the outputs' rows of `inputs` elements, each with a factor, and the bias, empty or `[outputs]`.
    pub(super) fn from_rows<'w>(
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        Self::for_kernel(KERNELS.best(), outputs, inputs, bias, row)
    }

    fn for_kernel<'w>(
        kernel: &'static Kernel,
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(outputs.next_multiple_of(kernel.panel_columns()), 0.0);
        Self { weight: Panels::from_rows(kernel, outputs, inputs, row), bias: padded_bias }
    }

    /// Computes the columns of these panels, which `out` consists of.
    fn run(
        &self,
        rows: Rows<'_>,
        panels: Range<usize>,
        out: &mut ColumnBlock<'_>,
        add: bool,
        activation: Option<Activation>,
    ) {
        let kernel = self.weight.kernel;
        let pairs = self.weight.pairs();
        let tiles = split(rows.count, rows.count.div_ceil(kernel.rows));
        let first = panels.start;
        for p in panels.clone() {
            let (panel, width) = self.weight.panel(p);
            // Every tile prefetches a share of the panel that comes next.
            let next = if p + 1 < panels.end { self.weight.panel(p + 1).0 } else { &[] };
            let column = p * kernel.panel_columns();
            let columns = (self.weight.columns - column).min(width);
            for (t, tile) in tiles.iter().enumerate() {
                let mut a = [std::ptr::null(); MAX_ROWS];
                for (pointer, row) in a.iter_mut().zip(tile.clone()) {
                    *pointer = rows.pairs[row * rows.stride..][..pairs].as_ptr();
                }
                let share = &next[t * next.len() / tiles.len()..(t + 1) * next.len() / tiles.len()];
                let mut place =
                    out.part(tile.start, tile.len(), column - first * kernel.panel_columns(), columns);
                let mut scratch = [0.0f32; MAX_ROWS * MAX_WIDTH];
                let whole = columns == width;
                if !whole && add {
                    place.copy_to(&mut scratch, width);
                }
                let (c, stride) = if whole { place.pointer() } else { (scratch.as_mut_ptr(), width) };
                let function = kernel.tile(tile.len(), width / kernel.lanes);
                let tile = Tile {
                    a,
                    pairs,
                    b: panel.as_ptr(),
                    c,
                    stride,
                    add,
                    bias: self.bias[column..column + width].as_ptr(),
                    prefetch: share.as_ptr_range(),
                };
                // SAFETY: rows, panel and bias were sliced to their lengths; the output has the tile's rows and `width` columns, or is the
                // scratch, which holds the largest tile.
                #[allow(unsafe_code)]
                unsafe {
                    function(&tile);
                }
                if !whole {
                    place.copy_from(&scratch, width);
                }
                if let Some(activation) = activation {
                    place.activate(activation);
                }
            }
        }
    }

    /// [`PackedWeight::multiply`] for rows that are rounded already.
    fn multiply_rounded(
        &self,
        rows: Rows<'_>,
        out: &mut [f32],
        add: bool,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let (outputs, width) = (self.weight.columns, self.weight.kernel.panel_columns());
        let parts = match threads {
            Threads::One => 1,
            Threads::Pool => 2 * rayon::current_num_threads(),
        };
        let ranges = split(outputs.div_ceil(width), parts);
        let columns: Vec<_> = ranges.iter().map(|r| r.start * width..outputs.min(r.end * width)).collect();
        let blocks = ColumnBlock::split_at(out, outputs, &columns);
        let run = |(panels, mut block): (Range<usize>, ColumnBlock<'_>)| {
            self.run(rows, panels, &mut block, add, activation);
        };
        match threads {
            Threads::One => ranges.into_iter().zip(blocks).for_each(run),
            Threads::Pool => ranges.into_par_iter().zip(blocks).for_each(run),
        }
    }
}

impl PackedWeight for Bf16 {
    fn inputs(&self) -> usize {
        self.weight.depth
    }

    fn outputs(&self) -> usize {
        self.weight.columns
    }

    fn multiply(
        &self,
        x: &[f32],
        count: usize,
        out: &mut [f32],
        add: bool,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        assert_eq!((x.len(), out.len()), (count * inputs, count * outputs));
        if count == 0 || outputs == 0 {
            return;
        }
        let threads = if count * inputs * outputs < MIN_PARALLEL { Threads::One } else { threads };
        let stride = row_distance(self.weight.pairs());
        for block in split(count, (count * stride).div_ceil(ROW_BLOCK)) {
            with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
                buffer.resize(block.len() * stride, 0.0);
                let pairs: &mut [u32] = bytemuck::cast_slice_mut(buffer);
                round_rows(&x[block.start * inputs..block.end * inputs], inputs, pairs, stride, threads);
                let rows = Rows { pairs, count: block.len(), stride };
                let out = &mut out[block.start * outputs..block.end * outputs];
                self.multiply_rounded(rows, out, add, activation, threads);
            });
        }
    }
}
