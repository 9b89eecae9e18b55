//! A linear layer in bf16 by `tdpbf16ps`.

use std::arch::x86_64::*;

use rayon::prelude::*;

use crate::nn::activation::Activation;
use crate::nn::bf16::{fill, round_row_to_pieces};
use crate::nn::gemm::{Threads, split};
use crate::nn::packed_weight::PackedWeight;
use crate::nn::thread_buffers::with_buffers;

use super::plain;
use super::product::{Panels, Place};
use super::rows::{Rows, rows_len};
use super::tile::{Format, ROW_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

/// Inputs of one step.
pub(super) const STEP: usize = 32;
/// Bytes of rows that are taken together, and stay in the second cache while panels pass by.
const ROW_BLOCK: usize = 3 << 18;

/// A weight in bf16 and its bias.
pub(crate) struct AmxBf16 {
    panels: Panels,
    inputs: usize,
    /// Zeros up to a whole panel.
    bias: Vec<f32>,
}

impl AmxBf16 {
    /// From the outputs' rows of `inputs` elements, each with a factor, and the bias, empty or `[outputs]`. The processor must have AMX.
    pub(crate) fn from_rows<'w>(
        outputs: usize,
        inputs: usize,
        bias: &[f32],
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let (panels, _) =
            Panels::new(Format::Bf16, outputs, inputs.div_ceil(STEP).max(1), |columns, panel| {
                fill(&mut panel[..inputs.div_ceil(2) * WIDTH], WIDTH, columns.map(&row));
            });
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(outputs.next_multiple_of(WIDTH), 0.0);
        Self { panels, inputs, bias: padded_bias }
    }
}

impl PackedWeight for AmxBf16 {
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
        let (inputs, outputs, steps) = (self.inputs, self.outputs(), self.panels.steps);
        assert_eq!((x.len(), out.len()), (count * inputs, count * outputs));
        if count == 0 || outputs == 0 {
            return;
        }
        for block in split(count, (count * steps * ROW_BYTES).div_ceil(ROW_BLOCK)) {
            with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
                buffer.resize(rows_len(block.len(), steps) / 4, 0.0);
                round_rows(&x[block.start * inputs..block.end * inputs], inputs, buffer, steps, threads);
                let rows = Rows::new(bytemuck::cast_slice(buffer), block.len(), steps);
                let out = &mut out[block.start * outputs..block.end * outputs];
                self.panels.multiply(rows, out, activation, threads, |sums, place| {
                    // SAFETY: AMX is permitted, which asks for AVX-512, too.
                    #[allow(unsafe_code)]
                    unsafe {
                        store(sums, place, &self.bias, add);
                    }
                });
            });
        }
    }
}

/// Rounds rows of `inputs` numbers to tiles.
fn round_rows(x: &[f32], inputs: usize, out: &mut [f32], steps: usize, threads: Threads) {
    let out: &mut [u32] = bytemuck::cast_slice_mut(out);
    let one = |(rows, tile): (&[f32], &mut [u32])| {
        for (r, row) in rows.chunks_exact(inputs).enumerate() {
            round_row_to_pieces(row, &mut tile[r * 16..], TILE_BYTES / 4);
        }
    };
    let len = steps * TILE_BYTES / 4;
    match threads {
        Threads::One => x.chunks(TILE_ROWS * inputs).zip(out.chunks_exact_mut(len)).for_each(one),
        Threads::Pool => x.par_chunks(TILE_ROWS * inputs).zip(out.par_chunks_exact_mut(len)).for_each(one),
    }
}

/// Writes sums + bias, `[32]` for each panel, and what the output holds if that is added to.
///
/// # Safety
/// The processor must have AVX-512.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store(sums: &Sums, place: &mut Place<'_>, bias: &[f32], add: bool) {
    let bias = &bias[place.column..place.column + WIDTH];
    let (columns, (out, stride)) = (place.columns, place.out.pointer());
    for at in [0, 16].into_iter().filter(|&at| at < columns) {
        let mask = ((1u32 << (columns - at).min(16)) - 1) as __mmask16;
        // SAFETY: the bias has 32 numbers, the sums 32 rows of 32, the output the place's rows and columns, which the mask keeps to.
        unsafe {
            let bias = _mm512_loadu_ps(bias.as_ptr().add(at));
            for r in 0..place.rows {
                let sum = _mm512_load_ps(sums.0.as_ptr().add(r * WIDTH + at).cast());
                let to = out.add(r * stride + at);
                let mut value = _mm512_add_ps(sum, bias);
                if add {
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, to));
                }
                _mm512_mask_storeu_ps(to, mask, value);
            }
        }
    }
}

/// Whether a small product has the bits of the plain one. AMX must be permitted.
pub(super) fn adds_in_the_documented_order() -> bool {
    let (count, inputs, outputs) = (5, 3 * STEP + 7, WIDTH);
    let mut state = 1u32;
    let mut some = |n: usize| -> Vec<f32> {
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| value() * value()).collect()
    };
    let (x, weight, bias) = (some(count * inputs), some(outputs * inputs), some(outputs));
    let layer = AmxBf16::from_rows(outputs, inputs, &bias, |o| (&weight[o * inputs..(o + 1) * inputs], 1.0));
    let mut found = vec![0.5; count * outputs];
    layer.multiply(&x, count, &mut found, true, None, Threads::One);
    let expected = plain::multiply(&x, inputs, &weight, &bias, Some(&vec![0.5; count * outputs]));
    found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits())
}
