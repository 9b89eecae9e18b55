//! Every kernel against exact integers, and the whole product against f64 within what 8 bits allow.

use proptest::prelude::*;

use super::*;

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Quantizing is within half a step of each factor: |x − s(q−z)| ≤ s (the zero point is rounded too), |w − tp| ≤ t/2, so
    /// |error| ≤ Σ (s |w| + |x| t/2 + s t/2), and a little for the floats.
    #[test]
    fn all_kernels_are_within_the_quantization_bound(
        count in 1usize..40, inputs in 1usize..200, outputs in 1usize..90, add: bool, seed: u32,
    ) {
        let (x, weight) = (values(count * inputs, seed), values(outputs * inputs, !seed));
        let (bias, before) = (values(outputs, 7), values(count * outputs, 9));
        for kernel in KERNELS.available() {
            let layer = Int8::for_kernel(kernel, outputs, inputs, &bias, |o| (&weight[o * inputs..(o + 1) * inputs], 2.0));
            let run = |threads| {
                let mut out = before.clone();
                layer.multiply(&x, count, &mut out, add, None, threads);
                out
            };
            let out = run(Threads::One);
            prop_assert_eq!(&out, &run(Threads::Pool));
            for r in 0..count {
                let row = &x[r * inputs..(r + 1) * inputs];
                let (min, max) = row.iter().fold((0.0f32, 0.0f32), |(a, b), &v| (a.min(v), b.max(v)));
                let s = f64::from(max - min) / 255.0;
                for o in 0..outputs {
                    let column: Vec<f64> = weight[o * inputs..(o + 1) * inputs].iter().map(|&w| 2.0 * f64::from(w)).collect();
                    let t = column.iter().fold(0.0f64, |m, w| m.max(w.abs())) / f64::from(WEIGHT_MAX);
                    let mut want = f64::from(bias[o]) + if add { f64::from(before[r * outputs + o]) } else { 0.0 };
                    let mut bound = 1e-5;
                    for (&x, w) in row.iter().zip(&column) {
                        want += f64::from(x) * w;
                        bound += s * w.abs() + f64::from(x).abs() * t / 2.0 + s * t / 2.0;
                    }
                    let error = (f64::from(out[r * outputs + o]) - want).abs();
                    prop_assert!(error <= bound * 1.0001, "{}: {error} of {bound}", kernel.name);
                }
            }
        }
    }
}

/// The product by every kernel that this processor runs, with its name.
fn by_all_kernels(
    x: &[f32],
    weight: &[f32],
    inputs: usize,
    bias: &[f32],
    add: bool,
) -> Vec<(&'static str, Vec<f32>)> {
    let (count, outputs) = (x.len() / inputs, weight.len() / inputs);
    let run = |kernel: &'static Kernel| {
        let row = |o: usize| (&weight[o * inputs..(o + 1) * inputs], 1.0);
        let layer = Int8::for_kernel(kernel, outputs, inputs, bias, row);
        let mut out = values(count * outputs, 5);
        layer.multiply(x, count, &mut out, add, None, Threads::One);
        (kernel.name, out)
    };
    KERNELS.available().into_iter().map(run).collect()
}

/// Values at the ends of their ranges, where 16-bit sums would overflow: 0 and 255 times 127 and -127, alone and in blocks.
#[test]
fn all_kernels_give_the_same_bits_at_the_ends_of_the_ranges() {
    let (count, inputs, outputs) = (9, 133, 70);
    for run in [1, 2, 3, 4, 7, 1000] {
        let x: Vec<f32> = (0..count * inputs)
            .map(|i| if (i / inputs + i % inputs / run) % 2 == 0 { 255.0 } else { 0.0 })
            .collect();
        let weight: Vec<f32> = (0..outputs * inputs)
            .map(|i| if (i / inputs + i / run) % 3 == 0 { -127.0 } else { 127.0 })
            .collect();
        let all = by_all_kernels(&x, &weight, inputs, &[], false);
        for (name, out) in &all {
            for (i, &found) in out.iter().enumerate() {
                let (r, o) = (i / outputs, i % outputs);
                let want: f32 = (0..inputs).map(|k| x[r * inputs + k] * weight[o * inputs + k]).sum();
                assert_eq!(found, want, "{name}, runs of {run}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_kernels_give_the_same_bits(
        count in 1usize..20, inputs in 1usize..200, outputs in 1usize..90, add: bool, extremes: bool, seed: u32,
    ) {
        let steep = |v: f32| if extremes { (v * 8.0).clamp(-1.0, 1.0) } else { v };
        let x: Vec<f32> = values(count * inputs, seed).into_iter().map(steep).collect();
        let weight: Vec<f32> = values(outputs * inputs, !seed).into_iter().map(steep).collect();
        let all = by_all_kernels(&x, &weight, inputs, &values(outputs, 7), add);
        for (name, out) in &all[1..] {
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(out), bits(&all[0].1), "{} and {}", name, all[0].0);
        }
    }
}

/// Weights of equal size take all bits of 127: small integers come out exactly, from every kernel.
#[test]
fn small_integers_are_exact() {
    let (count, inputs, outputs) = (17, 51, 37);
    let x: Vec<f32> =
        (0..count * inputs).map(|i| if i % inputs == 0 { 255.0 } else { (i % 200) as f32 }).collect();
    let weight: Vec<f32> = (0..outputs * inputs).map(|i| if i % 3 == 0 { 1.0 } else { -1.0 }).collect();
    for kernel in KERNELS.available() {
        let layer =
            Int8::for_kernel(kernel, outputs, inputs, &[], |o| (&weight[o * inputs..(o + 1) * inputs], 1.0));
        let mut out = vec![0.0; count * outputs];
        layer.multiply(&x, count, &mut out, false, None, Threads::One);
        for r in 0..count {
            for o in 0..outputs {
                let want: f32 = (0..inputs).map(|i| x[r * inputs + i] * weight[o * inputs + i]).sum();
                assert!(
                    (out[r * outputs + o] - want).abs() < 0.01,
                    "{}: {} {want}",
                    kernel.name,
                    out[r * outputs + o]
                );
            }
        }
    }
}
