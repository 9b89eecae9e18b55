//! Queries as whole numbers: two signed digits for each dimension.

use super::codes::kernel::{GROUP, PAIR};

/// Value of the high digit's unit in units of the low one.
pub(super) const HIGH: f64 = 64.0;
/// Largest digit; see [`Tile`](super::codes::kernel::Tile) for why.
const DIGIT_MAX: f64 = 64.0;

/// ‖y‖ for which the bounds hold: nothing overflows and nothing that matters underflows.
const NORMS: std::ops::RangeInclusive<f64> = 8.7e-19..=1.1e18;

/// A query y ≈ ŷ = step · (64 high + low).
///
/// The high digits alone leave about as much as 8-bit rows do, which is enough to pass over nearly all of them; with the low
/// ones the query's share of the error is negligible.
pub(super) struct Digits {
    /// `[groups, GROUP]`, an even number of groups, zeros behind the last dimension.
    pub high: Vec<i8>,
    /// The same of the low digits.
    pub low: Vec<i8>,
    /// What the sums of both start from, see [`offset`].
    pub high_offset: i32,
    pub low_offset: i32,
    /// The unit of the low digit; an f32, so that products with 64 and with digits are exact in f64.
    pub step: f64,
    /// ‖y‖, rounded up as the other norms are.
    pub norm: f64,
    /// ‖64 step · high‖.
    pub high_norm: f64,
    /// ‖step · low‖.
    pub low_norm: f64,
    /// ‖y − 64 step · high‖.
    pub high_error: f64,
    /// ‖y − ŷ‖.
    pub error: f64,
}

impl Digits {
    /// Of a finite query, `[dim]`. `None` if it is so long, so short or so nearly zero that it is no embedding.
    pub fn new(query: &[f32]) -> Option<Digits> {
        let norm = norm_up(query.iter().map(|&y| f64::from(y)));
        if !NORMS.contains(&norm) {
            return None;
        }
        let largest = query.iter().fold(0.0f32, |max, y| max.max(y.abs()));
        let step = f64::from(largest / (HIGH * DIGIT_MAX) as f32);
        let width = query.len().next_multiple_of(PAIR * GROUP);
        let (mut high, mut low) = (vec![0i8; width], vec![0i8; width]);
        for (d, &y) in query.iter().enumerate() {
            let y = f64::from(y) / step;
            let digit = (y / HIGH).round().clamp(-DIGIT_MAX, DIGIT_MAX);
            high[d] = digit as i8;
            low[d] = (y - HIGH * digit).round().clamp(-DIGIT_MAX, DIGIT_MAX) as i8;
        }
        let coarse = |d: usize| HIGH * step * f64::from(high[d]);
        let fine = |d: usize| step * f64::from(low[d]);
        let dims = || query.iter().map(|&y| f64::from(y)).enumerate();
        Some(Digits {
            high_offset: offset(&high),
            low_offset: offset(&low),
            step,
            norm,
            high_norm: norm_up((0..width).map(coarse)),
            low_norm: norm_up((0..width).map(fine)),
            high_error: norm_up(dims().map(|(d, y)| y - coarse(d))),
            error: norm_up(dims().map(|(d, y)| y - coarse(d) - fine(d))),
            high,
            low,
        })
    }
}

/// A number not less than the norm: the rounding of up to 2¹⁷ terms and of their sum (2⁻⁵² each) is far below the 2⁻³⁰ added.
fn norm_up(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt() * (1.0 + 2f64.powi(-30))
}

/// What a kernel that multiplies unsigned bytes starts from, since these are codes + 128: −128 Σ digits.
fn offset(digits: &[i8]) -> i32 {
    -128 * digits.iter().map(|&q| i32::from(q)).sum::<i32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_make_the_query_within_half_a_step(
            query in prop::collection::vec(prop_oneof![-1.0f32..1.0, -1e-6f32..1e-6, Just(0.0)], 1..70),
            size in prop_oneof![Just(1.0f32), Just(1e-12), Just(1e12)],
        ) {
            let query: Vec<f32> = query.iter().map(|y| y * size).collect();
            let norm = query.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>().sqrt();
            let Some(digits) = Digits::new(&query) else {
                prop_assert!(norm < 1e-18);
                return Ok(());
            };
            prop_assert_eq!(digits.high.len(), query.len().next_multiple_of(PAIR * GROUP));
            for (d, &y) in query.iter().enumerate() {
                let (high, low) = (f64::from(digits.high[d]), f64::from(digits.low[d]));
                prop_assert!(high.abs() <= 64.0 && low.abs() <= 64.0);
                // A millionth for the step's own rounding to f32.
                prop_assert!((f64::from(y) - digits.step * (HIGH * high + low)).abs() <= digits.step * 0.501);
            }
            prop_assert!(digits.norm >= norm && digits.error <= digits.high_error);
        }
    }

    #[test]
    fn queries_out_of_range_have_no_digits() {
        for query in [[0.0f32; 3], [1e-30; 3], [f32::MAX; 3], [f32::MIN_POSITIVE, 0.0, 1e-44]] {
            assert!(Digits::new(&query).is_none(), "{query:?}");
        }
    }
}
