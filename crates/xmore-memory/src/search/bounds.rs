//! Bounds of a row's exact score from its codes.
//!
//! Let x be a stored row, x = μ + s c + r with ‖r‖ ≤ e, and y a query, ŷ its digits' value. Then in real numbers
//!
//! ```text
//! x·y = μ·y + s c·ŷ + s c·(y − ŷ) + r·y,   |s c·(y − ŷ)| ≤ C ‖y − ŷ‖,   |r·y| ≤ e ‖y‖,
//! ```
//! C being the part's largest ‖s c‖. What a search compares is not x·y but its f32 sum f in the order of `dot`, where a product
//! goes through at most k + 5 roundings, k = ⌈dim / 16⌉, and Σ|xᵢyᵢ| ≤ ‖x‖ ‖y‖ ≤ X ‖y‖ for the part's largest norm X:
//!
//! ```text
//! |f − x·y| ≤ γ(k + 5) X ‖y‖ + dim · 2⁻¹²⁶,   γ(m) = m u / (1 − m u),   u = 2⁻²⁴
//! ```
//! (see the tests there). Together, with d = c·q for whole numbers q, |f − (μ·y + s·step·d)| ≤ e ‖y‖ + slack. The same holds
//! for the high digits alone, with their own ŷ, and for the codes' high halves alone: x = μ + s h + r', ‖r'‖ ≤ e', with the largest
//! ‖s h‖ as C.
//!
//! A tile tests the high digits in f32: fl(s·fl(d·factor)) + fl(e·norm + base) ≥ floor. d becomes f32 with one rounding, two
//! products and the sum with one each: 4 on s·factor·d, of which the size is at most C ‖64 step·high‖; 2 on base; 3 on e·norm,
//! which `norm`, greater than ‖y‖ by 2⁻²⁰, covers. Whether products are fused with sums only takes roundings away. γ(8) covers
//! what is counted here, and base is rounded up, so the test never misses a row whose f reaches the floor.
//!
//! The bounds of what passes are computed in f64, where d·step is exact to 2⁻⁵²; 2⁻⁴⁰ of all magnitudes covers the rest, and
//! they are rounded outwards to f32.

use super::codes::Codes;
use super::codes::kernel::Test;
use super::codes::quantize::{round_down, round_up};
use super::digits::{Digits, HIGH};

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Lanes of `dot`'s order of summation.
pub(super) const LANES: usize = 16;

/// γ(m) of Higham, Accuracy and Stability of Numerical Algorithms, §3.1.
pub(super) fn gamma(m: usize) -> f64 {
    let mu = m as f64 * U;
    mu / (1.0 - mu)
}

/// The bounds of one query with the rows of one part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The test of the high digits; its floor is the caller's.
    pub test: Test,
    /// The same with the codes' high halves alone.
    pub test_of_halves: Test,
    step: f64,
    /// μ·y.
    centre: f64,
    norm: f64,
    slack: f64,
}

impl Bounds {
    /// For a query, `[dim]`, and a part.
    pub fn new(query: &[f32], digits: &Digits, codes: &Codes) -> Bounds {
        let (code, row) = (f64::from(codes.largest_code()), f64::from(codes.largest_row()));
        let terms = codes.mean().iter().zip(query).map(|(m, y)| f64::from(*m) * f64::from(*y));
        let (centre, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
        let dim = query.len();
        // The exact score's own rounding, and that of μ·y in f64; the smallest normal number for each of what underflows.
        let exact = gamma(dim.div_ceil(LANES) + 5) * row * digits.norm
            + (dim + 64) as f64 * f64::from(f32::MIN_POSITIVE)
            + dim as f64 * f64::EPSILON * size;
        let sums = |code: f64| code * (digits.high_norm + digits.low_norm) + centre.abs();
        let test = |code: f64| {
            let slack = (code * digits.high_error + exact + gamma(8) * sums(code)) * (1.0 + 2f64.powi(-20));
            Test {
                factor: (HIGH * digits.step) as f32,
                norm: round_up(digits.norm * (1.0 + 2f64.powi(-20))),
                base: round_up(centre + slack),
                floor: f32::NEG_INFINITY,
            }
        };
        Bounds {
            test: test(code),
            test_of_halves: test(f64::from(codes.largest_half())),
            step: digits.step,
            centre,
            norm: digits.norm * (1.0 + 2f64.powi(-20)),
            slack: (code * digits.error + exact + 2f64.powi(-40) * sums(code)) * (1.0 + 2f64.powi(-20)),
        }
    }

    /// What a row's exact score is at least and at most: `(lower, upper)`, from the sums of both digits. Never NaN.
    #[inline]
    pub fn of(&self, high: i32, low: i32, scale: f32, error: f32) -> (f32, f32) {
        let sum = f64::from(high) * HIGH + f64::from(low);
        let value = self.centre + f64::from(scale) * (self.step * sum);
        let radius = f64::from(error) * self.norm + self.slack;
        if !(value.is_finite() && radius.is_finite()) {
            return (f32::NEG_INFINITY, f32::INFINITY);
        }
        (round_down(value - radius), round_up(value + radius))
    }
}
