//! Every kernel against f64 with a derived bound, and against the portable one to the bit.

use std::io::Write;

use half::bf16;
use proptest::prelude::*;

use super::round::SMALLEST;
use super::*;
use crate::nn::gemm::Strided;
use crate::nn::operand::Operand;

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

fn layer(kernel: &'static Kernel, weight: &[f32], inputs: usize, bias: &[f32]) -> Bf16 {
    let row = |o: usize| (&weight[o * inputs..(o + 1) * inputs], 1.0);
    Bf16::for_kernel(kernel, weight.len() / inputs, inputs, bias, row)
}

fn product(layer: &Bf16, x: &[f32], before: Option<&[f32]>, threads: Threads) -> Vec<f32> {
    let count = x.len() / layer.inputs();
    let mut out = before.map_or_else(|| vec![f32::NAN; count * layer.outputs()], <[f32]>::to_vec);
    layer.multiply(x, count, &mut out, before.is_some(), None, threads);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// |error| ≤ γ_n Σ|a||b| with γ_n = n u / (1 − n u), n = inputs + 2, u = 2⁻²⁴ (Higham, "Accuracy and stability", 3.1): products
    /// of rounded inputs are exact, so that only the additions round.
    #[test]
    fn all_kernels_give_the_same_bits_within_the_rounding_bound(
        count in 1usize..40, inputs in 1usize..200, outputs in 1usize..90, add: bool, seed: u32,
    ) {
        let (x, weight) = (values(count * inputs, seed), values(outputs * inputs, !seed));
        let (bias, before) = (values(outputs, 7), values(count * outputs, 9));
        let before = add.then_some(&before[..]);
        let run = |kernel, threads| product(&layer(kernel, &weight, inputs, &bias), &x, before, threads);
        let all = KERNELS.available();
        let expected = run(all[all.len() - 1], Threads::One);
        for kernel in &all {
            for threads in [Threads::One, Threads::Pool] {
                prop_assert_eq!(bits(&run(kernel, threads)), bits(&expected), "{}", kernel.name);
            }
        }
        let rounded = |v: f32| f64::from(bf16::from_f32(v).to_f32());
        let n = (inputs + 2) as f64 * (-24f64).exp2();
        for r in 0..count {
            for o in 0..outputs {
                let mut want = f64::from(bias[o]) + before.map_or(0.0, |b| f64::from(b[r * outputs + o]));
                let mut size = f64::from(bias[o]).abs() + before.map_or(0.0, |b| f64::from(b[r * outputs + o]).abs());
                for k in 0..inputs {
                    let product = rounded(x[r * inputs + k]) * rounded(weight[o * inputs + k]);
                    want += product;
                    size += product.abs();
                }
                let error = (f64::from(expected[r * outputs + o]) - want).abs();
                prop_assert!(error <= n / (1.0 - n) * size, "{error} at {r}, {o}");
            }
        }
    }

    /// Numbers of all sizes up to 2⁶⁰ that cancel: sums as small as can be, and zeros of either sign.
    #[test]
    fn all_kernels_give_the_same_bits_for_numbers_of_all_sizes(
        inputs in 1usize..60, least in -60i32..30, span in 1i32..30, seed: u32,
    ) {
        let sized = |n: usize, seed: u32| -> Vec<f32> {
            let some = values(n, seed);
            let size = |(i, v): (usize, f32)| {
                let exponent = least + (i as i32 * 7 + seed as i32 % 5) % span;
                // Equal numbers of either sign, and few bits, so that sums are often zero or nearly so.
                let few = (v * 8.0).round() / 4.0;
                few * (f64::from(exponent)).exp2() as f32
            };
            some.into_iter().enumerate().map(size).collect()
        };
        let (x, weight) = (sized(5 * inputs, seed), sized(37 * inputs, !seed));
        let all = KERNELS.available();
        let run = |kernel| product(&layer(kernel, &weight, inputs, &[]), &x, None, Threads::One);
        let expected = run(all[all.len() - 1]);
        for kernel in &all {
            prop_assert_eq!(bits(&run(kernel)), bits(&expected), "{}", kernel.name);
        }
        prop_assert!(expected.iter().all(|v| v.is_finite() && (*v == 0.0 || v.is_normal())));
    }
}

/// A row's result depends on that row alone, in batches of one tile, of many and of several blocks.
#[test]
fn batches_and_threads_change_no_bit() {
    for (inputs, outputs) in [(3072, 40), (768, 96), (65, 33)] {
        let counts = [1, 8, 33, 200];
        let (x, weight) = (values(200 * inputs, 3), values(outputs * inputs, 4));
        let layer = layer(KERNELS.best(), &weight, inputs, &values(outputs, 5));
        let whole = product(&layer, &x, None, Threads::Pool);
        for count in counts {
            for threads in [Threads::One, Threads::Pool] {
                let mut parts = Vec::new();
                for rows in x.chunks(count * inputs) {
                    parts.extend(product(&layer, rows, None, threads));
                }
                assert!(bits(&parts) == bits(&whole), "{inputs} inputs, {count} rows, {threads:?}");
            }
        }
    }
}

#[test]
fn weights_in_bf16_are_kept_as_they_are() {
    let (inputs, outputs) = (6, 3);
    let weight: Vec<f32> =
        values(inputs * outputs, 1).into_iter().map(|v| bf16::from_f32(v).to_f32()).collect();
    for kernel in KERNELS.available() {
        let layer = layer(kernel, &weight, inputs, &[]);
        let mut x = vec![0.0; inputs * inputs];
        (0..inputs).for_each(|i| x[i * inputs + i] = 1.0);
        let found = product(&layer, &x, None, Threads::One);
        for (i, row) in found.chunks(outputs).enumerate() {
            assert!(row.iter().enumerate().all(|(o, &v)| v == weight[o * inputs + i]), "{}", kernel.name);
        }
    }
}

#[test]
fn numbers_too_small_count_as_zero_and_the_rest_as_they_are() {
    for kernel in KERNELS.available() {
        let layer = layer(kernel, &[1.0, 1.0, SMALLEST, SMALLEST / 2.0], 2, &[0.0, 0.0]);
        let found = product(&layer, &[SMALLEST, SMALLEST * 0.999, 1e30, 1.0], None, Threads::One);
        let large = bf16::from_f32(1e30).to_f32();
        assert_eq!(found, [SMALLEST, SMALLEST * SMALLEST, large, large * SMALLEST], "{}", kernel.name);
    }
}

/// The instruction's own kernel passes its check where the processor has it.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_instruction_rounds_as_expected() {
    if !is_x86_feature_detected!("avx512bf16") {
        // Past the test harness, which would keep the line to itself.
        return std::io::stderr().write_all(b"skipped: the processor has no AVX512-BF16\n").unwrap();
    }
    assert!(kernel::has_instruction(KERNELS.available()[0]));
}

/// Attention's operands have the bits of layers with the same weights.
#[test]
fn operands_give_the_bits_of_layers() {
    for (count, depth, columns) in [(1, 1, 1), (5, 8, 33), (17, 64, 77), (14, 77, 64), (3, 19, 88)] {
        let stride = 2 * depth.max(columns) + 3;
        let rows = |n: usize, seed: u32| values(n * stride, seed);
        let at = 3;
        let (x, keys, weights) = (rows(count, 1), rows(columns, 2), rows(depth, 3));
        let take = |data: &[f32], len: usize| -> Vec<f32> {
            data.chunks(stride).flat_map(|row| &row[at..at + len]).copied().collect()
        };
        for kernel in KERNELS.available() {
            let check = |operand: &mut Bf16Operand, weight: &[f32]| {
                let expected =
                    product(&layer(kernel, weight, depth, &[]), &take(&x, depth), None, Threads::One);
                for width in [columns, operand.padded(columns) + 2] {
                    let mut out = vec![0.0; count * width];
                    let a = Strided { data: &x, stride };
                    operand.multiply(a, count, at, &mut ColumnBlock::whole(&mut out, width));
                    let found: Vec<f32> =
                        out.chunks(width).flat_map(|row| &row[..columns]).copied().collect();
                    assert!(
                        bits(&found) == bits(&expected),
                        "{}: {count} x {depth} x {columns}",
                        kernel.name
                    );
                }
            };
            let mut operand = Bf16Operand::for_kernel(kernel);
            operand.set_transposed(Strided { data: &keys, stride }, columns, at, depth);
            check(&mut operand, &take(&keys, depth));
            operand.set(Strided { data: &weights, stride }, depth, at, columns);
            let values = take(&weights, columns);
            let transposed: Vec<f32> =
                (0..columns * depth).map(|i| values[i % depth * columns + i / depth]).collect();
            check(&mut operand, &transposed);
        }
    }
}
