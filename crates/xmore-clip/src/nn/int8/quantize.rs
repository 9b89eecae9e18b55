//! From 32-bit floats to unsigned bytes.
//!
//! As rten-vecmath's `Quantize`, whose closures over arrays of vectors are at times not inlined, and then call each instruction: a product took half as long again.

use rten_simd::ops::{BitOps, FloatOps, NarrowSaturate, NumOps};
use rten_simd::{Isa, SimdOp};

/// bytes = saturate(round(x · inverse) + zero), to nearest even.
pub(super) struct Quantize<'a> {
    pub(super) x: &'a [f32],
    pub(super) inverse: f32,
    /// A byte.
    pub(super) zero: i32,
    /// As long as `x`.
    pub(super) bytes: &'a mut [u8],
}

impl SimdOp for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { x, inverse, zero, bytes } = self;
        assert_eq!(x.len(), bytes.len());
        let (floats, ints, lanes) = (isa.f32(), isa.i32(), isa.f32().len());
        let (factors, zeros) = (floats.splat(inverse), ints.splat(zero));
        let whole = x.len() - x.len() % (4 * lanes);
        for at in (0..whole).step_by(4 * lanes) {
            // A macro, since a closure may stay a call.
            macro_rules! rounded {
                ($n:literal) => {{
                    // SAFETY: four vectors of numbers begin at `at`.
                    #[allow(unsafe_code)]
                    let x = unsafe { floats.load_ptr(x.as_ptr().add(at + $n * lanes)) };
                    ints.add(floats.to_int_round(floats.mul(x, factors)), zeros)
                }};
            }
            let low = ints.narrow_saturate(rounded!(0), rounded!(1));
            let high = ints.narrow_saturate(rounded!(2), rounded!(3));
            let rounded = isa.i16().narrow_saturate(low, high);
            // SAFETY: as many bytes as numbers begin at `at`.
            #[allow(unsafe_code)]
            unsafe {
                isa.u8().store_ptr(rounded, bytes.as_mut_ptr().add(at));
            }
        }
        for (x, byte) in x[whole..].iter().zip(&mut bytes[whole..]) {
            *byte = ((x * inverse).round_ties_even() as i32 + zero).clamp(0, 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_plain_operations() {
        for (len, inverse, zero) in [(0, 1.0, 0), (5, 40.0, 255), (300, 97.3, 12), (64, 1e9, 128)] {
            let x: Vec<f32> = (0..len).map(|i| (i * 7919 % 1009) as f32 / 250.0 - 2.0).collect();
            let mut bytes = vec![1; len];
            Quantize { x: &x, inverse, zero, bytes: &mut bytes }.dispatch();
            let plain = |x: &f32| {
                let rounded = (f64::from(x * inverse)).round_ties_even();
                (rounded + f64::from(zero)).clamp(0.0, 255.0) as u8
            };
            // Beyond 32 bits a vector's rounding has the least number: quantized rows never get there.
            let inside = |x: &f32| (x * inverse).abs() < 2e9;
            for (x, byte) in x.iter().zip(&bytes).filter(|(x, _)| inside(x)) {
                assert_eq!(*byte, plain(x), "{x} · {inverse} + {zero}");
            }
        }
    }
}
