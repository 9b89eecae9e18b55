//! Windows of convolutions as rows of tiles.

use std::arch::x86_64::*;

use crate::nn::gemm::Windows;

use super::bf16::STEP;
use super::rows::{place, round_row};
use super::tile::{ROW_BYTES, TILE_BYTES};

/// Copies the pixels of window n, of whole steps, to row `r` of a tile.
#[target_feature(enable = "avx512f")]
pub(super) fn copy_window(windows: &Windows<'_, u16>, n: usize, r: usize, tile: &mut [u8]) {
    let mut step = 0;
    for pixel in windows.pixels(n) {
        let (steps, rest) = pixel.as_chunks::<STEP>();
        assert!(rest.is_empty());
        for values in steps {
            let to = &mut tile[place(r, step)];
            assert_eq!(to.len(), ROW_BYTES);
            // SAFETY: there are 64 bytes and places for as many.
            #[allow(unsafe_code)]
            unsafe {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_loadu_si512(values.as_ptr().cast()));
            }
            step += 1;
        }
    }
}

/// Rounds the pixels of window n to row `r` of a tile.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round_window(windows: &Windows<'_>, n: usize, r: usize, tile: &mut [u8]) {
    let channels = windows.channels();
    if channels.is_multiple_of(STEP) {
        // Pixels are whole steps, which are rounded where they lie.
        for (pixel, tile) in windows.pixels(n).zip(tile.chunks_exact_mut(channels / STEP * TILE_BYTES)) {
            round_row(pixel, r, tile);
        }
        return;
    }
    let mut row = Vec::with_capacity(windows.kernel * windows.kernel * channels);
    windows.pixels(n).for_each(|pixel| row.extend_from_slice(pixel));
    round_row(&row, r, tile);
}
