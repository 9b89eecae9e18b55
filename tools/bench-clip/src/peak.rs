//! What the machine could do: products in registers, in f32 and in bf16.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

/// Billions of floating-point operations per second, all threads together.
#[derive(Serialize)]
pub struct Peak {
    pub threads: usize,
    pub fma_gflops: f64,
    /// Of products in bf16 with 32-bit sums, where there are instructions for them.
    pub bf16_gflops: Option<f64>,
    /// Of tiles in bf16 by AMX, where there is AMX.
    pub amx_gflops: Option<f64>,
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} GFLOP/s of fused multiply-adds", self.fma_gflops)?;
        if let Some(bf16) = self.bf16_gflops {
            write!(f, ", {bf16:.0} in bf16,")?;
        }
        if let Some(amx) = self.amx_gflops {
            write!(f, " {amx:.0} of tiles in bf16,")?;
        }
        write!(f, " on {} threads", self.threads)
    }
}

/// Steps of a run.
const STEPS: usize = 5_000_000;

/// The best of `repeats` runs of about 50 ms.
pub fn measure(threads: usize, repeats: u32) -> Peak {
    let best = |work: fn() -> usize| {
        let once = || {
            let start = Instant::now();
            let done = rayon::broadcast(|_| work());
            (threads * done[0]) as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        (0..repeats.max(3)).map(|_| once()).fold(0.0, f64::max)
    };
    let fma_gflops = best(|| multiply_add(std::hint::black_box(1.000_000_1)));
    let amx_gflops = xmore_clip::tile_peak_work().map(best);
    Peak { threads, fma_gflops, bf16_gflops: bf16_work().map(best), amx_gflops }
}

/// The function that multiplies in bf16, if the processor does; it returns how many operations were done.
fn bf16_work() -> Option<fn() -> usize> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
        return Some(|| {
            // SAFETY: the features were just detected.
            #[allow(unsafe_code)]
            unsafe {
                multiply_add_bf16(std::hint::black_box(1.0))
            }
        });
    }
    None
}

/// Runs the widest multiply-adds that the processor has; returns how many operations were done.
fn multiply_add(factor: f32) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            #[allow(unsafe_code)]
            return unsafe { multiply_add_avx512(factor) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            #[allow(unsafe_code)]
            return unsafe { multiply_add_avx2(factor) };
        }
    }
    multiply_add_plain(factor)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_add_avx512(factor: f32) -> usize {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (factor, term) = (_mm512_set1_ps(factor), _mm512_set1_ps(1e-9));
    // Enough independent sums to hide the latency of a multiply-add.
    let mut sums = [_mm512_set1_ps(1.0); 24];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, term);
        }
    }
    std::hint::black_box(sums);
    STEPS * sums.len() * 16 * 2
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_add_bf16(factor: f32) -> usize {
    use std::arch::x86_64::{_mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_set1_ps};
    let pairs = |value| _mm512_cvtne2ps_pbh(_mm512_set1_ps(value), _mm512_set1_ps(value));
    let (factor, term) = (pairs(factor), pairs(1e-9));
    let mut sums = [_mm512_set1_ps(1.0); 24];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, factor, term);
        }
    }
    std::hint::black_box(sums);
    STEPS * sums.len() * 16 * 4
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_add_avx2(factor: f32) -> usize {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (factor, term) = (_mm256_set1_ps(factor), _mm256_set1_ps(1e-9));
    let mut sums = [_mm256_set1_ps(1.0); 12];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, term);
        }
    }
    std::hint::black_box(sums);
    STEPS * sums.len() * 8 * 2
}

/// What compilers make of plain code.
fn multiply_add_plain(factor: f32) -> usize {
    let mut sums = [[1f32; 4]; 12];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = sum.map(|value| value.mul_add(factor, 1e-9));
        }
    }
    std::hint::black_box(sums);
    STEPS * sums.len() * 4 * 2
}
