//! What the machine could do: fused multiply-adds in registers.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

/// Billions of floating-point operations per second, all threads together.
#[derive(Serialize)]
pub struct Peak {
    pub threads: usize,
    pub fma_gflops: f64,
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} GFLOP/s of fused multiply-adds on {} threads", self.fma_gflops, self.threads)
    }
}

/// Steps of a run.
const STEPS: usize = 5_000_000;

/// The best of `repeats` runs of about 50 ms.
pub fn measure(threads: usize, repeats: u32) -> Peak {
    let once = || {
        let start = Instant::now();
        let done = rayon::broadcast(|_| multiply_add(std::hint::black_box(1.000_000_1)));
        (threads * done[0]) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    Peak { threads, fma_gflops: (0..repeats.max(3)).map(|_| once()).fold(0.0, f64::max) }
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
    sums::<4, 12>(factor)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_add_avx512(factor: f32) -> usize {
    sums::<16, 24>(factor)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_add_avx2(factor: f32) -> usize {
    sums::<8, 12>(factor)
}

/// `SUMS` registers of `LANES`, enough of them to hide the latency; compiled into vector code where it is inlined into a function that may
/// use it.
#[inline(always)]
fn sums<const LANES: usize, const SUMS: usize>(factor: f32) -> usize {
    let mut sums = [[1f32; LANES]; SUMS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            for value in sum {
                *value = value.mul_add(factor, 1e-9);
            }
        }
    }
    std::hint::black_box(sums);
    STEPS * SUMS * LANES * 2
}
