//! The weights of up to 32 queries of a head, from their scores, by AVX-512.
//!
//! A weight is 2^(score · log₂ e − m) for a whole number m of the row: such weights are the same bits for every m but for their exponents, so that all of a row can
//! be divided by a power of two where a later score is much larger than the ones before. Softmax divides by their sum, which is of the same m.

use std::arch::x86_64::*;
use std::ops::Range;

use super::rows::{LANES, mask, place, places, round_all};
use super::tile::{BLOCK_ROWS, Sums, TILE_ROWS, WIDTH};

/// How much larger than m a score · log₂ e may be. All weights down to 2⁻¹²⁶ of the largest of their row are normal numbers.
const MOST: f32 = 32.0;

/// What is known of a block's rows after some panels of scores.
pub(super) struct QueryBlock {
    rows: Range<usize>,
    /// Each row's m, a whole number.
    exponents: [f32; BLOCK_ROWS],
    /// The sums of each row's weights so far, one for each lane.
    totals: [[f32; LANES]; BLOCK_ROWS],
}

impl QueryBlock {
    /// A block of these queries.
    pub(super) fn new(rows: Range<usize>) -> Self {
        Self { rows, exponents: [0.0; BLOCK_ROWS], totals: [[0.0; LANES]; BLOCK_ROWS] }
    }

    /// Writes the weights of panel `p` of scores, rounded, to a step of the tiles, and zeros for what is not seen; adds them to the totals. Panels
    /// come in order, and every row sees something of the first.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn weigh(
        &mut self,
        p: usize,
        scores: &Sums,
        seen: impl Fn(usize) -> usize,
        weights: &mut [u8],
    ) {
        let len = weights.len() / 2;
        let log2_e = _mm512_set1_ps(std::f32::consts::LOG2_E);
        for r in 0..self.rows.len() {
            let seen = seen(self.rows.start + r).saturating_sub(p * WIDTH);
            let tile = &mut weights[r / TILE_ROWS * len..][..len];
            let x = scores.row(r);
            // SAFETY: a row of sums has two vectors.
            #[allow(unsafe_code)]
            let (low, high) = unsafe { (_mm512_load_ps(x), _mm512_load_ps(x.add(LANES))) };
            let (mut low, mut high) = (_mm512_mul_ps(low, log2_e), _mm512_mul_ps(high, log2_e));
            let masks = (seen < WIDTH).then(|| [mask(seen), mask(seen.saturating_sub(LANES))]);
            let larger = match masks {
                None => _mm512_max_ps(low, high),
                Some([first, second]) => {
                    let low = _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), first, low);
                    _mm512_mask_max_ps(low, second, low, high)
                }
            };
            let limit = _mm512_set1_ps(self.exponents[r] + MOST);
            if p == 0 || _mm512_cmp_ps_mask::<_CMP_GT_OQ>(larger, limit) != 0 {
                self.raise(r, p, _mm512_reduce_max_ps(larger), tile);
            }
            let exponent = _mm512_set1_ps(self.exponents[r]);
            (low, high) = (power_of_two(low, exponent), power_of_two(high, exponent));
            if let Some([first, second]) = masks {
                (low, high) = (_mm512_maskz_mov_ps(first, low), _mm512_maskz_mov_ps(second, high));
            }
            // A number in bf16 is the first half of the same in 32 bits: the rounded weights are summed, so that a key that is seen alone has all the weight.
            let rounded = round_all(low, high);
            let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(rounded));
            let second = _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(!0xffff)));
            let total = &mut self.totals[r];
            let to = &mut tile[place(r % TILE_ROWS, p)];
            // SAFETY: there are as many totals as lanes, and 64 bytes for 32 weights.
            #[allow(unsafe_code)]
            unsafe {
                let sum = _mm512_add_ps(_mm512_add_ps(_mm512_loadu_ps(total.as_ptr()), first), second);
                _mm512_storeu_ps(total.as_mut_ptr(), sum);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), rounded);
            }
        }
    }

    /// Makes a row's m what its largest score asks for, and multiplies by a power of two what was computed with the old one: its total, and its weights of the `p`
    /// panels before.
    #[cold]
    fn raise(&mut self, r: usize, p: usize, largest: f32, tile: &mut [u8]) {
        let before = std::mem::replace(&mut self.exponents[r], largest.round_ties_even());
        if p == 0 {
            return;
        }
        let factor = (before - self.exponents[r]).exp2();
        self.totals[r].iter_mut().for_each(|total| *total *= factor);
        for place in places(r % TILE_ROWS, p) {
            let (weights, _) = tile[place].as_chunks_mut::<2>();
            for weight in weights {
                let scaled = half::bf16::from_le_bytes(*weight).to_f32() * factor;
                *weight = half::bf16::from_f32(scaled).to_le_bytes();
            }
        }
    }

    /// What each row's results are yet to be multiplied by.
    pub(super) fn scales(&self) -> [f32; BLOCK_ROWS] {
        // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
        #[allow(unsafe_code)]
        self.totals.each_ref().map(|total| 1.0 / unsafe { sum(total) })
    }
}

/// The sum of a vector's numbers.
#[target_feature(enable = "avx512f")]
fn sum(lanes: &[f32; LANES]) -> f32 {
    // SAFETY: as many as a vector has.
    #[allow(unsafe_code)]
    _mm512_reduce_add_ps(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
}

/// 2^(t − m) for a whole number m, off by less than 10⁻⁵ of it where it is a normal number.
#[inline]
#[target_feature(enable = "avx512f")]
fn power_of_two(t: __m512, m: __m512) -> __m512 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    // 2^f for f from -1/2 to 1/2: of all such polynomials the one that is off by the least part of it, 2.6·10⁻⁶ (found by Remez's exchange).
    const TERMS: [f32; 5] = [0.999_999_3, 0.693_121_8, 0.240_247_45, 0.055_917_86, 0.009_570_102];
    let whole = _mm512_roundscale_ps::<NEAREST>(t);
    let f = _mm512_sub_ps(t, whole);
    let mut power = _mm512_set1_ps(TERMS[4]);
    for k in (0..4).rev() {
        power = _mm512_fmadd_ps(power, f, _mm512_set1_ps(TERMS[k]));
    }
    _mm512_scalef_ps(power, _mm512_sub_ps(whole, m))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LOG2_E;

    use super::*;
    use crate::nn::amx::tile::{Format, TILE_BYTES, is_permitted};

    /// Weights of rows that see up to three panels of scores, against f64: off by 10⁻⁵ and a rounding to bf16, and zero behind those; their sum. With the largest
    /// spread of scores, later ones are larger by more than [`MOST`], and the least weights are no normal numbers: those have steps of 2⁻¹³³.
    #[test]
    fn weights_match_f64() {
        if !is_permitted(Format::Bf16) {
            return eprintln!("skipped: no AMX in bf16 here, or it is not permitted");
        }
        let score = |row: usize, key: usize, spread: f32| {
            let some = ((key * 7919 + row * 31) % 1009) as f32 / 1009.0;
            (some + 0.6 * (key / WIDTH) as f32) * spread - 2.0
        };
        let mut raised = 0;
        for (most, spread) in (1..=3 * WIDTH).flat_map(|most| [(most, 0.1), (most, 3.0), (most, 40.0)]) {
            let rows = most..most + 19;
            // Each row sees another number of keys, one of them all.
            let seen = |row: usize| 1 + (row - rows.start + most - 1) % most;
            let panels = most.div_ceil(WIDTH);
            let mut block = QueryBlock::new(rows.clone());
            let mut tiles = vec![0xaa; 2 * 3 * TILE_BYTES];
            for p in 0..panels {
                let mut scores = Sums::new();
                for (r, row) in scores.floats(0..BLOCK_ROWS).chunks_exact_mut(WIDTH).enumerate() {
                    row.iter_mut()
                        .enumerate()
                        .for_each(|(c, x)| *x = score(rows.start + r, p * WIDTH + c, spread));
                }
                let before = block.exponents;
                // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
                #[allow(unsafe_code)]
                unsafe {
                    block.weigh(p, &scores, seen, &mut tiles);
                }
                raised += usize::from(p > 0 && block.exponents != before);
            }
            let scales = block.scales();
            for (r, row) in rows.clone().enumerate() {
                let m = f64::from(block.exponents[r]);
                let tile = &tiles[r / TILE_ROWS * 3 * TILE_BYTES..];
                let bytes: Vec<u8> =
                    places(r % TILE_ROWS, panels).flat_map(|place| tile[place].to_vec()).collect();
                let mut total = 0.0;
                for (key, pair) in bytes.chunks_exact(2).enumerate() {
                    let found = f64::from(half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32());
                    let score = f64::from(score(row, key, spread));
                    let want = if key < seen(row) { (score * LOG2_E - m).exp2() } else { 0.0 };
                    assert!(
                        (found - want).abs() <= ((-8f64).exp2() + 1e-5) * want + (-133f64).exp2(),
                        "key {key} of row {r}, {most}, {spread}: {found} {want}"
                    );
                    total += found;
                }
                assert!(
                    (f64::from(scales[r]) * total - 1.0).abs() <= 1e-6,
                    "{most}, {spread}: {} {total}",
                    scales[r]
                );
            }
        }
        assert!(raised > 10, "a later panel asked for another power of two");
    }

    /// Wherever it is among the keys that are seen, a key whose score is far above the others' has all the weight, and nothing overflows.
    #[test]
    fn one_large_score_takes_all_the_weight() {
        if !is_permitted(Format::Bf16) {
            return eprintln!("skipped: no AMX in bf16 here, or it is not permitted");
        }
        for (seen, large) in (1..=2 * WIDTH).flat_map(|seen| (0..seen).map(move |large| (seen, large))) {
            let mut block = QueryBlock::new(0..1);
            let mut tiles = vec![0xaa; 2 * 2 * TILE_BYTES];
            for p in 0..seen.div_ceil(WIDTH) {
                let mut scores = Sums::new();
                if large / WIDTH == p {
                    scores.floats(0..1)[large % WIDTH] = 200.0;
                }
                // SAFETY: AMX in bf16 is permitted, which asks for these instructions, too.
                #[allow(unsafe_code)]
                unsafe {
                    block.weigh(p, &scores, |_| seen, &mut tiles);
                }
            }
            let at = place(0, large / WIDTH).start + large % WIDTH * 2;
            let weight = half::bf16::from_le_bytes([tiles[at], tiles[at + 1]]).to_f32();
            assert_eq!(weight * block.scales()[0], 1.0, "key {large} of {seen}");
        }
    }
}
