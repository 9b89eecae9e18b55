//! The matrix product in 8 bits: weights scaled per output channel when loaded, activations per row when multiplied.
//!
//! A row x becomes unsigned bytes q with x ≈ s (q − z); a weight column w signed bytes p with w ≈ t p. Then x·w ≈ s t (q·p − z Σp), where
//! q·p is exact in 32 bits on every processor, so that the bits of the product are the same everywhere. Reference for the scheme: Dettmers et al., "LLM.int8()" (arXiv 2208.07339), section 2, without its outliers.

mod kernel;
mod quantize;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::MinMax;

use super::activation::Activation;
use super::gemm::{ColumnBlock, Threads, split};
use super::packed_weight::PackedWeight;
use super::simd::{MAX_ROWS, MAX_WIDTH};
use super::weight_memory::WeightMemory;
use kernel::{GROUP, KERNELS, Kernel, Tile};
use quantize::Quantize;

/// Largest weight in 8 bits; the smallest is its negative, never −128.
const WEIGHT_MAX: f32 = 127.0;

/// A weight in 8 bits, in panels as the kernel reads them.
pub(crate) struct Int8 {
    kernel: &'static Kernel,
    inputs: usize,
    outputs: usize,
    /// `[panel][group][width][GROUP]`; inputs and outputs that do not exist are zero.
    panels: WeightMemory<i8>,
    /// Of each output, with zeros up to a whole panel.
    scales: Vec<f32>,
    sums: Vec<i32>,
    bias: Vec<f32>,
}

/// Rows in 8 bits.
struct Quantized {
    /// `[rows, groups * GROUP]`.
    bytes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

impl Int8 {
    /// From the outputs' rows of `inputs` elements, each with a factor, and the bias, empty or `[outputs]`.
    pub(crate) fn from_rows<'w>(
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        Self::for_kernel(KERNELS.best(), outputs, inputs, bias, row)
    }

    /// The same for the kernel that runs on every processor.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn portable<'w>(
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let portable = KERNELS.available().pop().expect("there is a portable one");
        Self::for_kernel(portable, outputs, inputs, bias, row)
    }

    fn for_kernel<'w>(
        kernel: &'static Kernel,
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let width = kernel.panel_columns();
        let padded = outputs.next_multiple_of(width);
        let groups = inputs.div_ceil(GROUP);
        let mut panels = WeightMemory::zeroed(padded * groups * GROUP);
        let (mut scales, mut sums) = (vec![0.0; padded], vec![0; padded]);
        panels
            .as_mut_slice()
            .par_chunks_mut(width * groups * GROUP)
            .zip(scales.par_chunks_mut(width).zip(sums.par_chunks_mut(width)))
            .enumerate()
            .for_each(|(p, (panel, (scales, sums)))| {
                for (j, output) in (p * width..outputs.min((p + 1) * width)).enumerate() {
                    (scales[j], sums[j]) = quantize_column(row(output), j, width, panel);
                }
            });
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(padded, 0.0);
        Self { kernel, inputs, outputs, panels, scales, sums, bias: padded_bias }
    }

    /// Computes the columns of these panels, which `out` consists of.
    fn run(
        &self,
        rows: &Quantized,
        count: usize,
        panels: std::ops::Range<usize>,
        out: &mut ColumnBlock<'_>,
        add: bool,
        activation: Option<Activation>,
    ) {
        let (groups, width) = (self.inputs.div_ceil(GROUP), self.kernel.panel_columns());
        let tiles = split(count, count.div_ceil(self.kernel.rows));
        let first = panels.start;
        for p in panels {
            let column = p * width;
            let columns = (self.outputs - column).min(width);
            for tile in &tiles {
                let mut a = [std::ptr::null(); MAX_ROWS];
                let (mut scale, mut zero) = ([0.0; MAX_ROWS], [0; MAX_ROWS]);
                for (r, row) in tile.clone().enumerate() {
                    a[r] = rows.bytes[row * groups * GROUP..(row + 1) * groups * GROUP].as_ptr();
                    (scale[r], zero[r]) = (rows.scales[row], rows.zeros[row]);
                }
                let function = self.kernel.tile(tile.len(), 2);
                let mut scratch = [0.0f32; MAX_ROWS * MAX_WIDTH];
                let mut place = out.part(tile.start, tile.len(), (p - first) * width, columns);
                let whole = columns == width;
                if !whole && add {
                    place.copy_to(&mut scratch, width);
                }
                let (c, stride) = if whole { place.pointer() } else { (scratch.as_mut_ptr(), width) };
                let tile = Tile {
                    a,
                    groups,
                    b: self.panels.as_slice()[p * width * groups * GROUP..(p + 1) * width * groups * GROUP]
                        .as_ptr(),
                    c,
                    stride,
                    add,
                    scale,
                    zero,
                    column_scale: self.scales[column..column + width].as_ptr(),
                    column_sum: self.sums[column..column + width].as_ptr(),
                    bias: self.bias[column..column + width].as_ptr(),
                };
                // SAFETY: rows, panel and the columns' factors were sliced to their lengths; the output has the tile's rows and `width`
                // columns, or is the scratch, which holds the largest tile.
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
}

impl PackedWeight for Int8 {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
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
        assert_eq!((x.len(), out.len()), (count * self.inputs, count * self.outputs));
        if count == 0 {
            return;
        }
        let rows = quantize(x, self.inputs, threads);
        let width = self.kernel.panel_columns();
        let all = self.outputs.div_ceil(width);
        let parts = match threads {
            Threads::One => 1,
            Threads::Pool => 2 * rayon::current_num_threads(),
        };
        let ranges = split(all, parts);
        let columns: Vec<_> =
            ranges.iter().map(|r| r.start * width..self.outputs.min(r.end * width)).collect();
        let blocks = ColumnBlock::split_at(out, self.outputs, &columns);
        let run = |(panels, mut block): (std::ops::Range<usize>, ColumnBlock<'_>)| {
            self.run(&rows, count, panels, &mut block, add, activation);
        };
        match threads {
            Threads::One => ranges.into_iter().zip(blocks).for_each(run),
            Threads::Pool => ranges.into_par_iter().zip(blocks).for_each(run),
        }
    }
}

/// Writes a weight's column, given as a row and a factor, to column `j` of a panel `[group][width][GROUP]`; returns its scale and the sum of its bytes.
pub(super) fn quantize_column(
    (row, factor): (&[f32], f32),
    j: usize,
    width: usize,
    panel: &mut [i8],
) -> (f32, i32) {
    let largest = row.iter().fold(0.0f32, |max, &w| max.max((w * factor).abs()));
    if largest == 0.0 {
        return (0.0, 0);
    }
    let inverse = factor * WEIGHT_MAX / largest;
    let mut sum = 0;
    for (k, &weight) in row.iter().enumerate() {
        let byte = (weight * inverse).round_ties_even() as i8;
        sum += i32::from(byte);
        panel[(k / GROUP * width + j) * GROUP + k % GROUP] = byte;
    }
    (largest / WEIGHT_MAX, sum)
}

/// How a row is written as unsigned bytes.
#[derive(Clone, Copy)]
pub(super) struct RowFormat {
    /// From bytes to numbers; 0 where all bytes are 0.
    pub(super) scale: f32,
    /// The byte of the number 0.
    pub(super) zero: i32,
}

impl RowFormat {
    /// That of a row's range.
    pub(super) fn of(row: &[f32]) -> Self {
        let (min, max) = MinMax::new(row).dispatch();
        // The range holds zero, so that a constant row and padding are exact.
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = (max - min) / 255.0;
        if scale == 0.0 || !scale.is_finite() {
            return Self { scale: 0.0, zero: 0 };
        }
        let zero = (-min * (1.0 / scale)).round_ties_even() as u8;
        Self { scale, zero: i32::from(zero) }
    }

    /// Writes a part of the row.
    pub(super) fn quantize(self, part: &[f32], bytes: &mut [u8]) {
        if self.scale == 0.0 {
            return bytes.fill(0);
        }
        Quantize { x: part, inverse: 1.0 / self.scale, zero: self.zero, bytes }.dispatch();
    }
}

/// To unsigned bytes, each row with its own scale and zero.
fn quantize(x: &[f32], inputs: usize, threads: Threads) -> Quantized {
    let (rows, padded) = (x.len() / inputs, inputs.next_multiple_of(GROUP));
    let mut bytes = vec![0u8; rows * padded];
    let (mut scales, mut zeros) = (vec![0.0; rows], vec![0; rows]);
    let one = |row: &[f32], bytes: &mut [u8], scale: &mut f32, zero: &mut i32| {
        let format = RowFormat::of(row);
        (*scale, *zero) = (format.scale, format.zero);
        format.quantize(row, &mut bytes[..row.len()]);
    };
    match threads {
        Threads::One => {
            let out = bytes.chunks_exact_mut(padded).zip(scales.iter_mut().zip(&mut zeros));
            x.chunks_exact(inputs).zip(out).for_each(|(row, (bytes, (s, z)))| one(row, bytes, s, z));
        }
        Threads::Pool => {
            let out = bytes.par_chunks_exact_mut(padded).zip(scales.par_iter_mut().zip(&mut zeros));
            let rows = x.par_chunks_exact(inputs).zip(out).with_min_len(16);
            rows.for_each(|(row, (bytes, (s, z)))| one(row, bytes, s, z));
        }
    }
    Quantized { bytes, scales, zeros }
}
