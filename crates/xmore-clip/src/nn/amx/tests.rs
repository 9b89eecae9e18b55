//! Against plain operations to the bit, where the processor has AMX.

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::nn::activation::Activation;
use crate::nn::attention::{AttentionShape, Head, HeadAttention, Mask, self_attention};
use crate::nn::conv::{MapOutput, MapWindows, WindowWeight};
use crate::nn::gemm::{ColumnBlock, Strided, Threads, Windows};
use crate::nn::int8::Int8;
use crate::nn::norm::LayerNorm;
use crate::nn::packed_weight::{AttentionBranch, PackedWeight, Perceptron};
use crate::nn::precision::Precision;

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

fn product(layer: &dyn PackedWeight, x: &[f32], before: Option<&[f32]>, threads: Threads) -> Vec<u32> {
    let count = x.len() / layer.inputs();
    let mut out = before.map_or_else(|| vec![f32::NAN; count * layer.outputs()], <[f32]>::to_vec);
    layer.multiply(x, count, &mut out, before.is_some(), None, threads);
    out.into_iter().map(f32::to_bits).collect()
}

/// Tells past the test harness, which would keep the line to itself.
fn skipped(permitted: bool) -> bool {
    if !permitted {
        std::io::stderr().write_all(b"skipped: the processor has no AMX, or it is not permitted\n").unwrap();
    }
    !permitted
}

#[test]
fn the_checks_pass_where_there_is_amx() {
    if !skipped(tile::is_permitted(Format::Bf16)) {
        assert!(has_bf16());
    }
    if !skipped(tile::is_permitted(Format::Int8)) {
        assert!(has_int8());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bf16_has_the_bits_of_plain_operations(
        count in 1usize..70, inputs in 1usize..200, outputs in 1usize..90, add: bool, seed: u32,
    ) {
        if !tile::is_permitted(Format::Bf16) {
            return Ok(());
        }
        let (x, weight) = (values(count * inputs, seed), values(outputs * inputs, !seed));
        let (bias, before) = (values(outputs, 7), values(count * outputs, 9));
        let before = add.then_some(&before[..]);
        let layer = AmxBf16::from_rows(outputs, inputs, &bias, |o| (&weight[o * inputs..(o + 1) * inputs], 1.0));
        let expected: Vec<u32> =
            plain::multiply(&x, inputs, &weight, &bias, before).into_iter().map(f32::to_bits).collect();
        for threads in [Threads::One, Threads::Pool] {
            prop_assert!(product(&layer, &x, before, threads) == expected);
        }
    }

    #[test]
    fn convolutions_have_the_bits_of_plain_operations(
        height in 1usize..24, width in 1usize..24, channels in prop_oneof![1usize..40, Just(64)], outputs in 1usize..90,
        kernel in 1usize..4, seed: u32,
    ) {
        if !tile::is_permitted(Format::Bf16) {
            return Ok(());
        }
        let (padding, inputs) = (kernel / 2, kernel * kernel * channels);
        let (image, weight) = (values(height * width * channels, seed), values(outputs * inputs, !seed));
        let bias = values(outputs, 7);
        let pixel = |y: usize, x: usize| {
            let [y, x] = [y, x].map(|n| n.wrapping_sub(padding));
            if y < height && x < width { image[(y * width + x) * channels..][..channels].to_vec() } else { vec![0.0; channels] }
        };
        let out = [height + 2 * padding + 1 - kernel, width + 2 * padding + 1 - kernel];
        let positions = (0..out[0]).flat_map(|y| (0..out[1]).map(move |x| (y, x)));
        let rows: Vec<f32> = positions
            .flat_map(|(y, x)| (0..kernel * kernel).flat_map(move |tap| pixel(y + tap / kernel, x + tap % kernel)))
            .collect();
        let expected = plain::multiply(&rows, inputs, &weight, &bias, None);
        let expected: Vec<f32> = expected.into_iter().map(|x| x.max(0.0)).collect();
        let layer = AmxBf16::from_rows(outputs, inputs, &bias, |o| (&weight[o * inputs..(o + 1) * inputs], 1.0));
        let zeros = vec![0.0; channels];
        let windows = Windows { images: &image, height, width, zeros: &zeros, kernel, stride: 1, padding: [padding; 2], out };
        for threads in [Threads::One, Threads::Pool] {
            let mut found = vec![f32::NAN; expected.len()];
            let to = MapOutput::Floats { data: &mut found, add: false };
            layer.multiply_windows(MapWindows::Floats(windows), out[0] * out[1], to, Some(Activation::Relu), threads);
            prop_assert!(found == expected, "{threads:?}");
        }
    }

    #[test]
    fn int8_has_the_bits_of_the_portable_kernel(
        count in 1usize..70, inputs in 1usize..300, outputs in 1usize..90, add: bool, seed: u32,
    ) {
        if !tile::is_permitted(Format::Int8) {
            return Ok(());
        }
        let (x, weight) = (values(count * inputs, seed), values(outputs * inputs, !seed));
        let (bias, before) = (values(outputs, 7), values(count * outputs, 9));
        let before = add.then_some(&before[..]);
        let row = |o: usize| (&weight[o * inputs..(o + 1) * inputs], 0.5);
        let expected = product(&Int8::portable(outputs, inputs, &bias, row), &x, before, Threads::One);
        for threads in [Threads::One, Threads::Pool] {
            prop_assert!(product(&AmxInt8::from_rows(outputs, inputs, &bias, row), &x, before, threads) == expected);
        }
    }
}

/// A row's result depends on that row alone, in batches of one tile, of many and of several blocks.
#[test]
fn batches_and_threads_change_no_bit() {
    for (inputs, outputs) in [(6400, 40), (3072, 40), (768, 96), (65, 33)] {
        let (x, weight, bias) = (values(200 * inputs, 3), values(outputs * inputs, 4), values(outputs, 5));
        let row = |o: usize| (&weight[o * inputs..(o + 1) * inputs], 1.0);
        let mut layers: Vec<Box<dyn PackedWeight>> = Vec::new();
        if tile::is_permitted(Format::Bf16) {
            layers.push(Box::new(AmxBf16::from_rows(outputs, inputs, &bias, row)));
        }
        if tile::is_permitted(Format::Int8) {
            layers.push(Box::new(AmxInt8::from_rows(outputs, inputs, &bias, row)));
        }
        for layer in &layers {
            let whole = product(&**layer, &x, None, Threads::Pool);
            for count in [1, 8, 33, 200] {
                for threads in [Threads::One, Threads::Pool] {
                    let parts: Vec<u32> = x
                        .chunks(count * inputs)
                        .flat_map(|rows| product(&**layer, rows, None, threads))
                        .collect();
                    assert!(parts == whole, "{inputs} inputs, {count} rows, {threads:?}");
                }
            }
        }
    }
}

/// What is done to sums while the next ones are computed, and what goes to tiles directly, has the bits of one step after the other.
#[test]
fn perceptrons_have_the_bits_of_their_steps() {
    if skipped(tile::is_permitted(Format::Bf16)) {
        return;
    }
    let (width, hidden) = (75, 150);
    let [first, second] = [(hidden, width, 1), (width, hidden, 2)].map(|(outputs, inputs, seed)| {
        let (weight, bias) = (values(outputs * inputs, seed), values(outputs, seed + 2));
        let row = |o: usize| (&weight[o * inputs..(o + 1) * inputs], 1.0);
        (AmxBf16::from_rows(outputs, inputs, &bias, row), weight.clone(), bias.clone())
    });
    let norm = LayerNorm::new(&values(width, 5), &values(width, 6), 1e-5);
    for (count, activation) in [(1, Activation::Gelu), (50, Activation::QuickGelu), (97, Activation::Relu)] {
        let x = values(count * width, 7);
        let mut normed = x.clone();
        norm.forward(&mut normed, Threads::One);
        let mut between = plain::multiply(&normed, width, &first.1, &first.2, None);
        let without = between.clone();
        let mut gated = between.clone();
        match gates::Gate::of(activation) {
            Some(gate) => gated.iter_mut().for_each(|x| *x = gate.plain(*x)),
            None => activation.apply(&mut gated),
        }
        activation.apply(&mut between);
        let expected = plain::multiply(&gated, hidden, &second.1, &second.2, Some(&x));
        for threads in [Threads::One, Threads::Pool] {
            let mut found = vec![f32::NAN; count * hidden];
            first.0.multiply(&normed, count, &mut found, false, Some(activation), threads);
            assert!(found == between, "{activation:?}, {count} rows, {threads:?}");
            first.0.multiply_normed(&norm, &x, &mut [], &mut found, threads);
            assert!(found == without, "{count} normalized rows, {threads:?}");
            let mut found = x.clone();
            let layers = Perceptron { norm: &norm, activation, second: &second.0 };
            assert!(first.0.perceptron(&layers, &mut found, threads));
            assert!(found == expected, "{activation:?}, {count} rows, {threads:?}");
        }
    }
}

/// What stays in tiles has the bits of layers and attention one after the other.
#[test]
fn attention_branches_have_the_bits_of_their_steps() {
    if skipped(multiplies_bf16()) {
        return;
    }
    let lengths = [5, 40, 33, 1, 64];
    let bounds = crate::device::bounds(&lengths);
    let sequences: Vec<_> = bounds.windows(2).map(|ends| ends[0]..ends[1]).collect();
    for (heads, head_width) in [(3, 32), (2, 64), (4, 72), (2, 80), (4, 88), (4, 104), (16, 10)] {
        let width = heads * head_width;
        let [qkv, out] = [(3 * width, 1), (width, 2)].map(|(outputs, seed)| {
            let (weight, bias) = (values(outputs * width, seed), values(outputs, seed + 2));
            AmxBf16::from_rows(outputs, width, &bias, |o| (&weight[o * width..(o + 1) * width], 1.0))
        });
        let norm = LayerNorm::new(&values(width, 5), &values(width, 6), 1e-5);
        let x = values(bounds[lengths.len()] * width, 7);
        for mask in [Mask::None, Mask::Causal, Mask::CausalWithoutLast] {
            // None of a sequence of one token is seen where the last is not.
            let skip = usize::from(mask == Mask::CausalWithoutLast);
            let sequences: Vec<_> = if skip == 1 { sequences[..3].to_vec() } else { sequences.clone() };
            let x = &x[..sequences.last().unwrap().end * width];
            let shape = AttentionShape { heads, head_width, mask, precision: Precision::Bf16 };
            let (mut between, mut attended) = (vec![0.0; 3 * x.len()], vec![0.0; x.len()]);
            qkv.multiply_normed(&norm, x, &mut [], &mut between, Threads::One);
            self_attention(&between, shape, &sequences, &mut attended, Threads::One);
            let expected = product(&out, &attended, Some(x), Threads::One);
            for threads in [Threads::One, Threads::Pool] {
                let mut found = x.to_vec();
                let layers = AttentionBranch { norm: &norm, shape, sequences: &sequences, out: &out };
                assert!(qkv.attention(&layers, &mut found, threads));
                assert!(
                    found.into_iter().map(f32::to_bits).eq(expected.iter().copied()),
                    "{heads} of {head_width}, {mask:?}, {threads:?}"
                );
            }
        }
    }
    // Rows that fill no whole steps are left to the steps.
    let layer = AmxBf16::from_rows(24, 8, &[], |_| (&[0.0; 8], 1.0));
    let norm = LayerNorm::new(&[1.0; 8], &[0.0; 8], 1e-5);
    let shape = AttentionShape { heads: 1, head_width: 8, mask: Mask::None, precision: Precision::Bf16 };
    let layers = AttentionBranch { norm: &norm, shape, sequences: &[], out: &layer };
    assert!(!layer.attention(&layers, &mut [], Threads::One));
}

/// Attention of one head against plain operations, also where a buffer held something larger, and no numbers, before. Weights are rounded to bf16, so that a
/// result is off by 2⁻⁸ of the largest value at most, and by what exponentials and sums in 32 bits are; these weights and values, half of that.
#[test]
fn attention_is_that_of_plain_operations() {
    if skipped(tile::is_permitted(Format::Bf16)) {
        return;
    }
    let mut attention = AmxAttention::new();
    let nothing = vec![f32::NAN; 100 * 100];
    let all = Strided { data: &nothing, stride: 100 };
    let counts = |query_count, key_count| (query_count, key_count, false);
    let mut out = vec![0.0; 100 * 100];
    attention.attend(&head([all; 3], counts(100, 100), 0, 100), &mut ColumnBlock::whole(&mut out, 100));
    let cases = [(1, 1, 1), (5, 8, 33), (33, 64, 77), (17, 64, 17), (70, 88, 70), (32, 32, 200)];
    for ((queries, width, keys), causal) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let (at, stride) = (3, width + 5);
        let [q, k, v] = [(queries, 1), (keys, 2), (keys, 3)].map(|(rows, seed)| values(rows * stride, seed));
        let [of_q, of_k, of_v] = [&q, &k, &v].map(|data| Strided { data, stride });
        let mut out = vec![f32::NAN; queries * (width + 1)];
        let mut columns = ColumnBlock::split_at(&mut out, width + 1, &[0..width, width..width + 1]);
        let head = head([of_q, of_k, of_v], (queries, keys, causal), at, width);
        attention.attend(&head, &mut columns[0]);
        let take = |data: &[f32]| -> Vec<f32> {
            data.chunks(stride).flat_map(|row| &row[at..at + width]).copied().collect()
        };
        let scores = plain::multiply(&take(&q), width, &take(&k), &vec![0.0; keys], None);
        let v = take(&v);
        for (r, scores) in scores.chunks(keys).enumerate() {
            let seen = if causal { (r + 1).min(keys) } else { keys };
            let weights: Vec<f64> = scores[..seen].iter().map(|&score| f64::from(score).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..width {
                let value = |key: usize| f64::from(v[key * width + c]);
                let want: f64 =
                    weights.iter().enumerate().map(|(key, weight)| weight / sum * value(key)).sum();
                let found = f64::from(out[r * (width + 1) + c]);
                // Values are below 1/2, and are rounded, too.
                assert!(
                    (found - want).abs() <= (-9f64).exp2() + 1e-5,
                    "{head_text}: {found} {want}",
                    head_text = format_args!("{queries} x {keys} x {width}, causal {causal}, row {r}")
                );
            }
            assert!(out[r * (width + 1) + width].is_nan(), "the next head's column is left alone");
        }
    }
}

fn head<'a>(
    [queries, keys, values]: [Strided<'a>; 3],
    (query_count, key_count, causal): (usize, usize, bool),
    at: usize,
    width: usize,
) -> Head<'a> {
    Head { queries, query_count, keys, values, key_count, at, width, causal }
}
