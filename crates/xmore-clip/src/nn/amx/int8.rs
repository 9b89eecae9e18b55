//! A linear layer in 8 bits by `tdpbusd`, in the scheme and with the bits of [`Int8`].

use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use crate::nn::activation::Activation;
use crate::nn::gemm::{ColumnBlock, Threads};
use crate::nn::int8::{Int8, RowFormat, quantize_column};
use crate::nn::packed_weight::PackedWeight;
use crate::nn::thread_buffers::with_buffers;

use super::output::{Floats, Output, Place, vectors};
use super::product::Panels;
use super::rows::{Rows, aligned, places, rows_len};
use super::tile::{Format, ROW_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

/// A weight in 8 bits; of each output its scale, the sum of its bytes and its bias, with zeros up to a whole panel.
pub(crate) struct AmxInt8 {
    panels: Panels,
    inputs: usize,
    scales: Vec<f32>,
    sums: Vec<i32>,
    bias: Vec<f32>,
}

/// Of rows: with what the bytes are multiplied, and which of them is zero.
struct RowScales {
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

impl AmxInt8 {
    /// From the outputs' rows of `inputs` elements, each with a factor, and the bias, empty or `[outputs]`. The processor must have AMX.
    pub(crate) fn from_rows<'w>(
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let fill = |columns: Range<usize>, panel: &mut [u32]| {
            let (mut scales, mut sums) = ([0.0; WIDTH], [0; WIDTH]);
            for (j, output) in columns.enumerate() {
                (scales[j], sums[j]) =
                    quantize_column(row(output), j, WIDTH, bytemuck::cast_slice_mut(panel));
            }
            (scales, sums)
        };
        let steps = inputs.div_ceil(ROW_BYTES).max(1);
        let (panels, filled) = Panels::new(Format::Int8, outputs, steps, fill);
        let (scales, sums): (Vec<_>, Vec<_>) = filled.into_iter().unzip();
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(outputs.next_multiple_of(WIDTH), 0.0);
        Self { panels, inputs, scales: scales.concat(), sums: sums.concat(), bias: padded_bias }
    }

    /// Some rows of a block's sums as floats: scale · column scale · (sum − zero · column sum) + bias, and what the output holds if that is added to.
    ///
    /// # Safety
    /// The processor must have AVX-512, and no other thread may use the block's place in the output.
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f")]
    unsafe fn to_floats(
        &self,
        sums: &mut Sums,
        place: Place,
        part: Range<usize>,
        of_rows: &RowScales,
        before: Option<&Floats<'_>>,
    ) {
        for (at, mask) in vectors(place.columns) {
            let here = place.column + at..place.column + at + 16;
            // SAFETY: the slices have 16 values, the sums 32 rows of 32, the output's row the columns that the mask keeps to.
            unsafe {
                let column_scale = _mm512_loadu_ps(self.scales[here.clone()].as_ptr());
                let column_sum = _mm512_loadu_si512(self.sums[here.clone()].as_ptr().cast());
                let bias = _mm512_loadu_ps(self.bias[here].as_ptr());
                for r in part.clone() {
                    let place_of_sum = sums.row_mut(r).add(at);
                    let sum = _mm512_load_si512(place_of_sum.cast());
                    let zero = _mm512_set1_epi32(of_rows.zeros[place.row + r]);
                    let value =
                        _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_mullo_epi32(zero, column_sum)));
                    let scale = _mm512_mul_ps(_mm512_set1_ps(of_rows.scales[place.row + r]), column_scale);
                    let added = match before {
                        Some(before) => {
                            let held = before.row(place, r).add(at);
                            _mm512_add_ps(bias, _mm512_maskz_loadu_ps(mask, held))
                        }
                        None => bias,
                    };
                    _mm512_store_ps(place_of_sum, _mm512_fmadd_ps(value, scale, added));
                }
            }
        }
    }
}

impl PackedWeight for AmxInt8 {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.panels.columns
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
        assert_eq!((x.len(), out.len()), (count * self.inputs, count * self.outputs()));
        if count == 0 || out.is_empty() {
            return;
        }
        with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
            let steps = self.panels.steps;
            let bytes = aligned(buffer, rows_len(count, steps));
            let of_rows = quantize_rows(x, self.inputs, bytes, steps, threads);
            let rows = Rows::new(bytes, count, steps);
            let output = Output::Floats(Floats(ColumnBlock::whole(out, self.panels.columns)));
            self.panels.multiply(rows, &output, threads, |sums, place, part| {
                let Output::Floats(out) = &output else { unreachable!("it was made so") };
                // SAFETY: AMX is permitted, which asks for AVX-512, too; the block is this thread's.
                #[allow(unsafe_code)]
                unsafe {
                    self.to_floats(sums, place, part.clone(), &of_rows, add.then_some(out));
                    if let Some(activation) = activation {
                        activation.apply(sums.floats(part.clone()));
                    }
                    out.write(sums, place, part);
                }
            });
        });
    }
}

/// To unsigned bytes in tiles, each row with its own scale and zero.
fn quantize_rows(x: &[f32], inputs: usize, out: &mut [u8], steps: usize, threads: Threads) -> RowScales {
    let count = x.len() / inputs;
    let (mut scales, mut zeros) = (vec![0.0; count], vec![0; count]);
    let one = |rows: &[f32], tile: &mut [u8], scales: &mut [f32], zeros: &mut [i32]| {
        for (r, row) in rows.chunks_exact(inputs).enumerate() {
            let format = RowFormat::of(row);
            (scales[r], zeros[r]) = (format.scale, format.zero);
            for (place, part) in places(r, steps).zip(row.chunks(ROW_BYTES)) {
                // What stands behind a row's end is multiplied by zeros.
                format.quantize(part, &mut tile[place][..part.len()]);
            }
        }
    };
    let (rows, tile) = (TILE_ROWS * inputs, steps * TILE_BYTES);
    match threads {
        Threads::One => {
            let of_rows = scales.chunks_mut(TILE_ROWS).zip(zeros.chunks_mut(TILE_ROWS));
            x.chunks(rows)
                .zip(out.chunks_exact_mut(tile))
                .zip(of_rows)
                .for_each(|((x, tile), (s, z))| one(x, tile, s, z));
        }
        Threads::Pool => {
            let of_rows = scales.par_chunks_mut(TILE_ROWS).zip(zeros.par_chunks_mut(TILE_ROWS));
            x.par_chunks(rows)
                .zip(out.par_chunks_exact_mut(tile))
                .zip(of_rows)
                .for_each(|((x, tile), (s, z))| one(x, tile, s, z));
        }
    }
    RowScales { scales, zeros }
}

/// Whether a small product has the bits of the portable kernel. AMX must be permitted.
pub(super) fn gives_the_exact_sums() -> bool {
    let (count, inputs, outputs) = (3, 2 * ROW_BYTES + 5, 20);
    let value = |i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5;
    let x: Vec<f32> = (0..count * inputs).map(value).collect();
    let weight: Vec<f32> = (0..outputs * inputs).map(|i| value(i + 3)).collect();
    let row = |o: usize| (&weight[o * inputs..(o + 1) * inputs], 1.0);
    let run = |layer: &dyn PackedWeight| {
        let mut out = vec![0.5f32; count * outputs];
        layer.multiply(&x, count, &mut out, true, None, Threads::One);
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    run(&AmxInt8::from_rows(outputs, inputs, &[], row)) == run(&Int8::portable(outputs, inputs, &[], row))
}
