//! Every kernel against f64 with a derived bound, and against the plain one to the bit.

use proptest::prelude::*;

use super::kernel::Kernel;
use super::*;

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

fn pack(kernel: &'static Kernel, weight: &[f32], columns: usize, depth: usize) -> Packed {
    Packed::for_kernel(kernel, columns, depth, |c| (&weight[c * depth..(c + 1) * depth], 1.0))
}

/// Rows as windows over a flat signal: piece t of row r starts at `r * step + t * 3`.
struct Flat<'a> {
    data: &'a [f32],
    taps: usize,
    depth: usize,
    step: usize,
}

impl Windows for Flat<'_> {
    fn taps(&self) -> usize {
        self.taps
    }

    fn piece(&self, row: usize, tap: usize) -> &[f32] {
        &self.data[row * self.step + tap * 3..][..self.depth]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// |error| ≤ γ_n Σ|a||b| with γ_n = n u / (1 − n u), n = depth + 2, u = 2⁻²⁴ (Higham, "Accuracy and stability", 3.1).
    #[test]
    fn all_kernels_agree_and_are_within_the_rounding_bound(
        count in 1usize..60, taps in 1usize..5, depth in 1usize..400, columns in 1usize..90, add: bool, bias: bool, seed: u32,
    ) {
        let step = 2;
        let data = values(count * step + taps * 3 + depth, seed);
        let windows = Flat { data: &data, taps, depth, step };
        let rows = if taps == 1 { Rows::Dense { data: &data, stride: step } } else { Rows::Windows(&windows) };
        let inputs = taps * depth;
        let weight = values(columns * inputs, !seed);
        let bias = bias.then(|| values(columns, 7));
        let stride = columns + 3;
        let before = values(count * stride, 9);
        let mut results = Vec::new();
        for kernel in kernel::available() {
            let packed = pack(kernel, &weight, columns, inputs);
            for threads in [Threads::One, Threads::Pool] {
                let mut out = before.clone();
                let finish = Finish { bias: bias.as_deref(), add, activation: None };
                multiply(rows, count, &packed, &mut Output { data: &mut out, stride }, finish, threads);
                results.push(out);
            }
        }
        let first = &results[0];
        prop_assert!(results.iter().all(|r| r == first), "kernels or threads differ");
        let n = (inputs + 2) as f64 * (-24f64).exp2();
        for r in 0..count {
            for c in 0..columns {
                let mut sum = bias.as_ref().map_or(0.0, |b| f64::from(b[c]));
                sum += if add { f64::from(before[r * stride + c]) } else { 0.0 };
                let mut size = sum.abs() + 1.0;
                for t in 0..taps {
                    for (i, &x) in windows.piece(r, t).iter().enumerate() {
                        let product = f64::from(x) * f64::from(weight[c * inputs + t * depth + i]);
                        sum += product;
                        size += product.abs();
                    }
                }
                let error = (f64::from(first[r * stride + c]) - sum).abs();
                prop_assert!(error <= n / (1.0 - n) * size, "{error} at {r}, {c}");
            }
            if r + 1 < count {
                prop_assert_eq!(&first[r * stride + columns..(r + 1) * stride], &before[r * stride + columns..(r + 1) * stride]);
            }
        }
    }

    /// A row's result depends on that row alone, whatever rows stand beside it.
    #[test]
    fn rows_are_independent_to_the_bit(count in 1usize..50, depth in 1usize..600, seed: u32) {
        let columns = 48;
        let (x, w) = (values(count * depth, seed), values(columns * depth, !seed));
        let packed = Packed::from_rows(columns, depth, |c| (&w[c * depth..(c + 1) * depth], 1.0));
        let run = |x: &[f32], count: usize| {
            let mut out = vec![0.0; count * columns];
            let finish = Finish { activation: Some(Activation::Gelu), ..Finish::default() };
            let rows = Rows::Dense { data: x, stride: depth };
            multiply(rows, count, &packed, &mut Output { data: &mut out, stride: columns }, finish, Threads::Pool);
            out
        };
        let all = run(&x, count);
        for r in 0..count {
            prop_assert_eq!(&run(&x[r * depth..(r + 1) * depth], 1)[..], &all[r * columns..(r + 1) * columns]);
        }
    }
}
