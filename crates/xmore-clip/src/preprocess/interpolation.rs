//! Pillow's resampling filters, and the weights that they give to input pixels.
//!
//! Reference: Pillow, `src/libImaging/Resample.c`: a filter is widened when shrinking (antialiasing), and its weights are rounded to
//! 22-bit fixed point.

use serde::Deserialize;

/// Bits of a weight's fraction: 32 minus 8 for the pixel minus 2 for overshoot.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A resampling filter.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Interpolation {
    /// Pillow's BICUBIC: Keys' cubic with a = −0.5. Most models are trained with it.
    ///
    /// open_clip's `random` is a training augmentation; it too reads images bicubically.
    #[default]
    #[serde(alias = "random")]
    Bicubic,
    /// Pillow's BILINEAR: a triangle.
    Bilinear,
}

/// The input pixels under one output position, and their weights.
pub(crate) struct Taps {
    /// The first of them.
    pub(crate) first: usize,
    /// Fixed-point numbers with 22 bits of fraction.
    pub(crate) weights: Vec<i32>,
}

impl Interpolation {
    /// How far from its middle the filter reaches, in pixels of the coarser image.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    /// The filter at `x`, as Pillow writes it.
    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bicubic => {
                const A: f64 = -0.5;
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Bilinear => (1.0 - x).max(0.0),
        }
    }

    /// `precompute_coeffs` and `normalize_coeffs_8bpc` for the output positions `start..start + count`. A length that does not change is
    /// passed through, as Pillow skips that pass.
    pub(crate) fn taps(self, input: u32, output: u32, start: u32, count: u32) -> Vec<Taps> {
        if input == output {
            let one = 1 << PRECISION_BITS;
            return (start..start + count).map(|x| Taps { first: x as usize, weights: vec![one] }).collect();
        }
        let scale = f64::from(input) / f64::from(output);
        let filter_scale = scale.max(1.0);
        let support = self.support() * filter_scale;
        let position = |x: u32| {
            let center = (f64::from(x) + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0);
            let last = ((center + support + 0.5) as i64).min(i64::from(input));
            let mut weights: Vec<f64> =
                (first..last).map(|i| self.at((i as f64 - center + 0.5) * (1.0 / filter_scale))).collect();
            let total: f64 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|w| *w /= total);
            }
            let fixed =
                |w: f64| (w * f64::from(1 << PRECISION_BITS) + if w < 0.0 { -0.5 } else { 0.5 }) as i32;
            Taps { first: first as usize, weights: weights.into_iter().map(fixed).collect() }
        };
        (start..start + count).map(position).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both filters by their definition, at any distance from the middle.
    fn definition(interpolation: Interpolation, x: f64) -> f64 {
        let x = x.abs();
        match interpolation {
            Interpolation::Bicubic if x <= 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
            Interpolation::Bicubic if x <= 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
            Interpolation::Bilinear if x <= 1.0 => 1.0 - x,
            _ => 0.0,
        }
    }

    proptest! {
        /// Every weight is the filter's value over the sum of all its values at the input's pixels, to half a unit of the fixed point and
        /// what f64 rounds; pixels beside them weigh nothing.
        #[test]
        fn weights_are_the_filters_values(
            input in 1u32..3000, output in 1u32..600, at in any::<prop::sample::Index>(), bilinear in any::<bool>(),
        ) {
            let interpolation = if bilinear { Interpolation::Bilinear } else { Interpolation::Bicubic };
            let x = at.index(output as usize) as u32;
            let [taps] = interpolation.taps(input, output, x, 1).try_into().ok().unwrap();
            let scale = f64::from(input) / f64::from(output);
            let center = (f64::from(x) + 0.5) * scale;
            let value = |i: usize| definition(interpolation, (i as f64 + 0.5 - center) / scale.max(1.0));
            let total: f64 = (0..input as usize).map(value).sum();
            prop_assert!(taps.first + taps.weights.len() <= input as usize);
            for i in 0..input as usize {
                let found = i.checked_sub(taps.first).and_then(|i| taps.weights.get(i)).map_or(0, |&w| w);
                let expected = value(i) / total * f64::from(1 << PRECISION_BITS);
                prop_assert!((f64::from(found) - expected).abs() <= 0.5 + 1e-6, "{i}: {found}, {expected}");
            }
        }
    }
}
