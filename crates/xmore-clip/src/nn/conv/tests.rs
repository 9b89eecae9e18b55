//! Convolutions compared with direct ones in f64.

use proptest::prelude::*;

use super::*;
use crate::nn::activation::Activation;
use crate::nn::gemm::Threads;
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;

/// Direct convolution in f64 with `SAME` padding, `[outputs, inputs / groups, k, k]` weights.
fn reference(
    x: &[f32],
    size: Size,
    inputs: usize,
    weight: &[f32],
    outputs: usize,
    depthwise: bool,
    w: Window,
) -> Vec<f64> {
    let to = w.output(size);
    let pad = |n: usize| match w.padding {
        Padding::Same => (((n.div_ceil(w.stride) - 1) * w.stride + w.kernel).saturating_sub(n) / 2) as isize,
        Padding::Around(p) => p as isize,
    };
    let per_group = if depthwise { 1 } else { inputs };
    let mut out = Vec::new();
    for oy in 0..to.height {
        for ox in 0..to.width {
            for o in 0..outputs {
                let mut sum = 0.0;
                for i in 0..per_group {
                    for ky in 0..w.kernel {
                        for kx in 0..w.kernel {
                            let y = (oy * w.stride + ky) as isize - pad(size.height);
                            let xx = (ox * w.stride + kx) as isize - pad(size.width);
                            if y < 0 || xx < 0 || y >= size.height as isize || xx >= size.width as isize {
                                continue;
                            }
                            let channel = if depthwise { o / (outputs / inputs) } else { i };
                            let pixel = x[(y as usize * size.width + xx as usize) * inputs + channel];
                            let tap = weight[((o * per_group + i) * w.kernel + ky) * w.kernel + kx];
                            sum += f64::from(pixel) * f64::from(tap);
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

fn identity(channels: usize) -> BatchNorm {
    BatchNorm { scale: vec![1.0; channels], shift: vec![0.0; channels] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn dense_matches_f64(height in 1usize..12, width in 1usize..12, inputs in prop_oneof![1usize..6, 16usize..20],
                         outputs in 1usize..20, kernel in 1usize..6, stride in 1usize..3, around: bool, seed: u32) {
        let padding = if around { Padding::Around(kernel / 2) } else { Padding::Same };
        let (size, window) = (Size { height, width }, Window { kernel, stride, padding });
        let x = values(size.area() * inputs, seed);
        let weight = values(outputs * inputs * kernel * kernel, !seed);
        let mut out = Vec::new();
        let layer = Conv2d::new(&weight, inputs, window, identity(outputs), None, Precision::F32);
        layer.forward(&x, size, &mut out, Threads::Pool);
        for (found, want) in out.iter().zip(reference(&x, size, inputs, &weight, outputs, false, window)) {
            prop_assert!((f64::from(*found) - want).abs() < 1e-5, "{found} {want}");
        }
    }

    #[test]
    fn depthwise_matches_f64(height in 1usize..12, width in 1usize..24, inputs in 1usize..80, multiple in 1usize..3,
                             kernel in 1usize..8, stride in 1usize..3, around: bool, activation in 0usize..3, seed: u32) {
        let padding = if around { Padding::Around(kernel / 2) } else { Padding::Same };
        let (size, window) = (Size { height, width }, Window { kernel, stride, padding });
        let outputs = inputs * multiple;
        let x = values(size.area() * inputs, seed);
        let weight = values(outputs * kernel * kernel, !seed);
        let (activation, apply): (_, fn(f64) -> f64) = [
            (None, (|v| v) as fn(f64) -> f64),
            (Some(Activation::Relu6), |v| v.clamp(0.0, 6.0)),
            (Some(Activation::QuickGelu), |v| v / (1.0 + (-1.702 * v).exp())),
        ][activation];
        let layer = DepthwiseConv2d::new(&weight, inputs, window, identity(outputs), activation);
        let mut out = Vec::new();
        layer.forward(&x, size, &mut out, Threads::Pool);
        let order: Vec<usize> = depthwise_order(inputs, outputs).collect();
        let wanted = reference(&x, size, inputs, &weight, outputs, true, window);
        for (n, found) in out.iter().enumerate() {
            let want = apply(wanted[n / outputs * outputs + order[n % outputs]]);
            prop_assert!((f64::from(*found) - want).abs() < 1e-5, "{found} {want}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// In bf16 on processors with AMX in its own way, else in floats.
    #[test]
    fn images_together_have_the_bits_of_each_alone(
        images in 1usize..5, height in 1usize..9, width in 1usize..20, inputs in prop_oneof![16usize..20, Just(32), Just(64)],
        outputs in prop_oneof![1usize..20, Just(32), Just(96)], kernel in 1usize..4, stride in 1usize..3, add: bool, bf16: bool, seed: u32,
    ) {
        let (size, window) = (Size { height, width }, Window { kernel, stride, padding: Padding::Around(kernel / 2) });
        let weight = values(outputs * inputs * kernel * kernel, !seed);
        let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
        let layer = Conv2d::new(&weight, inputs, window, identity(outputs), Some(Activation::Relu), precision);
        let x = values(images * size.area() * inputs, seed);
        let before = values(images * layer.output(size).area() * outputs, seed ^ 5);
        let run = |x: MapValues<'_>, out: &mut [f32], threads| {
            layer.forward_into(x, size, MapOutput::Floats { data: out, add }, threads);
        };
        let mut alone = before.clone();
        let each = alone.len() / images;
        for (x, out) in x.chunks(size.area() * inputs).zip(alone.chunks_mut(each)) {
            run(MapValues::Floats(x), out, Threads::One);
        }
        for threads in [Threads::One, Threads::Pool] {
            let mut together = before.clone();
            run(MapValues::Floats(&x), &mut together, threads);
            prop_assert!(together == alone, "{threads:?}");
        }
        // Values in bf16 are those that the layer rounds to, and its output in bf16 is its output rounded.
        if layer.writes_bf16() && inputs % 32 == 0 {
            let rounded: Vec<u16> = x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
            let mut of_rounded = before.clone();
            run(MapValues::Bf16(&rounded), &mut of_rounded, Threads::Pool);
            prop_assert!(of_rounded == alone);
            let mut plain = vec![f32::NAN; alone.len()];
            layer.forward_into(MapValues::Floats(&x), size, MapOutput::Floats { data: &mut plain, add: false }, Threads::One);
            let mut found = vec![0xffff; alone.len()];
            layer.forward_into(MapValues::Bf16(&rounded), size, MapOutput::Bf16(&mut found), Threads::Pool);
            let expected: Vec<u16> = plain.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
            prop_assert!(found == expected);
        }
    }
}
