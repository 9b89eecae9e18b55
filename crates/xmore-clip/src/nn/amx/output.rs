//! Where a product's sums go: to rows of floats, or to tiles that the next product reads.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use crate::nn::gemm::ColumnBlock;

use super::gates::Gate;
use super::rows::{LANES, mask, round_pairs, rows_len};
use super::tile::{ROW_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

/// A block of sums in the product.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) column: usize,
    /// Columns that exist, at most [`WIDTH`].
    pub(super) columns: usize,
}

/// What a product writes.
pub(super) enum Output<'a> {
    Floats(Floats<'a>),
    Tiles(Tiles<'a>),
}

impl Output<'_> {
    /// Fetches what will be written of some rows of a block to the first cache.
    pub(super) fn prefetch(&self, place: Place, part: Range<usize>) {
        for r in part {
            let (row, lines) = match self {
                Self::Floats(floats) => (floats.row(place, r).cast(), 2),
                Self::Tiles(tiles) => (tiles.row(place, r), 1),
            };
            for line in 0..lines {
                // SAFETY: a prefetch faults at no address.
                #[allow(unsafe_code)]
                unsafe {
                    std::arch::asm!("prefetchw [{0}]", in(reg) row.wrapping_add(line * ROW_BYTES), options(nostack, preserves_flags, readonly));
                }
            }
        }
    }
}

/// The vectors of a block's row, as places of their first columns and masks of those that exist.
pub(super) fn vectors(columns: usize) -> impl Iterator<Item = (usize, __mmask16)> {
    (0..WIDTH).step_by(LANES).filter(move |&at| at < columns).map(move |at| (at, mask(columns - at)))
}

/// A matrix of floats, or some columns of one.
pub(super) struct Floats<'a>(pub(super) ColumnBlock<'a>);

// SAFETY: it is written through its functions alone, whose callers promise that what runs at the same time is disjoint.
#[allow(unsafe_code)]
unsafe impl Sync for Floats<'_> {}

impl Floats<'_> {
    /// Where row `r` of a block begins: as many elements as it has columns.
    pub(super) fn row(&self, place: Place, r: usize) -> *mut f32 {
        self.0.place(place.row + r, 1, place.column, place.columns)
    }

    /// Writes some rows of sums, which are floats, with the bias of their columns and, if it is wanted, what is there already; clamped to zero and a ceiling, if
    /// there is one.
    ///
    /// # Safety
    /// The processor must have AVX-512, and no other thread may use the block's place meanwhile.
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn write_sums(
        &self,
        sums: &Sums,
        place: Place,
        part: Range<usize>,
        bias: &[f32; WIDTH],
        add: bool,
        ceiling: Option<f32>,
    ) {
        let (zero, most) = (_mm512_setzero_ps(), _mm512_set1_ps(ceiling.unwrap_or_default()));
        for (at, mask) in vectors(place.columns) {
            // SAFETY: the bias has 32 values, the sums have 32 rows of 32, the output's row the columns that the mask keeps to.
            unsafe {
                let bias = _mm512_loadu_ps(bias.as_ptr().add(at));
                for r in part.clone() {
                    let to = self.row(place, r).add(at);
                    let mut sum = _mm512_add_ps(_mm512_load_ps(sums.row(r).add(at)), bias);
                    if add {
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, to));
                    }
                    if ceiling.is_some() {
                        sum = _mm512_min_ps(_mm512_max_ps(sum, zero), most);
                    }
                    _mm512_mask_storeu_ps(to, mask, sum);
                }
            }
        }
    }

    /// Writes some rows of finished sums.
    ///
    /// # Safety
    /// As for [`Floats::write_sums`].
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn write(&self, sums: &Sums, place: Place, part: Range<usize>) {
        for r in part {
            let to = self.row(place, r);
            for (at, mask) in vectors(place.columns) {
                // SAFETY: the sums have 32 rows of 32, the output's row the columns that the mask keeps to.
                unsafe {
                    _mm512_mask_storeu_ps(to.add(at), mask, _mm512_load_ps(sums.row(r).add(at)));
                }
            }
        }
    }
}

/// Rows in bf16 as [`super::rows::Rows`] has them, in whole panels of columns: those that do not exist are what sums of zeros give.
pub(super) struct Tiles<'a> {
    data: *mut u8,
    rows: usize,
    steps: usize,
    /// Whether a row's steps lie one behind another instead, as in a map.
    in_rows: bool,
    /// Where each row of a product goes, if not to its own place.
    places: Option<&'a [u32]>,
    lifetime: PhantomData<&'a mut [u8]>,
}

// SAFETY: as for `Floats`.
#[allow(unsafe_code)]
unsafe impl Sync for Tiles<'_> {}

impl<'a> Tiles<'a> {
    /// `rows` rows of so many steps of 32 columns.
    pub(super) fn new(data: &'a mut [u8], rows: usize, steps: usize) -> Self {
        assert!(data.len() >= rows_len(rows, steps));
        Self { data: data.as_mut_ptr(), rows, steps, in_rows: false, places: None, lifetime: PhantomData }
    }

    /// Rows `[rows, 32 * steps]` of a map in bf16.
    pub(super) fn in_rows(data: &'a mut [u16], rows: usize, steps: usize) -> Self {
        assert!(data.len() >= rows * steps * WIDTH);
        let data = data.as_mut_ptr().cast();
        Self { data, rows, steps, in_rows: true, places: None, lifetime: PhantomData }
    }

    /// The same, with the place of each row of a product.
    pub(super) fn with_places(self, places: &'a [u32]) -> Self {
        Self { places: Some(places), ..self }
    }

    /// Where a block's columns of its row `r` begin.
    fn row(&self, place: Place, r: usize) -> *mut u8 {
        let row = self.places.map_or(place.row + r, |places| places[place.row + r] as usize);
        self.place(row, place.column / WIDTH)
    }

    /// Where a step of a row begins.
    pub(super) fn place(&self, row: usize, step: usize) -> *mut u8 {
        assert!(row < self.rows && step < self.steps);
        let at = if self.in_rows {
            (row * self.steps + step) * ROW_BYTES
        } else {
            (row / TILE_ROWS * self.steps + step) * TILE_BYTES + row % TILE_ROWS * ROW_BYTES
        };
        // SAFETY: the row and the step are among those of `data`.
        #[allow(unsafe_code)]
        unsafe {
            self.data.add(at)
        }
    }

    /// Writes some rows of sums with the bias of their columns, or the activation of that: a gate, or clamped to zero and a ceiling.
    ///
    /// # Safety
    /// As for [`Floats::write_sums`]; the processor must have AVX512-BF16, too.
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn write_sums(
        &self,
        sums: &Sums,
        place: Place,
        part: Range<usize>,
        bias: &[f32; WIDTH],
        gate: Option<&Gate>,
        ceiling: Option<f32>,
    ) {
        let gate = gate.map(|gate| gate.load());
        let (zero, most) = (_mm512_setzero_ps(), _mm512_set1_ps(ceiling.unwrap_or_default()));
        // SAFETY: the bias has 32 values, the sums have 32 rows of 32; the tile and its row are among those of `data`.
        unsafe {
            let bias = [_mm512_loadu_ps(bias.as_ptr()), _mm512_loadu_ps(bias.as_ptr().add(LANES))];
            for r in part {
                let to = self.row(place, r);
                let mut low = _mm512_add_ps(_mm512_load_ps(sums.row(r)), bias[0]);
                let mut high = _mm512_add_ps(_mm512_load_ps(sums.row(r).add(LANES)), bias[1]);
                if let Some(gate) = &gate {
                    (low, high) = (gate.apply(low), gate.apply(high));
                }
                if ceiling.is_some() {
                    low = _mm512_min_ps(_mm512_max_ps(low, zero), most);
                    high = _mm512_min_ps(_mm512_max_ps(high, zero), most);
                }
                _mm512_storeu_si512(to.cast(), round_pairs(low, high));
            }
        }
    }
}
