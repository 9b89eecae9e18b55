//! Activation functions, in place.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdUnaryOp};
use rten_vecmath::Gelu;

/// An element-wise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// min(max(x, 0), 6), of MobileNet and EfficientNet-Lite.
    Relu6,
    /// x Φ(x), with the error function rather than the tanh approximation.
    Gelu,
}

impl Activation {
    /// Applies the activation to each element.
    pub(crate) fn apply(self, x: &mut [f32]) {
        match self {
            Activation::Relu6 => Relu6.map_mut(x),
            Activation::Gelu => Gelu {}.map_mut(x),
        }
    }
}

struct Relu6;

impl SimdUnaryOp<f32> for Relu6 {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.min(ops.max(x, ops.zero()), ops.splat(6.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relu6_clamps_every_lane() {
        let mut x: Vec<f32> = (-20..20).map(|i| i as f32 * 0.5).collect();
        let expected: Vec<f32> = x.iter().map(|v| v.clamp(0.0, 6.0)).collect();
        Activation::Relu6.apply(&mut x);
        assert_eq!(x, expected);
    }

    #[test]
    fn gelu_matches_known_values() {
        // x Φ(x) from tables of the normal distribution: Φ(1) = .8413447461, Φ(2) = .9772498681.
        let mut x = [0.0, 1.0, -1.0, 2.0, 10.0, -10.0];
        Activation::Gelu.apply(&mut x);
        for (found, expected) in x.iter().zip([0.0, 0.841_344_8, -0.158_655_25, 1.954_499_7, 10.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
