//! One product again and again: for the choice of a precision, and for the program that compares this crate's products with others'.

use std::time::Instant;

use super::gemm::Threads;
use super::linear::{Linear, Part};
use super::precision::Precision;

/// Multiplies `[rows, inputs]` with a packed weight `[inputs, outputs]` over and over in these precisions, in turn with `others`; returns the seconds
/// of each run, this crate's first.
#[doc(hidden)]
pub fn time_products(
    [rows, inputs, outputs]: [usize; 3],
    precisions: &[Precision],
    runs: usize,
    others: &mut [&mut dyn FnMut()],
) -> Vec<Vec<f64>> {
    let value = |i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5;
    let x: Vec<f32> = (0..rows * inputs).map(value).collect();
    let weight: Vec<f32> = (0..outputs * inputs).map(value).collect();
    let part = || Part { weight: &weight, bias: None, scale: 1.0 };
    let layers: Vec<Linear> =
        precisions.iter().map(|&precision| Linear::fused(&[part()], inputs, precision)).collect();
    let mut out = vec![0.0; rows * outputs];
    let mut times = vec![Vec::new(); layers.len() + others.len()];
    for _ in 0..runs {
        let mut time = |n: usize, run: &mut dyn FnMut()| {
            let start = Instant::now();
            run();
            times[n].push(start.elapsed().as_secs_f64());
        };
        for (n, layer) in layers.iter().enumerate() {
            time(n, &mut || layer.forward_into(&x, &mut out, None, Threads::Pool));
        }
        others.iter_mut().enumerate().for_each(|(n, other)| time(layers.len() + n, other));
    }
    times
}

/// Whether this processor multiplies faster in this precision than in 32-bit floats: by a tenth and more, in the fastest of some runs of a small product.
pub(super) fn is_faster_than_f32(precision: Precision) -> bool {
    const SIZES: [usize; 3] = [64, 768, 512];
    const RUNS: usize = 9;
    let times = time_products(SIZES, &[Precision::F32, precision], RUNS, &mut []);
    let [f32_least, least] = [0, 1].map(|n: usize| times[n].iter().copied().fold(f64::INFINITY, f64::min));
    least < 0.9 * f32_least
}

/// The function that multiplies tiles in bf16 as fast as the processor can, and returns how many operations it did; none where there is no AMX.
#[doc(hidden)]
pub fn tile_peak_work() -> Option<fn() -> usize> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return super::amx::peak_work();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    None
}
