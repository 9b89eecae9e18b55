//! An attention on a residual branch in bf16: query, key and value go to tiles as the product computes them, heads are taken from those, and their
//! results are the tiles that the output layer reads. Nothing between is a 32-bit float in memory, and the bits are those of the single steps.

use std::any::Any;
use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use crate::nn::attention::AttentionShape;
use crate::nn::gemm::{Threads, split};
use crate::nn::packed_weight::{AttentionBranch, PackedWeight};
use crate::nn::thread_buffers::with_buffers;
use crate::profile;

use super::attention::HeadOperands;
use super::bf16::{AmxBf16, ROW_BLOCK};
use super::output::{Output, Tiles};
use super::panels::{fill_tile, fill_transposed_tile};
use super::rows::{Rows, aligned, round_pairs, rows_len};
use super::tile::{BLOCK_ROWS, Configuration, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

impl AmxBf16 {
    /// As [`PackedWeight::attention`]: heads must fill whole steps.
    pub(super) fn attend(&self, layers: &AttentionBranch<'_>, x: &mut [f32], threads: Threads) -> bool {
        let &AttentionBranch { norm, shape, sequences, out } = layers;
        let out = (out as &dyn Any).downcast_ref::<Self>();
        let (Some(out), true) = (out, shape.head_width.is_multiple_of(WIDTH)) else {
            return false;
        };
        let width = shape.width();
        let count = x.len() / width;
        assert_eq!(
            (self.inputs(), self.outputs(), out.inputs(), out.outputs()),
            (width, 3 * width, width, width)
        );
        assert_eq!(sequences.last().map_or(0, |last| last.end), count, "the sequences are all rows");
        if count == 0 {
            return true;
        }
        let threads = self.threads(count, threads);
        let (places, padded) = places(sequences);
        let steps = width / WIDTH;
        with_buffers(|[rows, qkv, attended]: &mut [Vec<f32>; 3]| {
            let qkv = aligned(qkv, rows_len(padded, 3 * steps));
            profile::time("qkv", 2 * x.len() * 3 * width, || {
                let rows = self.lay_out_normed(rows, norm, x, threads);
                for part in rows.parts(ROW_BLOCK) {
                    let tiles = Tiles::new(qkv, padded, 3 * steps).with_places(&places[part.clone()]);
                    self.multiply_sums_to_tiles(rows.part(part), tiles, threads);
                }
            });
            let attended = aligned(attended, rows_len(count, steps));
            profile::time("attention", 0, || {
                let qkv = Rows::new(qkv, padded, 3 * steps);
                attend_heads(qkv, &places, shape, sequences, &Tiles::new(attended, count, steps), threads);
            });
            profile::time("attention out", 2 * x.len() * width, || {
                let attended = Rows::new(attended, count, steps);
                for part in attended.parts(ROW_BLOCK) {
                    let x = &mut x[part.start * width..part.end * width];
                    out.multiply_rows(attended.part(part), x, true, None, threads);
                }
            });
        });
        true
    }

    /// The layer's results, rounded, to tiles.
    fn multiply_sums_to_tiles(&self, rows: Rows<'_>, tiles: Tiles<'_>, threads: Threads) {
        let output = Output::Tiles(tiles);
        self.panels.multiply(rows, &output, threads, |sums, place, part| {
            let Output::Tiles(tiles) = &output else { unreachable!("it was made so") };
            // SAFETY: AMX is permitted, which asks for AVX-512, too; the block is this thread's.
            #[allow(unsafe_code)]
            unsafe {
                tiles.write_sums(sums, place, part, self.bias_of(place), None);
            }
        });
    }
}

/// Where each row goes where every sequence begins with a block of rows, and how many rows that makes.
fn places(sequences: &[Range<usize>]) -> (Vec<u32>, usize) {
    let mut places = Vec::with_capacity(sequences.last().map_or(0, |last| last.end));
    let mut next = 0;
    for sequence in sequences {
        places.extend((next..next + sequence.len()).map(|place| place as u32));
        next = places.last().map_or(0, |&last| last as usize + 1).next_multiple_of(BLOCK_ROWS);
    }
    (places, next)
}

/// Attention of all heads of all sequences; `qkv` has their rows at `places`, with query, key and value side by side.
fn attend_heads(
    qkv: Rows<'_>,
    places: &[u32],
    shape: AttentionShape,
    sequences: &[Range<usize>],
    out: &Tiles<'_>,
    threads: Threads,
) {
    let run = |units: Range<usize>| {
        let mut operands = HeadOperands::new();
        for unit in units {
            let (sequence, head) = (&sequences[unit / shape.heads], unit % shape.heads);
            if !sequence.is_empty() {
                let first = places[sequence.start] as usize / TILE_ROWS;
                attend_head(qkv, first, shape, head, sequence, &mut operands, out);
            }
        }
    };
    let units = sequences.len() * shape.heads;
    match threads {
        Threads::One => run(0..units),
        Threads::Pool => split(units, 4 * rayon::current_num_threads()).into_par_iter().for_each(run),
    }
}

/// Attention of one head of one sequence, whose rows begin with tile `first` of `qkv`.
fn attend_head(
    qkv: Rows<'_>,
    first: usize,
    shape: AttentionShape,
    head: usize,
    sequence: &Range<usize>,
    operands: &mut HeadOperands,
    out: &Tiles<'_>,
) {
    let (steps, all) = (shape.head_width / WIDTH, shape.width() / WIDTH);
    let tile = |row: usize, step: usize| -> &[u8; TILE_BYTES] { qkv.step(first + row / TILE_ROWS, step) };
    let [query, key, value] = [0, 1, 2].map(|part| part * all + head * steps);
    let count = shape.mask.keys(sequence).len();
    for (column, panel) in operands.keys.resize(shape.head_width, count) {
        for (step, lines) in panel.chunks_exact_mut(TILE_ROWS * WIDTH).enumerate() {
            for at in (0..WIDTH).step_by(TILE_ROWS) {
                // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
                #[allow(unsafe_code)]
                unsafe {
                    fill_transposed_tile(lines, at, tile(column + at, key + step));
                }
            }
        }
    }
    for (column, panel) in operands.values.resize(count, shape.head_width) {
        for (n, lines) in panel.chunks_exact_mut(TILE_ROWS / 2 * WIDTH).enumerate() {
            let row = n * TILE_ROWS;
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                fill_tile(lines, count.saturating_sub(row), tile(row, value + column / WIDTH));
            }
        }
    }
    // SAFETY: such weights are packed where AMX is permitted, and a thread computes one head at a time.
    #[allow(unsafe_code)]
    let _tiles = unsafe { Configuration::set() };
    let mut sums = Sums::new();
    for row in (0..sequence.len()).step_by(BLOCK_ROWS) {
        let here = BLOCK_ROWS.min(sequence.len() - row);
        let seen = |r: usize| if shape.mask.causal() { (row + r + 1).min(count) } else { count };
        let queries = [row, row + TILE_ROWS].map(|row| tile(row, query).as_ptr());
        // SAFETY: the tiles are configured; rows and steps of the output are this head's.
        #[allow(unsafe_code)]
        unsafe {
            operands.attend(queries, here, seen, &mut sums, |sums, scales, p| {
                for (r, &scale) in scales.iter().enumerate().take(here) {
                    write_scaled(sums, r, scale, out.place(sequence.start + row + r, head * steps + p));
                }
            });
        }
    }
}

/// Writes a row of 32 sums times a factor, rounded, to 64 bytes.
///
/// # Safety
/// The processor must have AMX in bf16, and no other thread may use the bytes.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn write_scaled(sums: &Sums, r: usize, scale: f32, to: *mut u8) {
    // SAFETY: the sums have 32 rows of 32; the caller promises the place.
    unsafe {
        let (low, high) = (_mm512_load_ps(sums.row(r)), _mm512_load_ps(sums.row(r).add(WIDTH / 2)));
        let scale = _mm512_set1_ps(scale);
        let pairs = round_pairs(_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale));
        _mm512_storeu_si512(to.cast(), pairs);
    }
}
