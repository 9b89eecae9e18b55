//! How far a score of the card can be from the exact one.
//!
//! Let x be a stored row of at most X in norm, y a query and ŷ what the card multiplies by: y itself, or y rounded to f16. The card's
//! score s is x·ŷ but for its summation, the exact search's score f is x·y but for its own (`bounds` has γ and the derivation):
//!
//! ```text
//! |s − f| ≤ X ‖y − ŷ‖ + η X ‖ŷ‖ + γ(k + 5) X ‖y‖ + dim · 2⁻¹²⁵,   k = ⌈dim / 16⌉
//! ```
//! η is of the card's summation, with Σ|xᵢŷᵢ| ≤ X ‖ŷ‖:
//!
//! - [`Arithmetic::F32`]: a thread adds width / 8 products by fused multiply-add, and 8 threads' sums are added as a tree: γ(width / 8 + 3).
//! - [`Arithmetic::TensorCore`]: products of f16 are exact, and 16 of them at a time are added to the sum. NVIDIA does not document how;
//!   measurements (Fasi, Higham, Mikaitis, Pranesh: Numerical behavior of NVIDIA tensor cores, 2021) find that addends are cut to the
//!   place of the largest one's last bit, with a bit or two more. Here a step may lose 24 times 2⁻²² of the largest addend or sum: twice
//!   the unit of the last place for each of 16 products, the sum and its rounding, and for partial sums of groups of 4. A score outside
//!   the bound is noticed when its row is scored exactly, and the query is then answered without the card.

use half::f16;

use crate::search::bounds::{LANES, gamma};
use crate::search::codes::quantize::round_up;

/// How the card sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// f32 queries, fused multiply-add.
    F32,
    /// Queries rounded to f16, tensor cores.
    TensorCore,
}

/// What a step of 16 products may lose, in parts of the largest addend or sum.
const TENSOR_STEP: f64 = 24.0 / (1 << 22) as f64;

impl Arithmetic {
    /// η, for rows that are stored `width` elements long.
    fn loss(self, width: usize) -> f64 {
        match self {
            Self::F32 => gamma(width / 8 + 3),
            Self::TensorCore => {
                let steps = width.div_ceil(16) as f64 * TENSOR_STEP;
                steps / (1.0 - steps)
            }
        }
    }
}

/// At most what |s − f| is, for the rows of a set, of which none has a larger norm than `largest_row` and each is stored `width` elements
/// long. `None` if nothing bounds it: the query is beyond the range of f16, or rows or query are too large.
pub(super) fn largest_error(
    query: &[f32],
    arithmetic: Arithmetic,
    width: usize,
    largest_row: f64,
) -> Option<f32> {
    let (mut norm, mut used, mut difference) = (0.0, 0.0, 0.0);
    for &value in query {
        let exact = f64::from(value);
        let multiplied = match arithmetic {
            Arithmetic::F32 => exact,
            Arithmetic::TensorCore => f16::from_f32(value).to_f64(),
        };
        norm += exact * exact;
        used += multiplied * multiplied;
        difference += (exact - multiplied) * (exact - multiplied);
    }
    let (norm, used, difference) = (f64::sqrt(norm), f64::sqrt(used), f64::sqrt(difference));
    let dim = query.len();
    let relative = difference + arithmetic.loss(width) * used + gamma(dim.div_ceil(LANES) + 5) * norm;
    let error = largest_row * relative + (dim + 64) as f64 * 2.0 * f64::from(f32::MIN_POSITIVE);
    // The sums above are of nonnegative f64, wrong by less than 2⁻²⁰ of them.
    let error = round_up(error * (1.0 + 2f64.powi(-20)));
    // Sums and the margin of twice the error must not overflow either.
    let largest_score = largest_row * norm.max(used);
    (error.is_finite() && largest_score + 4.0 * f64::from(error) < 1e38).then_some(error)
}

/// How far below the n-th best score of the card a row may be that is among the n best: n rows have exact scores of at least that score less
/// the error, and a row's exact score is at most its score of the card and the error.
pub(super) fn margin(error: f32) -> f32 {
    round_up(2.0 * f64::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::dot::{DotProducts, pad_rows, padded};
    use proptest::prelude::*;
    use rten_simd::SimdOp;

    /// The sum of `scan_few`: element i is added by thread i / 8 % 8, in order.
    fn card_f32(row: &[f16], query: &[f32]) -> f32 {
        let mut parts = [0.0f32; 8];
        for (i, (x, y)) in row.iter().zip(query).enumerate() {
            let part = &mut parts[i / 8 % 8];
            *part = x.to_f32().mul_add(*y, *part);
        }
        let pairs: [f32; 4] = std::array::from_fn(|i| parts[2 * i] + parts[2 * i + 1]);
        (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
    }

    /// As bad as a tensor core is thought to be: each addend of a step is cut, towards zero, to 23 places below the largest.
    fn card_tensor(row: &[f16], query: &[f32]) -> f32 {
        let mut sum = 0.0f64;
        for (row, query) in row.chunks(16).zip(query.chunks(16)) {
            let products = row.iter().zip(query).map(|(x, y)| x.to_f64() * f16::from_f32(*y).to_f64());
            let addends: Vec<f64> = products.chain([sum]).collect();
            let largest = addends.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
            if largest > 0.0 {
                let unit = 2f64.powi(largest.log2().floor() as i32 - 23);
                sum = addends.iter().map(|a| (a / unit).trunc() * unit).sum();
                sum = f64::from(sum as f32);
            }
        }
        sum as f32
    }

    fn exact(row: &[f16], query: &[f32]) -> f32 {
        let (mut scratch, mut out) = (vec![0.0; padded(query.len())], [0.0]);
        let (dim, padded) = (query.len(), pad_rows(query, query.len()));
        DotProducts { rows: row, dim, queries: &padded, scratch: &mut scratch, out: &mut out }.dispatch();
        out[0]
    }

    fn vectors() -> impl Strategy<Value = (Vec<f16>, Vec<f32>)> {
        let sizes = prop_oneof![Just(1.0f32), Just(1e-3), Just(300.0), Just(1e-7)];
        (1usize..200, sizes.clone(), sizes).prop_flat_map(|(dim, row, query)| {
            (
                prop::collection::vec((-1.0f32..1.0).prop_map(move |x| f16::from_f32(x * row)), dim),
                prop::collection::vec((-1.0f32..1.0).prop_map(move |x| x * query), dim),
            )
        })
    }

    proptest! {
        #[test]
        fn scores_of_either_arithmetic_are_within_the_bound((row, query) in vectors()) {
            let width = row.len().next_multiple_of(64);
            let norm = row.iter().map(|x| x.to_f64().powi(2)).sum::<f64>().sqrt();
            let truth: f64 = row.iter().zip(&query).map(|(x, y)| x.to_f64() * f64::from(*y)).sum();
            let exact = exact(&row, &query);
            for (arithmetic, score) in [
                (Arithmetic::F32, card_f32(&row, &query)),
                (Arithmetic::TensorCore, card_tensor(&row, &query)),
            ] {
                let error = f64::from(largest_error(&query, arithmetic, width, norm).unwrap());
                prop_assert!((f64::from(score) - f64::from(exact)).abs() <= error, "{arithmetic:?}: {score} {exact}");
                prop_assert!((f64::from(score) - truth).abs() <= error, "{arithmetic:?}: {score} {truth}");
            }
        }

        /// Whatever the errors are within the bound, rows of the n best stay above the cut.
        #[test]
        fn a_row_of_the_n_best_is_never_below_the_cut(
            rows in prop::collection::vec((-1.0f32..1.0, -1.0f64..=1.0), 1..200), n in 1usize..20, error in 0.0f32..0.2,
        ) {
            let n = n.min(rows.len());
            let card: Vec<f64> = rows.iter().map(|(f, e)| f64::from(*f) + e * f64::from(error)).collect();
            let mut sorted = card.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let cut = sorted[n - 1] - f64::from(margin(error));
            let mut best: Vec<usize> = (0..rows.len()).collect();
            best.sort_by(|&a, &b| rows[b].0.total_cmp(&rows[a].0));
            prop_assert!(best.iter().take(n).all(|&i| card[i] >= cut - 1e-15));
        }
    }

    #[test]
    fn unit_vectors_are_bounded_tightly_and_what_f16_cannot_hold_not_at_all() {
        let query = vec![(1.0f32 / 512.0).sqrt(); 512];
        let error = |query: &[f32], arithmetic| largest_error(query, arithmetic, 512, 1.0);
        assert!(error(&query, Arithmetic::F32).unwrap() < 1e-5);
        assert!(error(&query, Arithmetic::TensorCore).unwrap() < 7e-4);
        assert_eq!(error(&[1e5; 512], Arithmetic::TensorCore), None);
        assert!(error(&[1e5; 512], Arithmetic::F32).is_some());
        assert_eq!(error(&[f32::MAX; 512], Arithmetic::F32), None);
        assert_eq!(largest_error(&query, Arithmetic::F32, 512, f64::INFINITY), None);
    }
}
