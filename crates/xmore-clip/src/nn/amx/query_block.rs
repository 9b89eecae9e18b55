//! Up to 32 queries of a head: their scores, and the weights that these make, by AVX-512.

use std::arch::x86_64::*;
use std::ops::Range;

use super::rows::{LANES, mask, round_all};
use super::tile::{BLOCK_ROWS, ROW_BYTES, Sums, TILE_BYTES, TILE_ROWS, WIDTH};

/// What is computed of up to 32 queries.
#[derive(Default)]
pub(super) struct QueryBlock {
    pub(super) rows: Range<usize>,
    /// Panels of keys up to the last one that is seen; weights behind those are zero.
    pub(super) panels: usize,
    /// The panels' scores.
    pub(super) scores: Vec<Sums>,
    /// Each row's largest scores so far, one for each lane.
    largest: Lanes,
    /// Each row's largest score, once there are all.
    largest_of_row: [f32; BLOCK_ROWS],
    /// The sums of each row's weights so far, before rounding, one for each lane.
    totals: Lanes,
}

/// A vector for each row of a block.
#[derive(Default)]
struct Lanes([[f32; LANES]; BLOCK_ROWS]);

impl QueryBlock {
    pub(super) fn begin(&mut self, rows: Range<usize>, seen: impl Fn(usize) -> usize) {
        self.panels = rows.clone().map(seen).max().unwrap_or(0).div_ceil(WIDTH);
        if self.scores.len() < self.panels {
            self.scores.resize(self.panels, Sums::new());
        }
        self.rows = rows;
        self.largest.0 = [[f32::NEG_INFINITY; LANES]; BLOCK_ROWS];
        self.totals.0 = [[0.0; LANES]; BLOCK_ROWS];
    }

    /// Takes the largest of each row's lanes, once they have all scores.
    #[target_feature(enable = "avx512f")]
    pub(super) fn reduce_largest(&mut self) {
        for (of_row, lanes) in self.largest_of_row.iter_mut().zip(&self.largest.0) {
            // SAFETY: as many as a vector has.
            #[allow(unsafe_code)]
            let lanes = unsafe { _mm512_loadu_ps(lanes.as_ptr()) };
            *of_row = _mm512_reduce_max_ps(lanes);
        }
    }

    /// Whether there is a second tile of rows.
    pub(super) fn both(&self) -> bool {
        self.rows.len() > TILE_ROWS
    }

    /// Takes the scores of a panel into the rows' largest.
    #[target_feature(enable = "avx512f")]
    pub(super) fn take_largest(&mut self, p: usize, seen: impl Fn(usize) -> usize) {
        for (r, largest) in self.largest.0.iter_mut().enumerate().take(self.rows.len()) {
            let seen = seen(self.rows.start + r).saturating_sub(p * WIDTH);
            // SAFETY: a row of sums has two vectors, and there is one for each row.
            #[allow(unsafe_code)]
            unsafe {
                let mut most = _mm512_loadu_ps(largest.as_ptr());
                for at in [0, LANES] {
                    let x = _mm512_load_ps(self.scores[p].row(r).add(at));
                    most = _mm512_mask_max_ps(most, mask(seen.saturating_sub(at)), most, x);
                }
                _mm512_storeu_ps(largest.as_mut_ptr(), most);
            }
        }
    }

    /// Writes e^(x − largest x) of a panel's scores, rounded, to a step of the tiles, and zeros for what is not seen; adds them to the totals before rounding. The
    /// least of them are rounded, too: beside the largest, which is 1, they count for nothing.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn weigh(&mut self, p: usize, seen: impl Fn(usize) -> usize, weights: &mut [u8]) {
        let len = weights.len() / 2;
        for (r, total) in self.totals.0.iter_mut().enumerate().take(self.rows.len()) {
            let seen = seen(self.rows.start + r).saturating_sub(p * WIDTH);
            let at = r / TILE_ROWS * len + p * TILE_BYTES + r % TILE_ROWS * ROW_BYTES;
            let to = &mut weights[at..at + ROW_BYTES];
            // SAFETY: a row of sums has two vectors; there is one for each row, and 64 bytes for 32 weights.
            #[allow(unsafe_code)]
            unsafe {
                let largest = _mm512_set1_ps(self.largest_of_row[r]);
                let x = self.scores[p].row(r);
                let mut low = exponential(_mm512_sub_ps(_mm512_load_ps(x), largest));
                let mut high = exponential(_mm512_sub_ps(_mm512_load_ps(x.add(LANES)), largest));
                if seen < WIDTH {
                    low = _mm512_maskz_mov_ps(mask(seen), low);
                    high = _mm512_maskz_mov_ps(mask(seen.saturating_sub(LANES)), high);
                }
                let sum = _mm512_add_ps(_mm512_add_ps(_mm512_loadu_ps(total.as_ptr()), low), high);
                _mm512_storeu_ps(total.as_mut_ptr(), sum);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), round_all(low, high));
            }
        }
    }

    /// What each row's results are yet to be multiplied by.
    pub(super) fn scales(&self) -> [f32; BLOCK_ROWS] {
        // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
        #[allow(unsafe_code)]
        self.totals.0.each_ref().map(|total| 1.0 / unsafe { sum(total) })
    }
}

/// The sum of a vector's numbers.
#[target_feature(enable = "avx512f")]
fn sum(lanes: &[f32; LANES]) -> f32 {
    // SAFETY: as many as a vector has.
    #[allow(unsafe_code)]
    _mm512_reduce_add_ps(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::amx::rows::places;
    use crate::nn::amx::tile::{Format, is_permitted};

    /// Weights of rows that see up to three panels of scores, against f64: off by 10⁻⁵ and a rounding to bf16, and zero behind those; their sum by 10⁻⁵.
    #[test]
    fn weights_match_f64() {
        if !is_permitted(Format::Bf16) {
            return eprintln!("skipped: no AMX in bf16 here, or it is not permitted");
        }
        let score =
            |row: usize, key: usize, scale: f32| ((key * 7919 + row) % 1009) as f32 / 1009.0 * scale - 2.0;
        for (most, scale) in (1..=3 * WIDTH).flat_map(|most| [(most, 0.1), (most, 3.0), (most, 60.0)]) {
            let rows = most..most + 19;
            // Each row sees another number of keys, one of them all.
            let seen = |row: usize| 1 + (row - rows.start + most - 1) % most;
            let mut block = QueryBlock::default();
            block.begin(rows.clone(), seen);
            assert_eq!(block.panels, most.div_ceil(WIDTH));
            for (p, scores) in block.scores.iter_mut().enumerate() {
                for (r, row) in scores.floats(0..BLOCK_ROWS).chunks_exact_mut(WIDTH).enumerate() {
                    row.iter_mut()
                        .enumerate()
                        .for_each(|(c, x)| *x = score(rows.start + r, p * WIDTH + c, scale));
                }
            }
            let mut tiles = vec![0xaa; 2 * 3 * TILE_BYTES];
            // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
            #[allow(unsafe_code)]
            unsafe {
                (0..block.panels).for_each(|p| block.take_largest(p, seen));
                block.reduce_largest();
                (0..block.panels).for_each(|p| block.weigh(p, seen, &mut tiles));
            }
            let scales = block.scales();
            for (r, row) in rows.clone().enumerate() {
                let scores: Vec<f64> = (0..seen(row)).map(|key| score(row, key, scale).into()).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let want: Vec<f64> = scores.iter().map(|x| (x - largest).exp()).collect();
                let total: f64 = want.iter().sum();
                assert!(
                    (f64::from(scales[r]) * total - 1.0).abs() <= 1e-5,
                    "{most}, {scale}: {} {total}",
                    scales[r]
                );
                let tile = &tiles[r / TILE_ROWS * 3 * TILE_BYTES..];
                let bytes: Vec<u8> =
                    places(r % TILE_ROWS, block.panels).flat_map(|place| tile[place].to_vec()).collect();
                for (i, pair) in bytes.chunks_exact(2).enumerate() {
                    let found = f64::from(half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32());
                    let want = want.get(i).copied().unwrap_or(0.0);
                    assert!(
                        (found - want).abs() <= ((-8f64).exp2() + 1e-5) * want,
                        "{i} of row {r}, {most}: {found} {want}"
                    );
                }
            }
        }
    }
}
