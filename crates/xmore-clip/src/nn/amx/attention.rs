//! Attention of one head in bf16 by `tdpbf16ps`: scores, their exponentials rounded straight into tiles, and values.
//!
//! The weights of a row are e^(score − largest), at most 1, rounded to bf16; the row of the result is divided by their sum (as FlashAttention does,
//! Dao et al. 2022, algorithm 1), which is fewer numbers than the weights are.

use std::arch::x86_64::*;

use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::attention::{Head, HeadAttention};
use crate::nn::gemm::ColumnBlock;

use super::bf16::{STEP, round_to_tile};
use super::output::{Floats, Place, vectors};
use super::panels::{fill, fill_transposed};
use super::rows::{LANES, Rows, mask, places, round_all, rows_len};
use super::tile::{BLOCK_ROWS, Block, Configuration, Format, STEP_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

/// Buffers of a thread. The processor must have AMX.
pub(crate) struct AmxAttention {
    operands: HeadOperands,
    /// A block's queries as tiles.
    queries: AlignedBuffer<u32>,
}

/// The keys and values of a head, and what is computed of a block of its queries.
pub(super) struct HeadOperands {
    pub(super) keys: HeadPanels,
    pub(super) values: HeadPanels,
    /// A block's weights as tiles.
    weights: AlignedBuffer<u32>,
    /// A block's scores, `[32, keys up to a whole panel]`, up to the last one that is seen.
    scores: AlignedBuffer<f32>,
}

/// A right operand in panels of 32 columns, each `[steps, 16, 32]` pairs.
pub(super) struct HeadPanels {
    buffer: AlignedBuffer<u32>,
    steps: usize,
    count: usize,
}

impl HeadPanels {
    /// Panels for so many inputs and columns, with the first one's of each, to be filled.
    pub(super) fn resize(
        &mut self,
        inputs: usize,
        columns: usize,
    ) -> impl Iterator<Item = (usize, &mut [u32])> {
        (self.steps, self.count) = (inputs.div_ceil(STEP), columns.div_ceil(WIDTH));
        let len = self.steps * STEP_BYTES / 4;
        grow(&mut self.buffer, self.count * len);
        let panels = self.buffer.as_mut_slice()[..self.count * len].chunks_exact_mut(len);
        panels.enumerate().map(|(p, panel)| (p * WIDTH, panel))
    }

    fn panel(&self, p: usize) -> *const u8 {
        let len = self.steps * STEP_BYTES / 4;
        self.buffer.as_slice()[p * len..(p + 1) * len].as_ptr().cast()
    }
}

fn grow<T: bytemuck::Pod>(buffer: &mut AlignedBuffer<T>, len: usize) {
    if buffer.as_slice().len() < len {
        *buffer = AlignedBuffer::zeroed(len);
    }
}

impl HeadOperands {
    pub(super) fn new() -> Self {
        let panels = || HeadPanels { buffer: AlignedBuffer::zeroed(0), steps: 0, count: 0 };
        let (weights, scores) = (AlignedBuffer::zeroed(0), AlignedBuffer::zeroed(0));
        Self { keys: panels(), values: panels(), weights, scores }
    }

    /// Attention of `count` queries, at most 32, in one or two tiles, each to the keys up to what `seen` says. `write` takes each panel of results, and the factors that
    /// its rows are yet to be multiplied by.
    ///
    /// # Safety
    /// Tiles must be configured, and the queries have the keys' steps.
    #[allow(unsafe_code)]
    pub(super) unsafe fn attend(
        &mut self,
        queries: [*const u8; 2],
        count: usize,
        seen: impl Fn(usize) -> usize,
        sums: &mut Sums,
        mut write: impl FnMut(&Sums, &[f32; BLOCK_ROWS], usize),
    ) {
        let Self { keys, values, weights, scores } = self;
        let both = count > TILE_ROWS;
        // Weights behind those are zero.
        let steps = (0..count).map(&seen).max().unwrap_or(0).div_ceil(WIDTH);
        let stride = keys.count * WIDTH;
        grow(scores, BLOCK_ROWS * stride);
        let scores = &mut scores.as_mut_slice()[..BLOCK_ROWS * stride];
        // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
        let mut largest = unsafe { [_mm512_set1_ps(f32::NEG_INFINITY); BLOCK_ROWS] };
        for p in 0..=steps {
            // SAFETY: tiles and panels have that many steps, the tiles are configured. The processor multiplies while it takes the scores of the block before.
            unsafe {
                let block = (p < steps).then(|| {
                    let mut block = Block::begin(queries, both, keys.panel(p), None, None);
                    block.step(Format::Bf16, keys.steps, sums);
                    block
                });
                if let Some(before) = p.checked_sub(1) {
                    for (r, largest) in largest.iter_mut().enumerate().take(count) {
                        let to = &mut scores[r * stride + before * WIDTH..][..WIDTH];
                        take_scores(sums, r, seen(r).saturating_sub(before * WIDTH), to, largest);
                    }
                }
                if let Some(block) = block {
                    block.store(sums);
                }
            }
        }
        let len = rows_len(BLOCK_ROWS, values.steps);
        grow(weights, len / 4);
        let weights: &mut [u8] = &mut bytemuck::cast_slice_mut(weights.as_mut_slice())[..len];
        let mut scales = [0.0; BLOCK_ROWS];
        for (r, row) in scores.chunks_exact(stride).take(count).enumerate() {
            let tile = &mut weights[r / TILE_ROWS * (len / 2)..][..steps * TILE_BYTES];
            // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
            unsafe {
                scales[r] = 1.0 / exponentials(&row[..seen(r)], largest[r], r % TILE_ROWS, tile);
            }
        }
        let tiles = Rows::new(weights, BLOCK_ROWS, values.steps);
        for p in 0..=values.count {
            // SAFETY: as above.
            unsafe {
                let block = (p < values.count).then(|| {
                    let rows = [tiles.tile(0, 0), tiles.tile(1, 0)];
                    let mut block = Block::begin(rows, both, values.panel(p), None, None);
                    block.step(Format::Bf16, steps, sums);
                    block
                });
                if let Some(before) = p.checked_sub(1) {
                    write(sums, &scales, before);
                }
                if let Some(block) = block {
                    block.store(sums);
                }
            }
        }
    }
}

impl AmxAttention {
    pub(crate) fn new() -> Self {
        Self { operands: HeadOperands::new(), queries: AlignedBuffer::zeroed(0) }
    }

    /// Packs the keys and values of a head.
    fn pack(&mut self, head: &Head<'_>) {
        let &Head { keys, values, key_count, at, width, .. } = head;
        for (first, panel) in self.operands.keys.resize(width, key_count) {
            let row = |c: usize| (first + c < key_count).then(|| (keys.row(first + c, at, width), 1.0));
            // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
            #[allow(unsafe_code)]
            unsafe {
                fill_transposed(panel, row);
            }
        }
        for (first, panel) in self.operands.values.resize(key_count, width) {
            let have = WIDTH.min(width - first);
            let row = |r: usize| if r < key_count { values.row(r, at + first, have) } else { &[] };
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                fill(panel, row);
            }
        }
    }
}

impl HeadAttention for AmxAttention {
    fn attend(&mut self, head: &Head<'_>, out: &mut ColumnBlock<'_>) {
        let &Head { queries, query_count, key_count, at, width, causal, .. } = head;
        self.pack(head);
        let Self { operands, queries: buffer } = self;
        let len = rows_len(BLOCK_ROWS, operands.keys.steps);
        grow(buffer, len / 4);
        let tiles: &mut [u8] = &mut bytemuck::cast_slice_mut(buffer.as_mut_slice())[..len];
        // SAFETY: there is such an attention where AMX is permitted, and a thread computes one head at a time.
        #[allow(unsafe_code)]
        let _tiles = unsafe { Configuration::set() };
        let mut sums = Sums::new();
        for first in (0..query_count).step_by(BLOCK_ROWS) {
            let here = BLOCK_ROWS.min(query_count - first);
            for r in 0..here {
                let tile = &mut tiles[r / TILE_ROWS * (len / 2)..][..len / 2];
                round_to_tile(queries.row(first + r, at, width), r % TILE_ROWS, tile);
            }
            let rows = Rows::new(tiles, BLOCK_ROWS, operands.keys.steps);
            let seen = |r: usize| if causal { (first + r + 1).min(key_count) } else { key_count };
            let floats = Floats(out.skip_rows(first));
            // SAFETY: the tiles are configured; the output is borrowed.
            #[allow(unsafe_code)]
            unsafe {
                let queries = [rows.tile(0, 0), rows.tile(1, 0)];
                operands.attend(queries, here, seen, &mut sums, |sums, scales, p| {
                    let columns = WIDTH.min(width - p * WIDTH);
                    let place = Place { row: 0, rows: here, column: p * WIDTH, columns };
                    write_scaled(sums, scales, &floats, place);
                });
            }
        }
    }
}

/// Copies row `r` of a block's scores, and takes the first `seen` of them into the row's maxima, one for each lane.
#[target_feature(enable = "avx512f")]
fn take_scores(sums: &Sums, r: usize, seen: usize, to: &mut [f32], largest: &mut __m512) {
    for (half, to) in to.chunks_exact_mut(LANES).enumerate() {
        let mask = mask(seen.saturating_sub(half * LANES));
        // SAFETY: the sums' row has two vectors.
        #[allow(unsafe_code)]
        unsafe {
            let x = _mm512_load_ps(sums.row(r).add(half * LANES));
            _mm512_storeu_ps(to.as_mut_ptr(), x);
            *largest = _mm512_mask_max_ps(*largest, mask, *largest, x);
        }
    }
}

/// Writes e^(x − largest x) of a row's numbers, rounded, to row `r` of a tile, and zeros behind them. Returns their sum before rounding. The least of them are
/// rounded, too: beside the largest, which is 1, they count for nothing.
#[target_feature(enable = "avx512f,avx512bf16")]
fn exponentials(row: &[f32], largest: __m512, r: usize, tile: &mut [u8]) -> f32 {
    let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    let mut sum = _mm512_setzero_ps();
    let (whole, rest) = row.as_chunks::<WIDTH>();
    let mut places = places(r, tile.len() / TILE_BYTES);
    for (x, place) in whole.iter().zip(&mut places) {
        // SAFETY: there are 32 numbers, and 64 bytes for them.
        #[allow(unsafe_code)]
        unsafe {
            let low = exponential(_mm512_sub_ps(_mm512_loadu_ps(x.as_ptr()), largest));
            let high = exponential(_mm512_sub_ps(_mm512_loadu_ps(x.as_ptr().add(LANES)), largest));
            sum = _mm512_add_ps(_mm512_add_ps(sum, low), high);
            _mm512_storeu_si512(tile[place].as_mut_ptr().cast(), round_all(low, high));
        }
    }
    for (n, place) in places.enumerate() {
        let mut halves = [_mm512_setzero_ps(); 2];
        for (half, at) in halves.iter_mut().zip([n * WIDTH, n * WIDTH + LANES]) {
            let mask = mask(rest.len().saturating_sub(at));
            if mask != 0 {
                // SAFETY: the mask keeps to the row.
                #[allow(unsafe_code)]
                let x = unsafe { _mm512_mask_loadu_ps(largest, mask, rest.as_ptr().add(at)) };
                *half = _mm512_maskz_mov_ps(mask, exponential(_mm512_sub_ps(x, largest)));
                sum = _mm512_add_ps(sum, *half);
            }
        }
        // SAFETY: a tile's row has 64 bytes.
        #[allow(unsafe_code)]
        unsafe {
            _mm512_storeu_si512(tile[place].as_mut_ptr().cast(), round_all(halves[0], halves[1]));
        }
    }
    _mm512_reduce_add_ps(sum)
}

/// e^x of numbers that are not positive, off by less than 10⁻⁵ of it where that is not less than 2⁻⁵⁰.
#[inline]
#[target_feature(enable = "avx512f")]
fn exponential(x: __m512) -> __m512 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    // 2^f for f from -1/2 to 1/2: of all such polynomials the one that is off by the least part of it, 2.6·10⁻⁶ (found by Remez's exchange).
    const TERMS: [f32; 5] = [0.999_999_3, 0.693_121_8, 0.240_247_45, 0.055_917_86, 0.009_570_102];
    let t = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E));
    let whole = _mm512_roundscale_ps::<NEAREST>(t);
    let f = _mm512_sub_ps(t, whole);
    let mut power = _mm512_set1_ps(TERMS[4]);
    for k in (0..4).rev() {
        power = _mm512_fmadd_ps(power, f, _mm512_set1_ps(TERMS[k]));
    }
    _mm512_scalef_ps(power, whole)
}

/// Writes a block's rows of sums, each times its scale.
///
/// # Safety
/// The processor must have AVX-512, and no other thread may use the block's place.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
unsafe fn write_scaled(sums: &Sums, scales: &[f32; BLOCK_ROWS], out: &Floats<'_>, place: Place) {
    for (r, &scale) in scales.iter().enumerate().take(place.rows) {
        let to = out.row(place, r);
        for (at, mask) in vectors(place.columns) {
            // SAFETY: the sums have 32 rows of 32, the output's row the columns that the mask keeps to.
            unsafe {
                let scaled = _mm512_mul_ps(_mm512_load_ps(sums.row(r).add(at)), _mm512_set1_ps(scale));
                _mm512_mask_storeu_ps(to.add(at), mask, scaled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::amx::tile::is_permitted;

    /// Weights of rows of all lengths up to three steps against f64: off by 10⁻⁵ and a rounding to bf16, and zero behind the row; their sum by 10⁻⁵.
    #[test]
    fn exponentials_match_f64() {
        if !is_permitted(Format::Bf16) {
            return eprintln!("skipped: no AMX in bf16 here, or it is not permitted");
        }
        for (len, scale) in (1..=3 * WIDTH).flat_map(|len| [(len, 0.1), (len, 3.0), (len, 60.0)]) {
            let row: Vec<f32> =
                (0..len).map(|i| ((i * 7919 + len) % 1009) as f32 / 1009.0 * scale - 2.0).collect();
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (r, mut tile) = (5, vec![0xaa; 3 * TILE_BYTES]);
            // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
            #[allow(unsafe_code)]
            let sum = unsafe { exponentials(&row, _mm512_set1_ps(largest), r, &mut tile) };
            let want: Vec<f64> = row.iter().map(|&x| (f64::from(x) - f64::from(largest)).exp()).collect();
            let total: f64 = want.iter().sum();
            assert!((f64::from(sum) - total).abs() <= 1e-5 * total, "{len}, {scale}: {sum} {total}");
            let bytes: Vec<u8> = places(r, 3).flat_map(|place| tile[place].to_vec()).collect();
            for (i, pair) in bytes.chunks_exact(2).enumerate() {
                let found = f64::from(half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32());
                let want = want.get(i).copied().unwrap_or(0.0);
                assert!(
                    (found - want).abs() <= ((-8f64).exp2() + 1e-5) * want,
                    "{i} of {len}: {found} {want}"
                );
            }
        }
    }
}
