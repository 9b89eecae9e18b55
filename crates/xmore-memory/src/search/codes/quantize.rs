//! Rows to codes, with an upper bound on what is lost.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Layout;
use super::kernel::{BLOCK, GROUP, MIDDLE, PAIR};

/// Largest code.
const CODE_MAX: f32 = 127.0;

/// Rows whose sum is formed at a time: fixed, so that the mean does not depend on the number of threads.
const MEAN_ROWS: usize = 4096;

/// Largest norms among some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Largest {
    /// ‖s·c‖.
    pub code: f32,
    /// ‖s·h‖, h being the codes' high halves with the middle of the low ones; 0 of files without halves.
    pub half: f32,
    /// ‖x‖.
    pub row: f32,
}

impl Largest {
    pub fn or(self, other: Largest) -> Largest {
        Largest {
            code: self.code.max(other.code),
            half: self.half.max(other.half),
            row: self.row.max(other.row),
        }
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

    /// Encodes up to [`BLOCK`] rows as a block, of which the high and the low part are given.
    pub fn block(&self, rows: &[f16], high: &mut [u8], low: &mut [u8]) -> Largest {
        let dim = self.mean.len();
        let (high_factors, high) = high.split_at_mut(Layout::HIGH_FACTORS);
        let (errors, low) = low.split_at_mut(Layout::LOW_FACTORS);
        let (scales, half_errors) = high_factors.split_at_mut(Layout::HIGH_FACTORS / 2);
        [&mut *scales, &mut *half_errors, &mut *errors, &mut *low]
            .into_iter()
            .for_each(|bytes| bytes.fill(0));
        // Code 0, which is 128, in both halves of a byte.
        high.fill(0x88);
        let (mut largest, mut values) = (Largest::default(), vec![0.0; dim]);
        for (r, row) in rows.chunks_exact(dim).enumerate() {
            row.convert_to_f32_slice(&mut values);
            let put = |d: usize, code: i16| {
                let byte = (code + 128) as u8;
                let at = (d / (PAIR * GROUP) * BLOCK + r) * GROUP + d % GROUP;
                let shift = d / GROUP % PAIR * 4;
                high[at] = high[at] & !(15 << shift) | (byte >> 4) << shift;
                low[at] |= (byte & 15) << shift;
            };
            let row = self.row(&values, put).unwrap_or(Encoded::UNBOUNDED);
            largest = largest.or(row.norms);
            for (to, factor) in
                [(&mut *scales, row.scale), (&mut *half_errors, row.half_error), (&mut *errors, row.error)]
            {
                to[4 * r..][..4].copy_from_slice(&factor.to_le_bytes());
            }
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
        let (mut lost, mut half_lost) = (0.0f64, 0.0f64);
        let (mut code_norm, mut half_norm, mut norm) = (0.0f64, 0.0f64, 0.0f64);
        for (d, (&x, &mean)) in row.iter().zip(&self.mean).enumerate() {
            // Adding and taking away 1.5 · 2²³ rounds to a whole number, and unlike `round` is one instruction each everywhere.
            const ROUND: f32 = 12_582_912.0;
            let code = (((x - mean) * inverse).clamp(-CODE_MAX, CODE_MAX) + ROUND) - ROUND;
            let code = code as i16;
            put(d, code);
            let coded = f64::from(scale) * f64::from(code);
            let half = f64::from(scale) * f64::from(half_of(code));
            let distance = f64::from(x) - f64::from(mean);
            let (left, half_left) = (distance - coded, distance - half);
            lost += left * left;
            half_lost += half_left * half_left;
            code_norm += coded * coded;
            half_norm += half * half;
            norm += f64::from(x) * f64::from(x);
        }
        let norms = Largest { code: root_up(code_norm), half: root_up(half_norm), row: root_up(norm) };
        Some(Encoded { scale, error: root_up(lost), half_error: root_up(half_lost), norms })
    }
}

/// A code with the middle of what its low half can be.
fn half_of(code: i16) -> i16 {
    ((code + 128) & 0xf0 | i16::from(MIDDLE)) - 128
}

/// A row's factors.
struct Encoded {
    scale: f32,
    error: f32,
    /// What the high halves alone leave.
    half_error: f32,
    norms: Largest,
}

impl Encoded {
    /// Those of a row that no bound can exclude.
    const UNBOUNDED: Encoded = Encoded {
        scale: 0.0,
        error: f32::INFINITY,
        half_error: f32::INFINITY,
        norms: Largest { code: 0.0, half: 0.0, row: 0.0 },
    };
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
