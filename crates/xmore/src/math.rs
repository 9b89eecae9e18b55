//! The few sums that the method is made of, each in one fixed order.

use std::ops::{AddAssign, Mul};

/// Inner product of two vectors of one length, in 16 interleaved sums: fast, and the same bits wherever it is computed.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    interleaved_dot::<f32, 16>(a, b)
}

/// The same in f64, in eight sums.
pub fn dot_wide(a: &[f64], b: &[f64]) -> f64 {
    interleaved_dot::<f64, 8>(a, b)
}

/// LANES, a power of two, interleaved sums, which are then added in pairs.
fn interleaved_dot<T, const LANES: usize>(a: &[T], b: &[T]) -> T
where
    T: Copy + Default + AddAssign + Mul<Output = T>,
{
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut sums = [T::default(); LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[i] += a * b;
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            let other = sums[i + width];
            sums[i] += other;
        }
    }
    sums[0]
}

/// 1 / (1 + exp(−x)).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// softmax, with the largest logit subtracted first.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = logits.iter().map(|l| (l - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}

/// Shannon entropy of a distribution, natural logarithm.
pub fn entropy(p: &[f64]) -> f64 {
    -p.iter().filter(|&&p| p > 0.0).map(|&p| p * p.ln()).sum::<f64>()
}

/// 1 − H(p) / ln C: 0 for the uniform distribution, 1 for certainty (METHOD: confidence of a modality).
pub fn confidence(p: &[f64]) -> f64 {
    // Rounding can take the quotient of a uniform distribution past 1.
    (1.0 - entropy(p) / (p.len() as f64).ln()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        let p = softmax(&[0.0, 3f64.ln()]);
        assert!((p[0] - 0.25).abs() < 1e-15 && (p[1] - 0.75).abs() < 1e-15);
        assert!((entropy(&[0.5, 0.5]) - 2f64.ln()).abs() < 1e-15);
        assert_eq!(confidence(&[1.0, 0.0, 0.0]), 1.0);
        assert!(confidence(&[0.25; 4]).abs() < 1e-15);
        // H(.25, .75) = .5623351446188083
        assert!((confidence(&p) - (1.0 - 0.562_335_144_618_808_3 / 2f64.ln())).abs() < 1e-14);
    }

    proptest! {
        /// |error| ≤ γ_n Σ|a||b| with γ_n = n u / (1 − n u), u = 2⁻²⁴ (Higham, 3.1), for any order of summation.
        #[test]
        fn dot_is_within_the_rounding_bound(v in proptest::collection::vec((-1f32..1.0, -1f32..1.0), 0..700)) {
            let (a, b): (Vec<f32>, Vec<f32>) = v.into_iter().unzip();
            let products = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let (sum, abs) = products.fold((0.0, 0.0), |(s, t), p| (s + p, t + p.abs()));
            let n = a.len() as f64 * (-24f64).exp2();
            prop_assert!((f64::from(dot(&a, &b)) - sum).abs() <= n / (1.0 - n) * abs);
        }

        /// The same bound with u = 2⁻⁵³.
        #[test]
        fn dot_wide_is_within_the_rounding_bound(v in proptest::collection::vec((-1000i32..1000, -1000i32..1000), 0..200)) {
            let (a, b): (Vec<f64>, Vec<f64>) = v.iter().map(|&(a, b)| (f64::from(a) / 7.0, f64::from(b) / 7.0)).unzip();
            let exact: i64 = v.iter().map(|&(a, b)| i64::from(a) * i64::from(b)).sum();
            let abs: i64 = v.iter().map(|&(a, b)| (i64::from(a) * i64::from(b)).abs()).sum();
            // Three roundings more: those of a, b and the exact sum's quotient.
            let n = (v.len() as f64 + 4.0) * (-53f64).exp2();
            prop_assert!((dot_wide(&a, &b) - exact as f64 / 49.0).abs() <= n / (1.0 - n) * abs as f64 / 49.0);
        }

        #[test]
        fn softmax_is_a_distribution(logits in proptest::collection::vec(-500f64..500.0, 2..50)) {
            let p = softmax(&logits);
            prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!((0.0..=1.0).contains(&confidence(&p)));
        }
    }
}
