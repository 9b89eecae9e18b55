//! Right operands, weights and attention's, as panels of pairs in bf16, `[pairs, 32 columns]`, by AVX-512.

use std::arch::x86_64::*;

use super::rows::{mask, round_pairs};
use super::tile::{ROW_BYTES, TILE_BYTES, TILE_ROWS, WIDTH};

/// Inputs of 16 pairs.
const INPUTS: usize = 2 * TILE_ROWS;

/// Up to 16 numbers of a slice from `at` on, and zeros.
#[target_feature(enable = "avx512f")]
fn load(row: &[f32], at: usize) -> __m512 {
    let here = row.get(at..).unwrap_or_default();
    // SAFETY: the mask keeps to the slice.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_maskz_loadu_ps(mask(here.len()), here.as_ptr())
    }
}

/// Writes 16 vectors to lines that are [`WIDTH`] pairs apart, from column `at` on.
#[target_feature(enable = "avx512f")]
fn write(lines: &mut [u32], at: usize, vectors: [__m512i; 16]) {
    for (line, vector) in lines.chunks_exact_mut(WIDTH).zip(vectors) {
        // SAFETY: there are 16 columns.
        #[allow(unsafe_code)]
        unsafe {
            _mm512_storeu_si512(line[at..at + 16].as_mut_ptr().cast(), vector);
        }
    }
}

/// Fills a panel whose column c is the row c times its factor; columns that do not exist, and what is behind a row's end, are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn fill_transposed<'r>(panel: &mut [u32], row: impl Fn(usize) -> Option<(&'r [f32], f32)>) {
    let rows: [(&[f32], f32); WIDTH] = std::array::from_fn(|c| row(c).unwrap_or_default());
    for (n, lines) in panel.chunks_exact_mut(TILE_ROWS * WIDTH).enumerate() {
        for at in (0..WIDTH).step_by(16) {
            let mut pairs = [_mm512_setzero_si512(); 16];
            for (pairs, &(row, factor)) in pairs.iter_mut().zip(&rows[at..at + 16]) {
                let factor = _mm512_set1_ps(factor);
                let low = _mm512_mul_ps(load(row, n * INPUTS), factor);
                let high = _mm512_mul_ps(load(row, n * INPUTS + 16), factor);
                *pairs = round_pairs(low, high);
            }
            write(lines, at, transposed(pairs));
        }
    }
}

/// Fills a panel whose input k is the row k, of up to 32 columns; what does not exist is zero.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn fill<'r>(panel: &mut [u32], row: impl Fn(usize) -> &'r [f32]) {
    // Number i of the first half, then number i of the second.
    const SIDE_BY_SIDE: [u16; 32] = {
        let mut places = [0; 32];
        let mut i = 0;
        while i < 16 {
            (places[2 * i], places[2 * i + 1]) = (i as u16, 16 + i as u16);
            i += 1;
        }
        places
    };
    // SAFETY: as many numbers as the vector has.
    #[allow(unsafe_code)]
    let side_by_side = unsafe { _mm512_loadu_si512(SIDE_BY_SIDE.as_ptr().cast()) };
    for (k, line) in panel.chunks_exact_mut(WIDTH).enumerate() {
        let (first, second) = (row(2 * k), row(2 * k + 1));
        for at in (0..WIDTH).step_by(16) {
            let rounded = round_pairs(load(first, at), load(second, at));
            let pairs = _mm512_permutexvar_epi16(side_by_side, rounded);
            // SAFETY: there are 16 columns.
            #[allow(unsafe_code)]
            unsafe {
                _mm512_storeu_si512(line[at..at + 16].as_mut_ptr().cast(), pairs);
            }
        }
    }
}

/// Fills half of the columns of 16 lines of a panel with the transpose of a tile, `[16, 64 bytes]`: column c is its row c.
#[target_feature(enable = "avx512f")]
pub(super) fn fill_transposed_tile(lines: &mut [u32], at: usize, tile: &[u8; TILE_BYTES]) {
    let mut rows = [_mm512_setzero_si512(); 16];
    for (row, bytes) in rows.iter_mut().zip(tile.chunks_exact(ROW_BYTES)) {
        // SAFETY: a tile's row has 64 bytes.
        #[allow(unsafe_code)]
        unsafe {
            *row = _mm512_loadu_si512(bytes.as_ptr().cast());
        }
    }
    write(lines, at, transposed(rows));
}

/// Fills 8 lines of a panel with the first `count` rows of a tile, `[16, 64 bytes]`, two by two: their columns are its, and rows behind those are zeros.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn fill_tile(lines: &mut [u32], count: usize, tile: &[u8; TILE_BYTES]) {
    // Number i of the first row, then number i of the second, for the first and the last 16.
    const SIDE_BY_SIDE: [[u16; 32]; 2] = {
        let mut places = [[0; 32]; 2];
        let mut i = 0;
        while i < 32 {
            let half = i / 16;
            places[half][2 * (i % 16)] = i as u16;
            places[half][2 * (i % 16) + 1] = 32 + i as u16;
            i += 1;
        }
        places
    };
    let load = |r: usize| {
        let mask = if r < count { !0 } else { 0 };
        // SAFETY: a tile has 16 rows of 64 bytes, and an empty mask reads nothing.
        #[allow(unsafe_code)]
        unsafe {
            _mm512_maskz_loadu_epi16(mask, tile[r * ROW_BYTES..(r + 1) * ROW_BYTES].as_ptr().cast())
        }
    };
    for (k, line) in lines.chunks_exact_mut(WIDTH).enumerate() {
        let (first, second) = (load(2 * k), load(2 * k + 1));
        for (half, places) in line.chunks_exact_mut(16).zip(&SIDE_BY_SIDE) {
            // SAFETY: as many numbers as the vectors have.
            #[allow(unsafe_code)]
            unsafe {
                let places = _mm512_loadu_si512(places.as_ptr().cast());
                let pairs = _mm512_permutex2var_epi16(first, places, second);
                _mm512_storeu_si512(half.as_mut_ptr().cast(), pairs);
            }
        }
    }
}

/// The transpose of 16 vectors of 16 numbers of 32 bits.
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut of_two = rows;
    for n in (0..16).step_by(2) {
        of_two[n] = _mm512_unpacklo_epi32(rows[n], rows[n + 1]);
        of_two[n + 1] = _mm512_unpackhi_epi32(rows[n], rows[n + 1]);
    }
    // Of rows 4n to 4n + 3: in vector 4n + k the columns k, 4 + k, 8 + k, 12 + k, in a quarter each.
    let mut of_four = rows;
    for n in (0..16).step_by(4) {
        of_four[n] = _mm512_unpacklo_epi64(of_two[n], of_two[n + 2]);
        of_four[n + 1] = _mm512_unpackhi_epi64(of_two[n], of_two[n + 2]);
        of_four[n + 2] = _mm512_unpacklo_epi64(of_two[n + 1], of_two[n + 3]);
        of_four[n + 3] = _mm512_unpackhi_epi64(of_two[n + 1], of_two[n + 3]);
    }
    let mut columns = rows;
    for k in 0..4 {
        // Quarters 0 and 2, then 1 and 3, of rows 0 to 7 and of rows 8 to 15.
        let low = [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(of_four[k], of_four[4 + k]),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(of_four[k], of_four[4 + k]),
        ];
        let high = [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(of_four[8 + k], of_four[12 + k]),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(of_four[8 + k], of_four[12 + k]),
        ];
        columns[k] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low[0], high[0]);
        columns[8 + k] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low[0], high[0]);
        columns[4 + k] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low[1], high[1]);
        columns[12 + k] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low[1], high[1]);
    }
    columns
}
