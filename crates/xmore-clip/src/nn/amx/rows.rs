//! The left operand as tiles.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::nn::bf16::SMALLEST;

use super::tile::{BLOCK_ROWS, ROW_BYTES, TILE_BYTES, TILE_ROWS};

/// Rows in tiles, `[tile][step][16][64 bytes]`. What lies behind the last row is anything.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) count: usize,
    pub(super) steps: usize,
}

/// Bytes of `count` rows of so many steps.
pub(super) fn rows_len(count: usize, steps: usize) -> usize {
    count.div_ceil(TILE_ROWS) * steps * TILE_BYTES
}

/// `len` bytes of the buffer that begin at a cache line: a row of a tile is one, and to read two for each takes twice as long.
pub(super) fn aligned(buffer: &mut Vec<f32>, len: usize) -> &mut [u8] {
    let needed = (len + ROW_BYTES) / 4;
    if buffer.len() < needed {
        buffer.resize(needed, 0.0);
    }
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer);
    let offset = bytes.as_ptr().align_offset(ROW_BYTES).min(ROW_BYTES);
    &mut bytes[offset..offset + len]
}

impl<'a> Rows<'a> {
    pub(super) fn new(bytes: &'a [u8], count: usize, steps: usize) -> Self {
        assert!(steps > 0 && bytes.len() >= rows_len(count, steps));
        Rows { bytes, count, steps }
    }

    /// Where a step of a tile begins.
    pub(super) fn tile(&self, n: usize, step: usize) -> *const u8 {
        self.bytes[(n * self.steps + step) * TILE_BYTES..(n + 1) * self.steps * TILE_BYTES].as_ptr()
    }

    /// A step of a tile.
    pub(super) fn step(&self, n: usize, step: usize) -> &'a [u8; TILE_BYTES] {
        let at = (n * self.steps + step) * TILE_BYTES;
        self.bytes[at..].first_chunk().expect("a tile that is there")
    }

    /// Some of the rows, from the first of a tile on.
    pub(super) fn part(self, rows: Range<usize>) -> Self {
        assert!(rows.start.is_multiple_of(TILE_ROWS) && rows.end <= self.count);
        let bytes = &self.bytes[rows.start / TILE_ROWS * self.steps * TILE_BYTES..];
        Self { bytes, count: rows.len(), ..self }
    }

    /// Ranges of rows of at most `bytes` bytes, or of a block.
    pub(super) fn parts(&self, bytes: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let each = (bytes / (self.steps * ROW_BYTES * BLOCK_ROWS)).max(1);
        let (blocks, count) = (self.count.div_ceil(BLOCK_ROWS), self.count);
        let parts = blocks.div_ceil(each).max(1);
        let bound = move |n: usize| (n * blocks / parts * BLOCK_ROWS).min(count);
        (0..parts).map(move |n| bound(n)..bound(n + 1))
    }
}

/// The places of row `r` of a tile: 64 bytes for each of the steps.
pub(super) fn places(r: usize, steps: usize) -> impl Iterator<Item = Range<usize>> {
    (0..steps).map(move |step| place(r, step))
}

/// The place of a step of row `r` of a tile.
pub(super) fn place(r: usize, step: usize) -> Range<usize> {
    let at = step * TILE_BYTES + r * ROW_BYTES;
    at..at + ROW_BYTES
}

/// The numbers, zero instead of the least ones.
#[target_feature(enable = "avx512f")]
fn without_least(x: __m512) -> __m512 {
    let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(x), _mm512_set1_ps(SMALLEST));
    _mm512_maskz_mov_ps(kept, x)
}

/// Numbers in a vector.
pub(super) const LANES: usize = 16;

/// The first `count` numbers of a vector, at most all of them.
pub(super) fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// 32 numbers in bf16, to nearest even, as the other kernels round them: the least ones are zero.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round_pairs(low: __m512, high: __m512) -> __m512i {
    round_all(without_least(low), without_least(high))
}

/// The same, but the least numbers are rounded, too.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round_all(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits.
    #[allow(unsafe_code)]
    unsafe {
        std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// Rounds a row to its places in a tile; a last piece that is not whole is filled with zeros.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round_row(row: &[f32], r: usize, tile: &mut [u8]) {
    let (whole, rest) = row.as_chunks::<32>();
    let round = |x: &[f32; 32], to: &mut [u8]| {
        assert_eq!(to.len(), ROW_BYTES);
        // SAFETY: there are 32 numbers and places for as many.
        #[allow(unsafe_code)]
        unsafe {
            let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), round_pairs(low, high));
        }
    };
    let mut places = places(r, row.len().div_ceil(32));
    for (x, place) in whole.iter().zip(places.by_ref()) {
        round(x, &mut tile[place]);
    }
    if !rest.is_empty() {
        let mut last = [0.0; 32];
        last[..rest.len()].copy_from_slice(rest);
        round(&last, &mut tile[places.next().expect("a place for the rest")]);
    }
}
