//! The innermost loops of a depthwise convolution, over vectors of channels.
//!
//! A tile is a few output pixels side by side, whose sums stay in registers while each input pixel under them is loaded once. Every sum is
//! one chain of fused multiply-adds in the order of the kernel's taps, whatever the tile. One vector of channels goes through all rows
//! before the next one, so that the input rows under a window are still in the first cache for the next window.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::Window;
use super::depthwise::{DepthwiseConv2d, InputRows};

/// Some rows of a depthwise convolution's output.
pub(super) struct DepthwiseRows<'a> {
    pub(super) layer: &'a DepthwiseConv2d,
    pub(super) input: InputRows<'a>,
    pub(super) rows: Range<usize>,
    /// Between which values the sums are stored.
    pub(super) clamps: [f32; 2],
    /// `[rows, width', outputs]`.
    pub(super) out: &'a mut [f32],
}

impl SimdOp for DepthwiseRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        self.check();
        let Self { layer, input, .. } = &self;
        let lanes = isa.f32().len();
        let Window { kernel, stride, .. } = layer.window;
        let padding = layer.window.padding_before(input.size.width);
        if layer.inputs < lanes {
            return self.scalars();
        }
        // SAFETY: the places were checked, and there is at least one vector of channels; a window's columns before and after the input are
        // fewer than the kernel's.
        #[allow(unsafe_code)]
        unsafe {
            match (kernel, stride) {
                (3, 1) if padding < 3 => self.vectors::<I, 3, 1>(isa),
                (3, 2) if padding < 3 => self.vectors::<I, 3, 2>(isa),
                (5, 1) if padding < 5 => self.vectors::<I, 5, 1>(isa),
                (5, 2) if padding < 5 => self.vectors::<I, 5, 2>(isa),
                (7, 1) if padding < 7 => self.vectors::<I, 7, 1>(isa),
                (7, 2) if padding < 7 => self.vectors::<I, 7, 2>(isa),
                _ => self.vectors::<I, 0, 0>(isa),
            }
        }
    }
}

/// One vector of channels of the rows under an output row.
struct Lines {
    /// The first pixel of the first row that lies inside.
    pixel: *const f32,
    /// The weight of the kernel's first tap of that row.
    weight: *const f32,
    /// How many rows lie inside.
    rows: usize,
    bias: *const f32,
    /// Where the output row begins.
    out: *mut f32,
}

impl DepthwiseRows<'_> {
    /// Checks all bounds, on which the vector loops rely.
    fn check(&self) {
        let Self { layer, input, rows, out, .. } = self;
        let DepthwiseConv2d { weight, bias, window, inputs, .. } = layer;
        let to = window.output(input.size);
        assert!(rows.start <= rows.end && rows.end <= to.height, "rows {rows:?} of {}", to.height);
        assert_eq!(out.len(), rows.len() * to.width * bias.len(), "rows of the output");
        assert!(bias.len().is_multiple_of(*inputs) && weight.len() == window.kernel.pow(2) * bias.len());
        for row in rows.clone() {
            let (_, y, count) = window.taps(row, input.size.height);
            let end = (y + count).saturating_sub(input.first) * input.size.width * inputs;
            assert!(count == 0 || (y >= input.first && end <= input.data.len()), "row {row}'s input");
        }
    }

    /// All vectors of channels; `K` and `S` are the kernel and the stride, or zeros where there are no tiles of them.
    ///
    /// # Safety
    /// [`Self::check`] must hold. There must be a vector of channels, and fewer than `K` columns before the input.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn vectors<I: Isa, const K: usize, const S: usize>(&mut self, isa: I) {
        let lanes = isa.f32().len();
        let (inputs, outputs) = (self.layer.inputs, self.layer.bias.len());
        let window = self.layer.window;
        let (size, width) = (self.input.size, window.output(self.input.size).width);
        for kernels in (0..outputs).step_by(inputs) {
            for vector in 0..inputs.div_ceil(lanes) {
                // The last one overlaps the one before it where the channels fill no vector.
                let channel = (vector * lanes).min(inputs - lanes);
                for (n, row) in self.rows.clone().enumerate() {
                    let (tap, y, rows) = window.taps(row, size.height);
                    // SAFETY: `check`ed; a row without input reads none.
                    unsafe {
                        let first = (y.saturating_sub(self.input.first)) * size.width * inputs;
                        let lines = Lines {
                            pixel: self.input.data.as_ptr().wrapping_add(first + channel),
                            weight: self
                                .layer
                                .weight
                                .as_ptr()
                                .wrapping_add(tap * window.kernel * outputs + kernels + channel),
                            rows,
                            bias: self.layer.bias.as_ptr().add(kernels + channel),
                            out: self.out.as_mut_ptr().add(n * width * outputs + kernels + channel),
                        };
                        let mut x = 0;
                        while x < width {
                            let columns = if K == 0 { 0 } else { tile_columns(width - x) };
                            match columns {
                                8 => self.tile::<I, K, S, 8>(isa, &lines, x),
                                7 => self.tile::<I, K, S, 7>(isa, &lines, x),
                                4 => self.tile::<I, K, S, 4>(isa, &lines, x),
                                1 => self.tile::<I, K, S, 1>(isa, &lines, x),
                                _ => self.pixel(isa, &lines, x),
                            }
                            x += columns.max(1);
                        }
                    }
                }
            }
        }
    }
    /// One vector of channels of `N` output pixels from column `x` on.
    ///
    /// # Safety
    /// The lines must be those of an output row and hold a vector at every pixel, weight and output; fewer than `K` columns of a window lie
    /// before the input, and all `N` pixels exist.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn tile<I: Isa, const K: usize, const S: usize, const N: usize>(
        &mut self,
        isa: I,
        lines: &Lines,
        x: usize,
    ) {
        let ops = isa.f32();
        let (inputs, outputs) = (self.layer.inputs, self.layer.bias.len());
        let width = self.input.size.width;
        let start = (x * S) as isize - self.layer.window.padding_before(width) as isize;
        // Columns under the tile, of which `certain` need no check and `inside` exist.
        let span = (N - 1) * S + K;
        let certain = K.saturating_sub(1)..(span + 1).saturating_sub(K);
        let inside = (-start).max(0) as usize..(width as isize - start) as usize;
        // SAFETY: the caller promises the places. Columns that may not exist are among the first and the last `K - 1`.
        unsafe {
            let mut sums = [ops.load_ptr(lines.bias); N];
            for row in 0..lines.rows {
                let pixel =
                    lines.pixel.wrapping_add(row * width * inputs).wrapping_offset(start * inputs as isize);
                let weight = lines.weight.add(row * K * outputs);
                let mut weights = [ops.zero(); K];
                for (k, value) in weights.iter_mut().enumerate() {
                    *value = ops.load_ptr(weight.add(k * outputs));
                }
                // Written out, so that the sums are registers.
                macro_rules! taps {
                    ($value:ident $p:literal: $($k:literal)*) => {$(
                        let output = usize::wrapping_sub($p, $k) / S;
                        if $k < K && $p >= $k && output * S + $k == $p && output < N {
                            sums[output] = ops.mul_add($value, weights[$k], sums[output]);
                        }
                    )*};
                }
                macro_rules! columns {
                    ($($p:literal)*) => {$(
                        if $p < span
                            && ($p >= certain.start || $p >= inside.start)
                            && ($p < certain.end || $p < inside.end) {
                            let value = ops.load_ptr(pixel.wrapping_add($p * inputs));
                            taps!(value $p: 0 1 2 3 4 5 6);
                        }
                    )*};
                }
                columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20);
            }
            let [low, high] = self.clamps.map(|clamp| ops.splat(clamp));
            for (n, sum) in sums.into_iter().enumerate() {
                ops.store_ptr(ops.min(ops.max(sum, low), high), lines.out.add((x + n) * outputs));
            }
        }
    }

    /// One vector of channels of the output pixel of column `x`, with any window.
    ///
    /// # Safety
    /// As for [`Self::tile`], but for the columns before the input.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn pixel<I: Isa>(&mut self, isa: I, lines: &Lines, x: usize) {
        let ops = isa.f32();
        let (inputs, outputs) = (self.layer.inputs, self.layer.bias.len());
        let (window, width) = (self.layer.window, self.input.size.width);
        let (tap, first, columns) = window.taps(x, width);
        // SAFETY: the caller promises the places.
        unsafe {
            let mut sum = ops.load_ptr(lines.bias);
            for row in 0..lines.rows {
                for column in 0..columns {
                    let pixel = lines.pixel.add((row * width + first + column) * inputs);
                    let weight = lines.weight.add((row * window.kernel + tap + column) * outputs);
                    sum = ops.mul_add(ops.load_ptr(pixel), ops.load_ptr(weight), sum);
                }
            }
            let [low, high] = self.clamps;
            ops.store_ptr(ops.min(ops.max(sum, ops.splat(low)), ops.splat(high)), lines.out.add(x * outputs));
        }
    }

    /// All channels one by one, where there are too few for a vector.
    fn scalars(&mut self) {
        let DepthwiseConv2d { weight, bias, window, inputs, .. } = self.layer;
        let (size, outputs) = (self.input.size, bias.len());
        let width = window.output(size).width;
        for (row, line) in self.rows.clone().zip(self.out.chunks_exact_mut(width * outputs)) {
            let (ky, y, rows) = window.taps(row, size.height);
            for (x, pixel) in line.chunks_exact_mut(outputs).enumerate() {
                let (kx, x, columns) = window.taps(x, size.width);
                for (output, value) in pixel.iter_mut().enumerate() {
                    let mut sum = bias[output];
                    for r in 0..rows {
                        for k in 0..columns {
                            let at = (y + r - self.input.first) * size.width + x + k;
                            let tap = (ky + r) * window.kernel + kx + k;
                            sum = self.input.data[at * inputs + output % inputs]
                                .mul_add(weight[tap * outputs + output], sum);
                        }
                    }
                    *value = sum.clamp(self.clamps[0], self.clamps[1]);
                }
            }
        }
    }
}

/// How many pixels the next tile has where `rest` are left of a row.
fn tile_columns(rest: usize) -> usize {
    match rest {
        _ if rest.is_multiple_of(7) => 7,
        8.. => 8,
        4.. => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nn::conv::{Padding, Size};
    use crate::nn::norm::BatchNorm;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Tiles have the bits of one chain for each output, on every instruction set with fused multiply-adds, also from a part of the input.
        #[test]
        fn tiles_have_the_bits_of_plain_chains(
            height in 1usize..9, width in 1usize..40, inputs in 16usize..50, multiple in 1usize..3, kernel in 1usize..9, stride in 1usize..4,
            around in 0usize..5, from in 0usize..4, seed: u32,
        ) {
            let padding = around.checked_sub(1).map_or(Padding::Same, |n| Padding::Around(n.min(kernel - 1)));
            let (size, window) = (Size { height, width }, Window { kernel, stride, padding });
            let outputs = inputs * multiple;
            let bn = BatchNorm { scale: vec![1.0; outputs], shift: values(outputs, 5) };
            let layer = DepthwiseConv2d::new(&values(outputs * kernel * kernel, !seed), inputs, window, bn, None);
            let to = window.output(size);
            prop_assume!(to.area() > 0);
            let rows = from.min(to.height)..to.height;
            let first = if rows.is_empty() { 0 } else { window.taps(rows.start, height).1 };
            let x = values(size.area() * inputs, seed);
            let input = InputRows { data: &x[first * width * inputs..], first, size };
            let computed = |run: &dyn Fn(DepthwiseRows<'_>)| {
                let mut out = vec![f32::NAN; rows.len() * to.width * outputs];
                run(DepthwiseRows { layer: &layer, input, rows: rows.clone(), clamps: [-0.25, 0.75], out: &mut out });
                out
            };
            let plain = computed(&|mut rows| rows.scalars());
            #[cfg(target_arch = "x86_64")]
            {
                if let Some(isa) = rten_simd::isa::Avx512Isa::new() {
                    prop_assert!(computed(&|rows| rows.eval(isa)) == plain, "AVX-512");
                }
                if let Some(isa) = rten_simd::isa::Avx2Isa::new() {
                    prop_assert!(computed(&|rows| rows.eval(isa)) == plain, "AVX2");
                }
            }
            prop_assert!(computed(&|rows| rows.dispatch()) == plain, "the best");
        }
    }
}
