//! An attention on a residual branch in bf16: query, key and value go to tiles as the product computes them, heads are taken from those, and their
//! results are the tiles that the output layer reads. Nothing between is a 32-bit float in memory, and the bits are those of the single steps.

use std::any::Any;
use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::attention::AttentionShape;
use crate::nn::gemm::{Threads, split};
use crate::nn::packed_weight::{AttentionBranch, PackedWeight};
use crate::nn::thread_buffers::with_buffers;
use crate::profile;

use super::attention::HeadOperands;
use super::bf16::AmxBf16;
use super::output::{Output, Tiles};
use super::panels::{fill_tile, fill_transposed_tile};
use super::product::ROW_BLOCK;
use super::rows::{Rows, aligned, mask, round_pairs, rows_len};
use super::tile::{BLOCK_ROWS, Configuration, ROW_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

impl AmxBf16 {
    /// As [`PackedWeight::attention`]: all rows must fill whole steps, and a head whole pairs.
    pub(super) fn attend(&self, layers: &AttentionBranch<'_>, x: &mut [f32], threads: Threads) -> bool {
        let &AttentionBranch { norm, shape, sequences, out } = layers;
        let out = (out as &dyn Any).downcast_ref::<Self>();
        let width = shape.width();
        let fits = width.is_multiple_of(WIDTH) && shape.head_width.is_multiple_of(2);
        let (Some(out), true) = (out, fits) else {
            return false;
        };
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
                tiles.write_sums(sums, place, part, self.bias_of(place), None, None);
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
        let mut queries = AlignedBuffer::zeroed(rows_len(BLOCK_ROWS, shape.head_width.div_ceil(WIDTH)) / 4);
        for unit in units {
            let (sequence, head) = (&sequences[unit / shape.heads], unit % shape.heads);
            if !sequence.is_empty() {
                let first = places[sequence.start] as usize / TILE_ROWS;
                let rows = HeadRows { qkv, first, shape, head };
                attend_head(&rows, sequence, &mut operands, &mut queries, out);
            }
        }
    };
    let units = sequences.len() * shape.heads;
    match threads {
        Threads::One => run(0..units),
        Threads::Pool => split(units, 4 * rayon::current_num_threads()).into_par_iter().for_each(run),
    }
}

/// The rows of one sequence and the columns of one head.
struct HeadRows<'a> {
    qkv: Rows<'a>,
    /// The tile of the sequence's first row.
    first: usize,
    shape: AttentionShape,
    head: usize,
}

/// Which of a token's three.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl<'a> HeadRows<'a> {
    /// The first column of a step of the head, and how many columns the step has.
    fn columns(&self, part: Part, step: usize) -> (usize, usize) {
        let AttentionShape { head_width, .. } = self.shape;
        let first = part as usize * self.shape.width() + self.head * head_width;
        (first + step * WIDTH, WIDTH.min(head_width - step * WIDTH))
    }

    /// The tile that begins with a row, and with a step of the head; columns behind the head are zero. What does not lie so in `qkv` is copied.
    fn tile<'b>(&self, row: usize, part: Part, step: usize, copy: &'b mut Tile) -> &'b [u8; TILE_BYTES]
    where
        'a: 'b,
    {
        let (column, count) = self.columns(part, step);
        if column.is_multiple_of(WIDTH) && count == WIDTH {
            return self.qkv.step(self.first + row / TILE_ROWS, column / WIDTH);
        }
        self.copy(row, part, step, &mut copy.0);
        &copy.0
    }

    /// Copies the tile that begins with a row, and with a step of the head, and zeros for columns behind the head.
    fn copy(&self, row: usize, part: Part, step: usize, to: &mut [u8; TILE_BYTES]) {
        let (column, count) = self.columns(part, step);
        let tile = self.first + row / TILE_ROWS;
        let (here, skipped) = (self.qkv.step(tile, column / WIDTH), column % WIDTH);
        let next = if skipped + count > WIDTH { self.qkv.step(tile, column / WIDTH + 1) } else { here };
        // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
        #[allow(unsafe_code)]
        unsafe {
            copy_pairs(here, next, skipped / 2, count / 2, to);
        }
    }

    /// Where the steps of the queries' tile that begins with a row lie one after the other: in `qkv`, or copied to place `n` of the buffer.
    fn queries(&self, row: usize, n: usize, buffer: &mut AlignedBuffer<u32>) -> *const u8 {
        let AttentionShape { head_width, .. } = self.shape;
        if head_width.is_multiple_of(WIDTH) {
            return self.qkv.tile(self.first + row / TILE_ROWS, self.columns(Part::Query, 0).0 / WIDTH);
        }
        let steps = head_width.div_ceil(WIDTH);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer.as_mut_slice());
        let (tiles, _) = bytes.as_chunks_mut::<TILE_BYTES>();
        let to = &mut tiles[n * steps..(n + 1) * steps];
        for (step, to) in to.iter_mut().enumerate() {
            self.copy(row, Part::Query, step, to);
        }
        to.as_ptr().cast()
    }
}

/// Pairs of a tile's row.
const PAIRS: usize = ROW_BYTES / 4;

/// A tile's bytes at a cache line.
#[repr(C, align(64))]
struct Tile([u8; TILE_BYTES]);

/// Copies `count` pairs of each row of two tiles side by side, from pair `skipped` of the first one on, and zeros behind them.
#[target_feature(enable = "avx512f")]
fn copy_pairs(
    here: &[u8; TILE_BYTES],
    next: &[u8; TILE_BYTES],
    skipped: usize,
    count: usize,
    to: &mut [u8; TILE_BYTES],
) {
    let mask = mask(count);
    let pairs = _mm512_add_epi32(lanes(), _mm512_set1_epi32(skipped as i32));
    let rows = here.chunks_exact(ROW_BYTES).zip(next.chunks_exact(ROW_BYTES));
    for ((here, next), to) in rows.zip(to.chunks_exact_mut(ROW_BYTES)) {
        // SAFETY: each is a row of 64 bytes.
        #[allow(unsafe_code)]
        unsafe {
            let (here, next) =
                (_mm512_loadu_si512(here.as_ptr().cast()), _mm512_loadu_si512(next.as_ptr().cast()));
            let row = _mm512_maskz_permutex2var_epi32(mask, here, pairs, next);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), row);
        }
    }
}

/// The numbers 0 to 15.
#[target_feature(enable = "avx512f")]
fn lanes() -> __m512i {
    _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
}

/// Attention of one head of one sequence.
fn attend_head(
    rows: &HeadRows<'_>,
    sequence: &Range<usize>,
    operands: &mut HeadOperands,
    queries: &mut AlignedBuffer<u32>,
    out: &Tiles<'_>,
) {
    let AttentionShape { head_width, mask, .. } = rows.shape;
    let mut copy = Tile([0; TILE_BYTES]);
    let count = mask.keys(sequence).len();
    for (column, panel) in operands.keys.resize(head_width, count) {
        for (step, lines) in panel.chunks_exact_mut(TILE_ROWS * WIDTH).enumerate() {
            for at in (0..WIDTH).step_by(TILE_ROWS) {
                let tile = rows.tile(column + at, Part::Key, step, &mut copy);
                // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
                #[allow(unsafe_code)]
                unsafe {
                    fill_transposed_tile(lines, at, tile);
                }
            }
        }
    }
    for (column, panel) in operands.values.resize(count, head_width) {
        for (n, lines) in panel.chunks_exact_mut(TILE_ROWS / 2 * WIDTH).enumerate() {
            let row = n * TILE_ROWS;
            let tile = rows.tile(row, Part::Value, column / WIDTH, &mut copy);
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                fill_tile(lines, count.saturating_sub(row), tile);
            }
        }
    }
    // SAFETY: such weights are packed where AMX is permitted, and a thread computes one head at a time.
    #[allow(unsafe_code)]
    let _tiles = unsafe { Configuration::set() };
    let tiles =
        |block: Range<usize>| [0, TILE_ROWS].map(|r| rows.queries(block.start + r, r / TILE_ROWS, queries));
    let seen = |row: usize| if mask.causal() { (row + 1).min(count) } else { count };
    // SAFETY: the tiles are configured; rows and columns of the output are this head's.
    #[allow(unsafe_code)]
    unsafe {
        operands.attend(sequence.len(), tiles, seen, |sums, scales, block, p| {
            let columns = WIDTH.min(head_width - p * WIDTH);
            let column = rows.head * head_width + p * WIDTH;
            for (r, row) in block.enumerate() {
                write_scaled(sums, r, scales[r], out, sequence.start + row, column..column + columns);
            }
        });
    }
}

/// Writes the first of a row of 32 sums times a factor, rounded, to columns of an output row: as many as there are, an even number of them.
///
/// # Safety
/// The processor must have AMX in bf16, and no other thread may use the columns.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn write_scaled(
    sums: &Sums,
    r: usize,
    scale: f32,
    out: &Tiles<'_>,
    row: usize,
    columns: Range<usize>,
) {
    let (step, skipped) = (columns.start / WIDTH, columns.start % WIDTH / 2);
    let mask = u32::from(mask(columns.len() / 2)) << skipped;
    // SAFETY: the sums have 32 rows of 32; a step of the output's row has 64 bytes, and the masks keep to the columns, which the caller promises.
    unsafe {
        let (low, high) = (_mm512_load_ps(sums.row(r)), _mm512_load_ps(sums.row(r).add(WIDTH / 2)));
        let scale = _mm512_set1_ps(scale);
        let pairs = round_pairs(_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale));
        // Pair 0 comes to pair `skipped`; those that go past the step's end come to the beginning of the next.
        let places = _mm512_sub_epi32(lanes(), _mm512_set1_epi32(skipped as i32));
        let rotated = _mm512_permutexvar_epi32(places, pairs);
        _mm512_mask_storeu_epi32(out.place(row, step).cast(), mask as __mmask16, rotated);
        let behind = (mask >> PAIRS) as __mmask16;
        if behind != 0 {
            _mm512_mask_storeu_epi32(out.place(row, step + 1).cast(), behind, rotated);
        }
    }
}
