//! From 32-bit floats to bf16, to nearest even.

use rayon::prelude::*;

use crate::nn::gemm::Threads;

/// Smaller numbers become zero, so that no sum of products is ever smaller than the least normal number, which instruction sets
/// treat differently. 2⁻⁵⁰.
pub(in crate::nn) const SMALLEST: f32 = 1.0 / (1u64 << 50) as f32;

/// The 16 bits of a number; NaN stays one.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let size = bits & 0x7fff_ffff;
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let kept = if size > f32::INFINITY.to_bits() { bits >> 16 | 0x40 } else { rounded };
    if size < SMALLEST.to_bits() { 0 } else { kept }
}

/// Two numbers side by side, the first in the lower half.
#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> u32 {
    round(first) | round(second) << 16
}

/// Writes a function that is compiled for each instruction set and takes the best that the processor has.
macro_rules! vectorized {
    ($(#[$attribute:meta])* fn $name:ident($($arg:ident: $type:ty),*) $body:block) => {
        $(#[$attribute])*
        pub(in crate::nn) fn $name($($arg: $type),*) {
            #[inline(always)]
            fn plain($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
                fn with_avx512($($arg: $type),*) {
                    plain($($arg),*);
                }
                #[target_feature(enable = "avx2")]
                fn with_avx2($($arg: $type),*) {
                    plain($($arg),*);
                }
                if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                    // SAFETY: the features were just detected; avx512bw implies avx512f.
                    #[allow(unsafe_code)]
                    return unsafe { with_avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just detected.
                    #[allow(unsafe_code)]
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            plain($($arg),*);
        }
    };
}

vectorized! {
    /// Rounds a row of numbers times a factor to pairs; an odd one gets a zero beside it.
    fn round_row(x: &[f32], factor: f32, out: &mut [u32]) {
        assert_eq!(out.len(), x.len().div_ceil(2));
        let (pairs, odd) = x.as_chunks::<2>();
        for (out, &[first, second]) in out.iter_mut().zip(pairs) {
            *out = pair(first * factor, second * factor);
        }
        if let (&[last], Some(out)) = (odd, out.last_mut()) {
            *out = pair(last * factor, 0.0);
        }
    }
}

vectorized! {
    /// Rounds two rows of numbers to pairs of one of each.
    fn round_rows_side_by_side(first: &[f32], second: &[f32], out: &mut [u32]) {
        assert!(first.len() == out.len() && second.len() == out.len());
        for ((out, &first), &second) in out.iter_mut().zip(first).zip(second) {
            *out = pair(first, second);
        }
    }
}

/// Rounds rows of `inputs` numbers to rows of pairs that begin every `stride` pairs.
pub(super) fn round_rows(x: &[f32], inputs: usize, out: &mut [u32], stride: usize, threads: Threads) {
    let pairs = inputs.div_ceil(2);
    let one = |(row, out): (&[f32], &mut [u32])| round_row(row, 1.0, &mut out[..pairs]);
    match threads {
        Threads::One => x.chunks_exact(inputs).zip(out.chunks_exact_mut(stride)).for_each(one),
        Threads::Pool => {
            let rows = x.par_chunks_exact(inputs).zip(out.par_chunks_exact_mut(stride));
            rows.with_min_len(16).for_each(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Every 16-bit prefix with the remainders between which rounding decides, beside the crate `half`.
    #[test]
    fn rounds_to_nearest_even_as_half_does() {
        for high in 0..=0xffffu32 {
            let x = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| f32::from_bits(high << 16 | low));
            let mut found = [0; 3];
            round_row(&x, 1.0, &mut found);
            let found: &[u16] = bytemuck::cast_slice(&found);
            for (&x, &found) in x.iter().zip(found) {
                let expected = bf16::from_f32(x);
                match bf16::from_bits(found) {
                    found if x.is_nan() => assert!(found.is_nan(), "{x}"),
                    found if x.abs() < SMALLEST => assert_eq!(found.to_bits(), 0, "{x:e}"),
                    found => assert_eq!(found.to_bits(), expected.to_bits(), "{x:e}"),
                }
            }
        }
    }

    #[test]
    fn an_odd_row_ends_with_a_zero_and_factors_come_first() {
        let mut found = [1; 4];
        round_row(&[1.0, -2.0, 3.0, 0.5, 1.5, 6.0, 7.0], 0.5, &mut found);
        let expected = [[0.5, -1.0], [1.5, 0.25], [0.75, 3.0], [3.5, 0.0]];
        assert_eq!(found, expected.map(|[first, second]| pair(first, second)));
        let values: &[u16] = bytemuck::cast_slice(&found);
        assert!(values.iter().map(|&v| bf16::from_bits(v).to_f32()).eq(expected.concat()));
    }
}
