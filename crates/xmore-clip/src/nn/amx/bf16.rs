//! A linear layer in bf16 by `tdpbf16ps`.

use std::any::Any;
use std::ops::Range;

use rayon::prelude::*;

use crate::nn::activation::Activation;
use crate::nn::conv::{MapOutput, MapWindows, WindowWeight};
use crate::nn::gemm::{ColumnBlock, Threads, split};
use crate::nn::norm::LayerNorm;
use crate::nn::packed_weight::{AttentionBranch, PackedWeight, Perceptron};
use crate::nn::thread_buffers::with_buffers;
use crate::profile;

use super::gates::Gate;
use super::output::{Floats, Output, Place, Tiles};
use super::panels::fill_transposed;
use super::plain;
use super::product::{Panels, ROW_BLOCK};
use super::rows::{Rows, aligned, round_row, rows_len};
use super::tile::{Format, ROW_BYTES, TILE_BYTES, TILE_ROWS, WIDTH};
use super::windows::{copy_window, round_window};

/// Inputs of one step.
pub(super) const STEP: usize = 32;
/// Multiply-adds from which on a second thread is worth using.
const MIN_PARALLEL: usize = 1 << 20;

/// Bytes of a weight that stays in the second cache while rows pass by, some at a time; threads divide these, if they are many, instead of columns.
const SHARED_WEIGHT: usize = 5 << 18;
/// Rows that are then taken at a time.
const ROWS_OF_PART: usize = 256;

/// A weight in bf16 and its bias.
pub(crate) struct AmxBf16 {
    pub(super) panels: Panels,
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
        let steps = inputs.div_ceil(STEP).max(1);
        let (panels, _) = Panels::new(Format::Bf16, outputs, steps, |columns, panel| {
            // SAFETY: there is AMX in bf16, which asks for these instructions, too.
            #[allow(unsafe_code)]
            unsafe {
                fill_transposed(panel, |c| (c < columns.len()).then(|| row(columns.start + c)));
            }
        });
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(outputs.next_multiple_of(WIDTH), 0.0);
        Self { panels, inputs, bias: padded_bias }
    }

    /// `out = activation(out·add + rows · weight + bias)`.
    pub(super) fn multiply_rows(
        &self,
        rows: Rows<'_>,
        out: &mut [f32],
        add: bool,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let output = Output::Floats(Floats(ColumnBlock::whole(out, self.panels.columns)));
        self.panels.multiply(rows, &output, threads, |sums, place, part| {
            let Output::Floats(out) = &output else { unreachable!("it was made so") };
            // SAFETY: AMX is permitted, which asks for AVX-512, too; the block is this thread's.
            #[allow(unsafe_code)]
            unsafe {
                let ceiling = activation.and_then(Activation::ceiling);
                out.write_sums(sums, place, part.clone(), self.bias_of(place), add, ceiling);
                if let Some(activation) = activation.filter(|_| ceiling.is_none()) {
                    part.for_each(|r| {
                        activation.apply_rows(out.row(place, r), place.columns, 1, place.columns)
                    });
                }
            }
        });
    }

    /// The bias of a block's columns.
    pub(super) fn bias_of(&self, place: Place) -> &[f32; WIDTH] {
        (&self.bias[place.column..place.column + WIDTH]).try_into().expect("a panel's")
    }

    /// `tiles = activation(rows · weight + bias)`, rounded.
    fn multiply_to_tiles(
        &self,
        rows: Rows<'_>,
        tiles: Tiles<'_>,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let output = Output::Tiles(tiles);
        let (gate, ceiling) = (activation.and_then(Gate::of), activation.and_then(Activation::ceiling));
        assert!(
            activation.is_none() || gate.is_some() || ceiling.is_some(),
            "every activation is one of them"
        );
        self.panels.multiply(rows, &output, threads, |sums, place, part| {
            let Output::Tiles(tiles) = &output else { unreachable!("it was made so") };
            // SAFETY: AMX is permitted, which asks for AVX-512, too; the block is this thread's.
            #[allow(unsafe_code)]
            unsafe {
                tiles.write_sums(sums, place, part, self.bias_of(place), gate, ceiling);
            }
        });
    }

    /// Portions of rows whose tiles stay in the second cache.
    fn portions(&self, count: usize) -> Vec<Range<usize>> {
        split(count, (count * self.panels.steps * ROW_BYTES).div_ceil(ROW_BLOCK))
    }

    /// [`PackedWeight::multiply`] of rows that `round` writes, row n to row r of a tile.
    fn multiply_rounded(
        &self,
        count: usize,
        out: MapOutput<'_>,
        activation: Option<Activation>,
        threads: Threads,
        round: impl Fn(usize, usize, &mut [u8]) + Sync,
    ) {
        if count == 0 || self.outputs() == 0 {
            return;
        }
        let part = |(rows, out): (Range<usize>, MapOutput<'_>), threads: Threads| {
            with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
                let count = rows.len();
                let laid = self.lay_out(buffer, count, threads, |n, r, tile| round(rows.start + n, r, tile));
                match out {
                    MapOutput::Floats { data, add } => {
                        self.multiply_rows(laid, data, add, activation, threads)
                    }
                    MapOutput::Bf16(data) => {
                        let rows = Tiles::in_rows(data, count, self.outputs() / STEP);
                        self.multiply_to_tiles(laid, rows, activation, threads);
                    }
                }
            });
        };
        let threads = self.threads(count, threads);
        if self.panels.bytes() > SHARED_WEIGHT {
            let parts = out.split(count, self.portions(count).len());
            return parts.into_iter().for_each(|rows| part(rows, threads));
        }
        let parts = out.split(count, count.div_ceil(ROWS_OF_PART));
        if threads == Threads::Pool && parts.len() >= 2 * rayon::current_num_threads() {
            parts.into_par_iter().for_each(|rows| part(rows, Threads::One));
        } else {
            parts.into_iter().for_each(|rows| part(rows, threads));
        }
    }

    /// Lays out `count` rows of inputs as tiles. `round` writes row n to row r of a tile.
    fn lay_out<'b>(
        &self,
        buffer: &'b mut Vec<f32>,
        count: usize,
        threads: Threads,
        round: impl Fn(usize, usize, &mut [u8]) + Sync,
    ) -> Rows<'b> {
        let steps = self.panels.steps;
        let bytes = aligned(buffer, rows_len(count, steps));
        let tile = |(n, tile): (usize, &mut [u8])| {
            let first = n * TILE_ROWS;
            (0..TILE_ROWS.min(count - first)).for_each(|r| round(first + r, r, tile));
        };
        match threads {
            Threads::One => bytes.chunks_exact_mut(steps * TILE_BYTES).enumerate().for_each(tile),
            Threads::Pool => bytes.par_chunks_exact_mut(steps * TILE_BYTES).enumerate().for_each(tile),
        }
        Rows::new(bytes, count, steps)
    }

    /// Lays out the normalized rows of `x` as tiles.
    pub(super) fn lay_out_normed<'b>(
        &self,
        buffer: &'b mut Vec<f32>,
        norm: &LayerNorm,
        x: &[f32],
        threads: Threads,
    ) -> Rows<'b> {
        let inputs = self.inputs;
        self.lay_out(buffer, x.len() / inputs, threads, |n, r, tile| {
            with_buffers(|[normed]: &mut [Vec<f32>; 1]| {
                if normed.len() < inputs {
                    normed.resize(inputs, 0.0);
                }
                norm.forward_into(&x[n * inputs..(n + 1) * inputs], &mut normed[..inputs], Threads::One);
                round_to_tile(&normed[..inputs], r, tile);
            });
        })
    }

    /// The threads that a product of so many rows is worth.
    pub(super) fn threads(&self, count: usize, threads: Threads) -> Threads {
        if count * self.inputs * self.panels.columns < MIN_PARALLEL { Threads::One } else { threads }
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
        let inputs = self.inputs;
        assert_eq!((x.len(), out.len()), (count * inputs, count * self.outputs()));
        let out = MapOutput::Floats { data: out, add };
        self.multiply_rounded(count, out, activation, threads, |n, r, tile| {
            round_to_tile(&x[n * inputs..(n + 1) * inputs], r, tile);
        });
    }

    fn multiply_normed(&self, norm: &LayerNorm, x: &[f32], _: &mut [f32], out: &mut [f32], threads: Threads) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let count = x.len() / inputs;
        assert_eq!(out.len(), count * outputs);
        let threads = self.threads(count, threads);
        for portion in self.portions(count) {
            let x = &x[portion.start * inputs..portion.end * inputs];
            let out = &mut out[portion.start * outputs..portion.end * outputs];
            with_buffers(|[buffer]: &mut [Vec<f32>; 1]| {
                let rows = self.lay_out_normed(buffer, norm, x, threads);
                self.multiply_rows(rows, out, false, None, threads);
            });
        }
    }

    fn attention(&self, layers: &AttentionBranch<'_>, x: &mut [f32], threads: Threads) -> bool {
        self.attend(layers, x, threads)
    }

    /// The layer between is rounded to tiles as it is computed.
    fn perceptron(&self, layers: &Perceptron<'_>, x: &mut [f32], threads: Threads) -> bool {
        let &Perceptron { norm, activation, second } = layers;
        let Some(second) = (second as &dyn Any).downcast_ref::<Self>() else {
            return false;
        };
        let width = self.inputs;
        assert_eq!((second.inputs, second.outputs()), (self.outputs(), width));
        let count = x.len() / width;
        let threads = self.threads(count, threads);
        for portion in self.portions(count) {
            let x = &mut x[portion.start * width..portion.end * width];
            with_buffers(|[rows, hidden]: &mut [Vec<f32>; 2]| {
                let rows = self.lay_out_normed(rows, norm, x, threads);
                let steps = second.panels.steps;
                let hidden = aligned(hidden, rows_len(rows.count, steps));
                let flops = 2 * x.len() * self.outputs();
                profile::time("mlp in", flops, || {
                    let hidden = Tiles::new(hidden, rows.count, steps);
                    self.multiply_to_tiles(rows, hidden, Some(activation), threads);
                });
                profile::time("mlp out", flops, || {
                    let hidden = Rows::new(hidden, rows.count, steps);
                    second.multiply_rows(hidden, x, true, None, threads);
                });
            });
        }
        true
    }
}

impl WindowWeight for AmxBf16 {
    fn takes_bf16(&self) -> bool {
        true
    }

    fn multiply_windows(
        &self,
        windows: MapWindows<'_>,
        count: usize,
        out: MapOutput<'_>,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        match windows {
            MapWindows::Bf16(windows) => {
                self.multiply_rounded(count, out, activation, threads, |n, r, tile| {
                    // SAFETY: AMX in bf16 is permitted, which asks for this function's instructions, too.
                    #[allow(unsafe_code)]
                    unsafe {
                        copy_window(&windows, n, r, tile);
                    }
                });
            }
            MapWindows::Floats(windows) => {
                self.multiply_rounded(count, out, activation, threads, |n, r, tile| {
                    // SAFETY: AMX in bf16 is permitted, which asks for this function's instructions, too.
                    #[allow(unsafe_code)]
                    unsafe {
                        round_window(&windows, n, r, tile);
                    }
                });
            }
        }
    }
}

/// Rounds a row to row `r` of a tile. AMX in bf16 must be permitted.
pub(super) fn round_to_tile(row: &[f32], r: usize, tile: &mut [u8]) {
    // SAFETY: see above; permission asks for these instructions, too.
    #[allow(unsafe_code)]
    unsafe {
        round_row(row, r, tile);
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
