//! Rows to codes, with an upper bound on what is lost.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::FACTOR_BYTES;
use super::kernel::{BLOCK, GROUP};

/// Largest code.
const CODE_MAX: f32 = 127.0;

/// Rows whose sum is formed at a time: fixed, so that the mean does not depend on the number of threads.
const MEAN_ROWS: usize = 4096;

/// Largest norms among some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Largest {
    /// ‖s·c‖.
    pub code: f32,
    /// ‖x‖.
    pub row: f32,
}

impl Largest {
    pub fn or(self, other: Largest) -> Largest {
        Largest { code: self.code.max(other.code), row: self.row.max(other.row) }
    }
}

/// Encodes the rows of a part.
pub(super) struct Encoder {
    mean: Vec<f32>,
}

impl Encoder {
    /// For `rows`, `[rows, dim]`. A mean of any value gives right bounds; the mean itself gives the tightest.
    pub fn new(rows: &[f16], dim: usize) -> Encoder {
        let sums: Vec<(Vec<f64>, u64)> = rows
            .par_chunks(MEAN_ROWS * dim)
            .map(|rows| {
                let (mut sum, mut count, mut row) = (vec![0.0; dim], 0, vec![0.0; dim]);
                for stored in rows.chunks_exact(dim) {
                    stored.convert_to_f32_slice(&mut row);
                    if row.iter().all(|x| x.is_finite()) {
                        sum.iter_mut().zip(&row).for_each(|(sum, &x)| *sum += f64::from(x));
                        count += 1;
                    }
                }
                (sum, count)
            })
            .collect();
        let count: u64 = sums.iter().map(|(_, count)| count).sum();
        let of = |d: usize| {
            let sum: f64 = sums.iter().map(|(sum, _)| sum[d]).sum();
            (sum / count.max(1) as f64) as f32
        };
        Encoder { mean: (0..dim).map(of).collect() }
    }

    /// The mean of the finite rows, `[dim]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Encodes up to [`BLOCK`] rows as a block.
    pub fn block(&self, rows: &[f16], block: &mut [u8]) -> Largest {
        let dim = self.mean.len();
        let (factors, codes) = block.split_at_mut(FACTOR_BYTES);
        codes.fill(128);
        factors.fill(0);
        let (scales, errors) = factors.split_at_mut(FACTOR_BYTES / 2);
        let (mut largest, mut values) = (Largest::default(), vec![0.0; dim]);
        for (r, row) in rows.chunks_exact(dim).enumerate() {
            row.convert_to_f32_slice(&mut values);
            let (scale, error) = match self.row(&values, |d, code| {
                codes[(d / GROUP * BLOCK + r) * GROUP + d % GROUP] = (code + 128) as u8;
            }) {
                Some(row) => {
                    largest = largest.or(row.norms);
                    (row.scale, row.error)
                }
                None => (0.0, f32::INFINITY),
            };
            scales[4 * r..][..4].copy_from_slice(&scale.to_le_bytes());
            errors[4 * r..][..4].copy_from_slice(&error.to_le_bytes());
        }
        largest
    }

    /// Encodes a row, giving each dimension's code to `put`. `None` if it has a NaN or an infinity.
    fn row(&self, row: &[f32], mut put: impl FnMut(usize, i16)) -> Option<Encoded> {
        if !row.iter().all(|x| x.is_finite()) {
            return None;
        }
        let distances = row.iter().zip(&self.mean).map(|(x, mean)| (x - mean).abs());
        let scale = distances.fold(0.0f32, f32::max) / CODE_MAX;
        // Of a subnormal scale the inverse could be infinite; such a row is its mean for all that matters.
        let scale = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        // What is stored is a whole number and the error of that number, so that rounding may go as it likes here.
        let (mut lost, mut code_norm, mut norm) = (0.0f64, 0.0f64, 0.0f64);
        for (d, (&x, &mean)) in row.iter().zip(&self.mean).enumerate() {
            // Adding and taking away 1.5 · 2²³ rounds to a whole number, and unlike `round` is one instruction each everywhere.
            const ROUND: f32 = 12_582_912.0;
            let code = (((x - mean) * inverse).clamp(-CODE_MAX, CODE_MAX) + ROUND) - ROUND;
            put(d, code as i16);
            let coded = f64::from(scale) * f64::from(code);
            let left = f64::from(x) - f64::from(mean) - coded;
            lost += left * left;
            code_norm += coded * coded;
            norm += f64::from(x) * f64::from(x);
        }
        let norms = Largest { code: root_up(code_norm), row: root_up(norm) };
        Some(Encoded { scale, error: root_up(lost), norms })
    }
}

/// A row's factors.
struct Encoded {
    scale: f32,
    error: f32,
    norms: Largest,
}

/// A number not less than the root of a sum of squares in f64. The rounding of up to 2¹⁷ terms and of their sum (2⁻⁵² each) is
/// far below the 2⁻³⁰ added, and no square vanishes: differences of f32 values are multiples of 2⁻¹⁴⁹.
pub(in crate::search) fn root_up(sum: f64) -> f32 {
    round_up(sum.sqrt() * (1.0 + 2f64.powi(-30)))
}

/// The least f32 that is not less.
pub(in crate::search) fn round_up(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) < x { nearest.next_up() } else { nearest }
}

/// The greatest f32 that is not greater.
pub(in crate::search) fn round_down(x: f64) -> f32 {
    -round_up(-x)
}
