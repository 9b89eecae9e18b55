//! The left operand as tiles.

use std::ops::Range;

use super::tile::{ROW_BYTES, TILE_BYTES, TILE_ROWS};

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

impl Rows<'_> {
    pub(super) fn new(bytes: &[u8], count: usize, steps: usize) -> Rows<'_> {
        assert!(steps > 0 && bytes.len() >= rows_len(count, steps));
        Rows { bytes, count, steps }
    }

    /// Where a tile begins.
    pub(super) fn tile(&self, n: usize) -> *const u8 {
        self.bytes[n * self.steps * TILE_BYTES..(n + 1) * self.steps * TILE_BYTES].as_ptr()
    }
}

/// The places of row `r` of a tile: 64 bytes for each of the steps.
pub(super) fn places(r: usize, steps: usize) -> impl Iterator<Item = Range<usize>> {
    (0..steps).map(move |step| step * TILE_BYTES + r * ROW_BYTES..step * TILE_BYTES + (r + 1) * ROW_BYTES)
}
