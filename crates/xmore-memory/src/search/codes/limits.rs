//! What a part's factors can be at all: ranges that follow from how rows are encoded, whatever the rows are.
//!
//! With R the largest norm of a row and μ the mean: ‖μ‖ ≤ R, since μ is a mean of vectors of length R at most. A row that is not
//! its mean has the scale s = max|x − μ| / 127, so its largest code is ±127 and 127 s ≤ ‖s·c‖ ≤ C, the largest of these norms. What is
//! left of a dimension is s/2 at most, but for the rounding of x − μ, 1/s and their product (four units of 2⁻²⁴ of 127 s each):
//! e ≤ 0.501 s √dim. And ‖s·c‖ ≤ ‖x − μ‖ + e ≤ (R + ‖μ‖)(1 + 0.501 √dim / 127).
//!
//! A code's high half is 8 away from it at most. So what the halves leave is e' ≤ 8.501 s √dim, and their norm is at most
//! ‖s·c‖ + 8 s √dim ≤ C (1 + 8 √dim / 127), and at least 120 s, that of the largest code.
//!
//! A row with a NaN or an infinity has s = 0 and e = e' = +∞; one that is its mean has s = 0 and nearly no error.

use super::kernel::BLOCK;
use super::quantize::Largest;
use super::{Codes, Factors};

/// Covers the rounding of norms, means and factors to f32.
const ROUNDING: f32 = 1.0 + 1e-5;

/// The ranges of one part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest scale.
    scale: f32,
    /// Largest error for each unit of scale, and largest of high halves.
    error: f32,
    half_error: f32,
    /// Largest error of a row without a scale.
    flat: f32,
}

impl Limits {
    /// For rows of `dim`, of which the codes have halves or not.
    pub fn new(largest: Largest, dim: usize, has_halves: bool) -> Limits {
        let root = (dim as f32).sqrt();
        let of_halves = if has_halves { largest.half / 120.0 } else { f32::INFINITY };
        Limits {
            scale: (largest.code / 127.0).min(of_halves) * ROUNDING,
            error: 0.501 * root * ROUNDING,
            half_error: 8.501 * root * ROUNDING,
            flat: 128.0 * f32::MIN_POSITIVE * root,
        }
    }

    /// Whether the first `rows` rows of a block have factors as rows can have, and the others those of padding.
    pub fn allow(&self, factors: Factors<'_>, rows: usize) -> bool {
        self.allow_errors(factors.scales, factors.errors, self.error, rows)
            && factors
                .half_errors
                .is_none_or(|errors| self.allow_errors(factors.scales, errors, self.half_error, rows))
    }

    /// The same for errors of which the largest for a unit of scale is given.
    fn allow_errors(&self, scales: &[f32], errors: &[f32], largest: f32, rows: usize) -> bool {
        scales.iter().zip(errors).take(BLOCK).enumerate().all(|(row, (&scale, &error))| {
            if row >= rows || scale == 0.0 {
                let flat = error >= 0.0 && error <= self.flat;
                return scale == 0.0
                    && (flat || row < rows && error == f32::INFINITY)
                    && (row < rows || error == 0.0);
            }
            // Comparisons with a NaN are false.
            scale >= f32::MIN_POSITIVE && scale <= self.scale && error >= 0.0 && error <= scale * largest
        })
    }
}

/// Whether the largest norms and the mean of a header can belong together; says what cannot.
pub(super) fn check_header(codes: &Codes) -> Result<(), String> {
    let Largest { code, half, row } = codes.largest;
    let sound = |x: f32| x.is_finite() && x >= 0.0;
    if !sound(code) || !sound(half) || !sound(row) || !codes.mean().iter().all(|x| x.is_finite()) {
        return Err("a mean or norms that are not finite".to_owned());
    }
    let (row, code, half) = (f64::from(row), f64::from(code), f64::from(half));
    let root = (codes.dim() as f64).sqrt();
    let mean = codes.mean().iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let rounding = f64::from(ROUNDING);
    if mean > row * rounding {
        return Err(format!("a mean of length {mean:.4} of rows of at most {row:.4}"));
    }
    let most = (row + mean) * (1.0 + 0.501 * root / 127.0) * rounding;
    if code > most {
        return Err(format!("codes of length {code:.4} of rows of at most {row:.4}"));
    }
    if half > code * (1.0 + 8.0 * root / 127.0) * rounding {
        return Err(format!("halves of length {half:.4} of codes of at most {code:.4}"));
    }
    Ok(())
}
