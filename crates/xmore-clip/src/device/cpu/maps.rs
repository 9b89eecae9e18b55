//! Perceptrons, pairs of convolutions and squeeze-and-excitation over the positions of one image's map, `[positions, channels]`.

use std::ops::Range;

use rayon::prelude::*;

use crate::device::MapPerceptronLayers;
use crate::nn::activation::Activation;
use crate::nn::conv::{Conv2d, MapOutput, MapValues, Size};
use crate::nn::gemm::{Threads, split_rows};
use crate::nn::linear::Linear;
use crate::nn::thread_buffers::with_buffers;

use super::{Cpu, mean};

/// Positions whose hidden values are computed and used before the next ones, so that they stay in a cache.
pub(super) const POSITIONS: usize = 256;

/// out += fc2(activation(fc1(norm(x)))).
pub(super) fn perceptron(layer: &MapPerceptronLayers<'_, Cpu>, x: &[f32], out: &mut [f32], threads: Threads) {
    let &MapPerceptronLayers { norm, fc1, fc2, activation } = layer;
    let part = |x: &[f32], out: &mut [f32], threads: Threads| {
        with_buffers(|[normed, hidden]: &mut [Vec<f32>; 2]| {
            let x = match norm {
                None => x,
                Some(norm) => {
                    normed.resize(x.len(), 0.0);
                    norm.forward_into(x, normed, threads);
                    normed
                }
            };
            hidden.resize(x.len() / fc1.inputs() * fc1.outputs(), 0.0);
            fc1.forward_into(x, hidden, Some(activation), threads);
            fc2.forward_add(hidden, out, None, threads);
        });
    };
    let [from, to] = [fc1.inputs(), fc2.outputs()].map(|width| POSITIONS * width);
    match threads {
        Threads::One => x.chunks(from).zip(out.chunks_mut(to)).for_each(|(x, out)| part(x, out, threads)),
        // Where there are too few positions for all threads, they share out the weights.
        Threads::Pool if x.len() / from < rayon::current_num_threads() => part(x, out, threads),
        Threads::Pool => {
            let parts = x.par_chunks(from).zip(out.par_chunks_mut(to));
            parts.for_each(|(x, out)| part(x, out, Threads::One));
        }
    }
}

/// x = activation(x · σ(fc2(relu(fc1(mean(x)))))).
pub(super) fn squeeze_excite(
    [fc1, fc2]: [&Linear; 2],
    x: &mut [f32],
    activation: Activation,
    threads: Threads,
) {
    let channels = fc1.inputs();
    let mut means = vec![0.0; channels];
    mean(x, &mut means);
    let mut squeezed = vec![0.0; fc1.outputs()];
    fc1.forward_into(&means, &mut squeezed, Some(Activation::Relu), threads);
    let mut gates = fc2.forward(&squeezed, threads);
    gates.iter_mut().for_each(|gate| *gate = (1.0 / (1.0 + (-f64::from(*gate)).exp())) as f32);
    let scale = |rows: &mut [f32]| {
        for row in rows.chunks_exact_mut(channels) {
            row.iter_mut().zip(&gates).for_each(|(v, gate)| *v *= gate);
        }
        activation.apply(rows);
    };
    match threads {
        Threads::One => scale(x),
        Threads::Pool => x.par_chunks_mut(POSITIONS * channels).for_each(scale),
    }
}

/// Adds a 1×1 convolution of `x` to `sum`, with its activation, and writes another one of that to `out`, for `positions` positions in so many parts.
pub(super) fn two_points(
    x: MapValues<'_>,
    first: &Conv2d,
    sum: &mut [f32],
    second: &Conv2d,
    out: MapOutput<'_>,
    [positions, parts]: [usize; 2],
    threads: Threads,
) {
    let each = Size { height: 1, width: 1 };
    let part = |((positions, sum), (_, out)): ((Range<usize>, &mut [f32]), (_, MapOutput<'_>))| {
        let added = MapOutput::Floats { data: &mut *sum, add: true };
        first.forward_into(x.part(positions, first.inputs()), each, added, Threads::One);
        second.forward_into(MapValues::Floats(sum), each, out, Threads::One);
    };
    let places = split_rows(sum, positions, parts).into_iter().zip(out.split(positions, parts));
    match threads {
        Threads::One => places.for_each(part),
        Threads::Pool => places.collect::<Vec<_>>().into_par_iter().for_each(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::Map;
    use crate::nn::conv::{Padding, Window};
    use crate::nn::linear::Part;
    use crate::nn::norm::{BatchNorm, LayerNorm};
    use crate::nn::precision::Precision;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn linear(outputs: usize, inputs: usize, seed: usize) -> (Linear, Vec<f32>) {
        let weight = values(outputs * inputs, seed);
        let part = Part { weight: &weight, bias: None, scale: 1.0 };
        (Cpu::new(Precision::F32).unwrap().linear(&[part], inputs, Precision::F32).unwrap(), weight)
    }

    #[test]
    fn perceptrons_have_the_bits_of_each_position_alone() {
        let (width, positions) = (24, 3 * POSITIONS + 17);
        let norm = LayerNorm::new(&values(width, 1), &values(width, 2), 1e-6);
        let ((fc1, _), (fc2, _)) = (linear(40, width, 3), linear(width, 40, 4));
        let layer =
            MapPerceptronLayers { norm: Some(&norm), fc1: &fc1, fc2: &fc2, activation: Activation::Gelu };
        let (x, before) = (values(positions * width, 5), values(positions * width, 6));
        let mut alone = before.clone();
        for (x, out) in x.chunks(width).zip(alone.chunks_mut(width)) {
            perceptron(&layer, x, out, Threads::One);
        }
        for threads in [Threads::One, Threads::Pool] {
            let mut out = before.clone();
            perceptron(&layer, &x, &mut out, threads);
            assert!(out == alone, "{threads:?}");
        }
    }

    #[test]
    fn squeeze_and_excitation_matches_f64() {
        let (channels, narrow, positions) = (20, 6, POSITIONS + 30);
        let ((fc1, w1), (fc2, w2)) = (linear(narrow, channels, 3), linear(channels, narrow, 4));
        let x: Vec<f32> = values(positions * channels, 5).iter().map(|v| v + 0.3).collect();
        let mut found = x.clone();
        squeeze_excite([&fc1, &fc2], &mut found, Activation::Relu, Threads::Pool);
        let mut again = x.clone();
        squeeze_excite([&fc1, &fc2], &mut again, Activation::Relu, Threads::One);
        assert!(found == again);
        let product = |weight: &[f32], x: &[f64]| -> Vec<f64> {
            let rows = weight.chunks(x.len());
            rows.map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
        };
        let column = |c: usize| x.iter().skip(c).step_by(channels).map(|&v| f64::from(v));
        let means: Vec<f64> = (0..channels).map(|c| column(c).sum::<f64>() / positions as f64).collect();
        let squeezed: Vec<f64> = product(&w1, &means).iter().map(|v| v.max(0.0)).collect();
        let gates: Vec<f64> = product(&w2, &squeezed).iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect();
        for (n, (found, x)) in found.iter().zip(&x).enumerate() {
            let want = (f64::from(*x) * gates[n % channels]).max(0.0);
            assert!((f64::from(*found) - want).abs() < 1e-5, "{found} {want}");
        }
    }

    /// Also where maps between convolutions are in bf16.
    #[test]
    fn layers_of_a_block_have_the_bits_of_each_alone() {
        let (images, size) = (2, Size { height: 24, width: 25 });
        for precision in [Precision::F32, Precision::Bf16] {
            let device = Cpu::new(precision).unwrap();
            let conv = |outputs: usize, inputs: usize, kernel: usize| {
                let weight = values(outputs * inputs * kernel * kernel, outputs + kernel);
                let bn = BatchNorm { scale: vec![0.125; outputs], shift: values(outputs, 3) };
                let window = Window { kernel, stride: 1, padding: Padding::Around(kernel / 2) };
                device.conv(&weight, inputs, window, bn, Some(Activation::Relu), precision).unwrap()
            };
            let (narrow, middle, wide, next, last) =
                (conv(32, 64, 1), conv(96, 32, 3), conv(64, 96, 1), conv(32, 64, 1), conv(5, 32, 3));
            let map = || {
                let mut map = Map::default();
                map.write(images, size, 64).copy_from_slice(&values(images * size.area() * 64, 9));
                map
            };
            let [mut x, mut y, mut z, mut out] = [map(), map(), map(), map()];
            let one = &mut Threads::One;
            Cpu::conv_into(one, &narrow, &x, &mut y);
            Cpu::conv_into(one, &middle, &y, &mut z);
            Cpu::conv_add(one, &wide, &z, &mut x);
            Cpu::conv_into(one, &next, &x, &mut y);
            Cpu::conv_into(one, &last, &y, &mut out);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            for mut threads in [Threads::One, Threads::Pool] {
                let [mut again, mut y, mut z, mut out_again] = [map(), map(), map(), map()];
                pool.install(|| {
                    Cpu::conv_for_conv(&mut threads, &narrow, &again, &mut y);
                    Cpu::conv_for_conv(&mut threads, &middle, &y, &mut z);
                    Cpu::conv_add_for_conv(&mut threads, &wide, &z, &mut again, &next, &mut y);
                    Cpu::conv_into(&mut threads, &last, &y, &mut out_again);
                });
                assert!(again.floats() == x.floats(), "{precision:?}, {threads:?}");
                assert!(out_again.floats() == out.floats(), "{precision:?}, {threads:?}");
            }
        }
    }
}
