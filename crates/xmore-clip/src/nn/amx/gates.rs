//! Activations of values that are rounded to bf16 next, by AVX-512: max(x, 0) − |x| q(|x|), with q by cubic pieces.
//!
//! GELU and its approximations are x s(x) with s(−x) = 1 − s(x), so that q(a) = 1 − s(a) for a ≥ 0 says all of them. It is smooth and falls to
//! nothing: 32 cubics are off by less than 4·10⁻⁶ of |x| or of 1, where rounding to bf16 changes an x by up to 2⁻⁸ of it. An exponential and a
//! division take twice as long.

use std::arch::x86_64::*;
use std::f64::consts::{PI, SQRT_2};
use std::sync::OnceLock;

use crate::nn::activation::Activation;

/// Pieces: what two vectors hold.
const PIECES: usize = 32;
/// Where the last piece ends, a little below half a piece behind its middle, which is a whole number as those of all are.
const LAST: f32 = 31.499_9;
/// Added to a number from 0 to [`LAST`], this rounds it to a whole one, which is the sum's last bits.
const ROUNDING: f32 = (3 << 22) as f32;

/// The pieces of q for one activation.
pub(super) struct Gate {
    /// Pieces for each 1 of |x|.
    scale: f32,
    /// |x| where the last piece ends.
    end: f32,
    /// Of the powers 0 to 3 of |x|.
    coefficients: [[f32; PIECES]; 4],
}

impl Gate {
    /// The pieces of an activation that has such a form.
    pub(super) fn of(activation: Activation) -> Option<&'static Self> {
        static GELU: OnceLock<Gate> = OnceLock::new();
        static QUICK_GELU: OnceLock<Gate> = OnceLock::new();
        static GELU_TANH: OnceLock<Gate> = OnceLock::new();
        // Behind the last piece |x| q(|x|) is less than 1.1·10⁻⁵; it is taken as what it is there.
        match activation {
            Activation::Relu | Activation::Relu6 => None,
            Activation::Gelu => Some(GELU.get_or_init(|| Self::new(6.0, upper_tail))),
            Activation::QuickGelu => {
                Some(QUICK_GELU.get_or_init(|| Self::new(8.0, |a| 1.0 / (1.0 + (1.702 * a).exp()))))
            }
            Activation::GeluTanh => Some(GELU_TANH.get_or_init(|| {
                Self::new(6.0, |a| 0.5 - 0.5 * ((2.0 / PI).sqrt() * (a + 0.044715 * a.powi(3))).tanh())
            })),
        }
    }

    /// From q, which is nothing from `end` on.
    fn new(end: f64, q: impl Fn(f64) -> f64) -> Self {
        let mut coefficients = [[0.0; PIECES]; 4];
        for piece in 0..PIECES {
            let bound = |side: f64| (piece as f64 + side) * end / f64::from(LAST);
            for (k, value) in cubic(&q, bound(-0.5), bound(0.5)).into_iter().enumerate() {
                coefficients[k][piece] = value as f32;
            }
        }
        Self { scale: (f64::from(LAST) / end) as f32, end: end as f32, coefficients }
    }

    /// The coefficients in registers.
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(&self) -> LoadedGate {
        let mut coefficients = [[_mm512_setzero_ps(); 2]; 4];
        for (to, from) in coefficients.iter_mut().zip(&self.coefficients) {
            // SAFETY: there are 32.
            #[allow(unsafe_code)]
            unsafe {
                *to = [_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from.as_ptr().add(16))];
            }
        }
        LoadedGate { scale: _mm512_set1_ps(self.scale), end: _mm512_set1_ps(self.end), coefficients }
    }

    /// One value by plain operations.
    #[cfg(test)]
    pub(super) fn plain(&self, x: f32) -> f32 {
        let size = x.abs().min(self.end);
        let piece = size.mul_add(self.scale, ROUNDING).to_bits() as usize % PIECES;
        let [c0, c1, c2, c3] = self.coefficients.map(|of_power| of_power[piece]);
        let q = c3.mul_add(size, c2).mul_add(size, c1).mul_add(size, c0);
        (-size).mul_add(q, x.max(0.0))
    }
}

/// A gate in registers.
#[derive(Clone, Copy)]
pub(super) struct LoadedGate {
    scale: __m512,
    end: __m512,
    coefficients: [[__m512; 2]; 4],
}

impl LoadedGate {
    /// The activation of 16 values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn apply(&self, x: __m512) -> __m512 {
        let size = _mm512_min_ps(_mm512_abs_ps(x), self.end);
        // Of an index the last five bits count.
        let piece = _mm512_castps_si512(_mm512_fmadd_ps(size, self.scale, _mm512_set1_ps(ROUNDING)));
        let [c0, c1, c2, c3] = &self.coefficients;
        let mut q = _mm512_permutex2var_ps(c3[0], piece, c3[1]);
        q = _mm512_fmadd_ps(q, size, _mm512_permutex2var_ps(c2[0], piece, c2[1]));
        q = _mm512_fmadd_ps(q, size, _mm512_permutex2var_ps(c1[0], piece, c1[1]));
        q = _mm512_fmadd_ps(q, size, _mm512_permutex2var_ps(c0[0], piece, c0[1]));
        // In this order the maximum of what is no number is x.
        _mm512_fnmadd_ps(size, q, _mm512_max_ps(_mm512_setzero_ps(), x))
    }
}

/// The cubic through a function's values at Chebyshev's four nodes between two places: coefficients of the powers 0 to 3.
fn cubic(f: impl Fn(f64) -> f64, from: f64, to: f64) -> [f64; 4] {
    let nodes: [f64; 4] =
        std::array::from_fn(|n| from + (to - from) * (0.5 - 0.5 * ((2 * n + 1) as f64 * PI / 8.0).cos()));
    let mut differences = nodes.map(f);
    for order in 1..4 {
        for n in (order..4).rev() {
            differences[n] = (differences[n] - differences[n - 1]) / (nodes[n] - nodes[n - order]);
        }
    }
    // Newton's form, from the innermost bracket on.
    let mut powers = [0.0; 4];
    for n in (0..4).rev() {
        for k in (1..4).rev() {
            powers[k] = powers[k - 1] - nodes[n] * powers[k];
        }
        powers[0] = differences[n] - nodes[n] * powers[0];
    }
    powers
}

/// 1 − Φ(a) of the normal distribution for a ≥ 0, by Simpson's rule up to where nothing is left.
fn upper_tail(a: f64) -> f64 {
    const PARTS: usize = 400;
    let step = 9.0 / PARTS as f64;
    let sum: f64 = (0..=PARTS)
        .map(|n| {
            let weight = match n {
                0 | PARTS => 1.0,
                n if n % 2 == 1 => 4.0,
                _ => 2.0,
            };
            let x = (a + n as f64 * step) / SQRT_2;
            weight * (-x * x).exp()
        })
        .sum();
    sum * step / 3.0 / (2.0 * PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATED: [Activation; 3] = [Activation::Gelu, Activation::QuickGelu, Activation::GeluTanh];

    fn in_f64(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Gelu if x < 0.0 => x * upper_tail(-x),
            Activation::Gelu => x * (1.0 - upper_tail(x)),
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
            Activation::Relu | Activation::Relu6 => unreachable!("they have no gate"),
        }
    }

    #[test]
    fn pieces_match_f64_far_out_too() {
        for activation in GATED {
            let gate = Gate::of(activation).unwrap();
            for n in -40_000..40_000 {
                let x = n as f32 * 0.000_321;
                let (found, want) = (f64::from(gate.plain(x)), in_f64(activation, f64::from(x)));
                // The second is what is left behind the last piece, and rounding of large sums.
                let bound = if x.abs() < 6.0 { 4e-6 * f64::from(x.abs()).min(1.0) + 1e-30 } else { 1.2e-5 };
                assert!((found - want).abs() <= bound, "{activation:?} of {x}: {found}, not {want}");
            }
            assert_eq!(gate.plain(0.0), 0.0);
            assert_eq!(gate.plain(f32::INFINITY), f32::INFINITY);
        }
    }

    #[test]
    fn vectors_have_the_bits_of_plain_operations() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        #[target_feature(enable = "avx512f")]
        fn apply(gate: &Gate, x: &mut [f32; 16]) {
            // SAFETY: there are 16.
            #[allow(unsafe_code)]
            unsafe {
                _mm512_storeu_ps(x.as_mut_ptr(), gate.load().apply(_mm512_loadu_ps(x.as_ptr())));
            }
        }
        for activation in GATED {
            let gate = Gate::of(activation).unwrap();
            for n in -1000..1000 {
                let x: [f32; 16] = std::array::from_fn(|lane| n as f32 * 0.011 + lane as f32 * 0.0007);
                let mut found = x;
                // SAFETY: there is AVX-512.
                #[allow(unsafe_code)]
                unsafe {
                    apply(gate, &mut found);
                }
                assert_eq!(found.map(f32::to_bits), x.map(|x| gate.plain(x).to_bits()), "{activation:?}");
            }
            let mut special = [f32::NAN; 16];
            special[0] = f32::NEG_INFINITY;
            special[1] = f32::INFINITY;
            // SAFETY: there is AVX-512.
            #[allow(unsafe_code)]
            unsafe {
                apply(gate, &mut special);
            }
            assert!(special[0].abs() < 2e-5 && special[1] == f32::INFINITY && special[2].is_nan());
        }
    }
}
