//! Convolution over channels-last images: dense by way of the matrix product, depthwise by SIMD over channels.
//!
//! Channels last makes a 1×1 convolution a plain matrix product and lets a depthwise one read whole vectors. Batch
//! normalization is folded into the weights at load, the activation is applied while the output is still in cache.

use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::activation::Activation;
use super::float32::Float32;
use super::gemm::{Rows, Threads, Windows};
use super::norm::BatchNorm;
use super::packed_weight::PackedWeight;

/// From so many channels on, pixels are read where they lie; fewer are laid side by side first.
const WINDOW_CHANNELS: usize = 16;

/// Height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Size {
    pub(crate) fn area(self) -> usize {
        self.height * self.width
    }
}

/// Zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// TensorFlow's `SAME`: output = ⌈input / stride⌉, the odd pixel at the end.
    Same,
    /// PyTorch's: so many on every side.
    Around(usize),
}

/// Square kernel, stride and padding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

impl Window {
    /// A 1×1 kernel.
    pub(crate) const POINT: Self = Self { kernel: 1, stride: 1, padding: Padding::Around(0) };

    pub(crate) fn output(self, input: Size) -> Size {
        let length = |n: usize| match self.padding {
            Padding::Same => n.div_ceil(self.stride),
            Padding::Around(p) => {
                (n + 2 * p).checked_sub(self.kernel).map_or(0, |rest| rest / self.stride + 1)
            }
        };
        Size { height: length(input.height), width: length(input.width) }
    }

    /// Zero rows (or columns) before the first one of an input of that length.
    pub(crate) fn padding_before(self, input: usize) -> usize {
        match self.padding {
            Padding::Same => {
                let span = (input.div_ceil(self.stride) - 1) * self.stride + self.kernel;
                span.saturating_sub(input) / 2
            }
            Padding::Around(p) => p,
        }
    }

    /// For output position `o`: the first kernel tap that lies inside the input, the input position under it, and how many do.
    #[inline]
    fn taps(self, o: usize, input: usize) -> (usize, usize, usize) {
        let start = (o * self.stride) as isize - self.padding_before(input) as isize;
        let skip = (-start).max(0) as usize;
        let first = start.max(0) as usize;
        let count = (self.kernel - skip).min(input.saturating_sub(first));
        (skip, first, count)
    }
}

/// PyTorch's `[outputs, inputs, taps]` with batch normalization's scales `[outputs]` as `[outputs, taps, inputs]`.
pub(crate) fn fold_dense(weight: &[f32], inputs: usize, taps: usize, scale: &[f32]) -> Vec<f32> {
    let mut folded = vec![0.0; weight.len()];
    for (o, scale) in scale.iter().enumerate() {
        for i in 0..inputs {
            for t in 0..taps {
                folded[(o * taps + t) * inputs + i] = weight[(o * inputs + i) * taps + t] * scale;
            }
        }
    }
    folded
}

/// PyTorch's `[channels, taps]` with batch normalization's scales `[channels]` as `[taps, channels]`.
pub(crate) fn fold_depthwise(weight: &[f32], scale: &[f32]) -> Vec<f32> {
    let (channels, taps) = (scale.len(), weight.len() / scale.len());
    let mut folded = vec![0.0; weight.len()];
    for (c, scale) in scale.iter().enumerate() {
        for t in 0..taps {
            folded[t * channels + c] = weight[c * taps + t] * scale;
        }
    }
    folded
}

/// A dense convolution with folded batch normalization.
pub(crate) struct Conv2d {
    /// `[outputs, kernel * kernel * inputs]`, taps in row order, channels innermost.
    weight: Float32,
    window: Window,
    inputs: usize,
    activation: Option<Activation>,
}

impl Conv2d {
    /// `weight` is PyTorch's `[outputs, inputs, kernel, kernel]`.
    pub(crate) fn new(
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Self {
        let (outputs, taps) = (bn.scale.len(), window.kernel * window.kernel);
        let folded = fold_dense(weight, inputs, taps, &bn.scale);
        let length = taps * inputs;
        let row = |o: usize| (&folded[o * length..(o + 1) * length], 1.0);
        Self { weight: Float32::from_rows(outputs, length, Some(bn.shift), row), window, inputs, activation }
    }

    /// `x` is one image `[height, width, inputs]`; the output `[height', width', outputs]` is written to `out`.
    pub(crate) fn forward(&self, x: &[f32], size: Size, out: &mut Vec<f32>, threads: Threads) -> Size {
        let to = self.window.output(size);
        out.resize(to.area() * self.weight.outputs(), 0.0);
        if self.window.kernel == 1 && self.window.stride == 1 {
            self.multiply(x, out, false, threads);
        } else if self.inputs < WINDOW_CHANNELS {
            self.multiply(&self.columns(x, size, to), out, false, threads);
        } else {
            let zeros = vec![0.0; self.inputs];
            let windows = Windows {
                image: x,
                height: size.height,
                width: size.width,
                zeros: &zeros,
                kernel: self.window.kernel,
                stride: self.window.stride,
                padding: [size.height, size.width].map(|n| self.window.padding_before(n)),
                out_width: to.width,
            };
            let (rows, count) = (Rows::Windows(windows), to.area());
            self.weight.multiply_rows(rows, count, out, false, self.activation, threads);
        }
        to
    }

    /// 1×1 convolution onto a residual: `out = activation(out + conv(x))`.
    pub(crate) fn forward_add(&self, x: &[f32], out: &mut [f32], threads: Threads) {
        debug_assert!(self.window.kernel == 1 && self.window.stride == 1);
        self.multiply(x, out, true, threads);
    }

    /// The product with rows that stand side by side.
    fn multiply(&self, x: &[f32], out: &mut [f32], add: bool, threads: Threads) {
        let (inputs, outputs) = (self.weight.inputs(), self.weight.outputs());
        let count = x.len() / inputs;
        assert_eq!(
            (x.len(), out.len()),
            (count * inputs, count * outputs),
            "rows of {inputs} in, {outputs} out"
        );
        self.weight.multiply(x, count, out, add, self.activation, threads);
    }

    /// Lays the pixels under each output position side by side: `[height' * width', kernel * kernel * inputs]`.
    fn columns(&self, x: &[f32], size: Size, to: Size) -> Vec<f32> {
        let (k, c) = (self.window.kernel, self.inputs);
        let mut columns = vec![0.0; to.area() * k * k * c];
        columns.par_chunks_exact_mut(to.width * k * k * c).enumerate().for_each(|(oy, row)| {
            let (ky0, y0, rows) = self.window.taps(oy, size.height);
            for (ox, column) in row.chunks_exact_mut(k * k * c).enumerate() {
                let (kx0, x0, cols) = self.window.taps(ox, size.width);
                for r in 0..rows {
                    let from = ((y0 + r) * size.width + x0) * c;
                    let to = ((ky0 + r) * k + kx0) * c;
                    column[to..to + cols * c].copy_from_slice(&x[from..from + cols * c]);
                }
            }
        });
        columns
    }
}

/// A depthwise convolution with folded batch normalization: each input channel has kernels of its own, one or several.
pub(crate) struct DepthwiseConv2d {
    /// `[kernel * kernel, outputs]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
    window: Window,
    inputs: usize,
    activation: Option<Activation>,
}

/// PyTorch's places of a depthwise convolution's outputs in the order in which they are written here: the first output of every input, then the
/// second of every input, and so on. PyTorch has all outputs of an input side by side.
pub(crate) fn depthwise_order(inputs: usize, outputs: usize) -> impl Iterator<Item = usize> {
    let each = outputs / inputs;
    (0..each).flat_map(move |n| (0..inputs).map(move |input| input * each + n))
}

impl DepthwiseConv2d {
    /// `weight` is PyTorch's `[outputs, 1, kernel, kernel]`; there are as many outputs as inputs, or a multiple, which come in the order of
    /// [`depthwise_order`].
    pub(crate) fn new(
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Self {
        let (outputs, taps) = (bn.scale.len(), window.kernel * window.kernel);
        assert!(outputs.is_multiple_of(inputs) && weight.len() == outputs * taps);
        let order: Vec<usize> = depthwise_order(inputs, outputs).collect();
        let ordered = |values: &[f32]| order.iter().map(|&o| values[o]).collect::<Vec<_>>();
        let rows = order.iter().flat_map(|&o| &weight[o * taps..(o + 1) * taps]).copied().collect::<Vec<_>>();
        let weight = fold_depthwise(&rows, &ordered(&bn.scale));
        Self { weight, bias: ordered(&bn.shift), window, inputs, activation }
    }

    /// `x` is one image `[height, width, inputs]`; `[height', width', outputs]` is written to `out`.
    pub(crate) fn forward(&self, x: &[f32], size: Size, out: &mut Vec<f32>, threads: Threads) -> Size {
        let channels = self.bias.len();
        let to = self.window.output(size);
        out.resize(to.area() * channels, 0.0);
        let row = |(oy, out)| DepthwiseRow { layer: self, x, size, oy, out }.dispatch();
        match threads {
            Threads::One => out.chunks_exact_mut(to.width * channels).enumerate().for_each(row),
            Threads::Pool => out.par_chunks_exact_mut(to.width * channels).enumerate().for_each(row),
        }
        to
    }

    /// Between which values the sums are clamped before they are stored, and the activation that is left.
    fn clamps(&self) -> ([f32; 2], Option<Activation>) {
        match self.activation {
            Some(Activation::Relu) => ([0.0, f32::INFINITY], None),
            Some(Activation::Relu6) => ([0.0, 6.0], None),
            other => ([f32::NEG_INFINITY, f32::INFINITY], other),
        }
    }
}

/// One output row of a depthwise convolution.
struct DepthwiseRow<'a> {
    layer: &'a DepthwiseConv2d,
    x: &'a [f32],
    size: Size,
    oy: usize,
    out: &'a mut [f32],
}

impl SimdOp for DepthwiseRow<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { layer, x, size, oy, out } = self;
        let Window { kernel, stride, .. } = layer.window;
        let channels = layer.bias.len();
        let width = out.len() / channels;
        assert!(x.len() == size.area() * layer.inputs && layer.weight.len() == kernel * kernel * channels);
        let (ky, y, rows) = layer.window.taps(oy, size.height);
        let (clamps, activation) = layer.clamps();
        let padding = layer.window.padding_before(size.width);
        let patch = Patch { x, size, ky, y, rows, clamps };
        let inside = |ox: usize| ox * stride >= padding && ox * stride - padding + kernel <= size.width;
        let mut ox = 0;
        while ox < width {
            // Where all of the window lies inside, neighbors share each weight that is loaded.
            let together = [8, 4].into_iter().find(|n| ox + n <= width && inside(ox) && inside(ox + n - 1));
            let pixels = &mut out[ox * channels..(ox + together.unwrap_or(1)) * channels];
            match together {
                Some(8) => layer.pixels::<I, 8, 1>(isa, &patch, [0, ox * stride - padding, kernel], pixels),
                Some(_) => layer.pixels::<I, 4, 2>(isa, &patch, [0, ox * stride - padding, kernel], pixels),
                None => {
                    let (kx, x, columns) = layer.window.taps(ox, size.width);
                    layer.pixels::<I, 1, 4>(isa, &patch, [kx, x, columns], pixels);
                }
            }
            ox += together.unwrap_or(1);
        }
        if let Some(activation) = activation {
            activation.apply(out);
        }
    }
}

/// The rows of an image under one row of the output.
struct Patch<'a> {
    x: &'a [f32],
    size: Size,
    /// The first row of the kernel that lies inside, the image's row under it, and how many do.
    ky: usize,
    y: usize,
    rows: usize,
    clamps: [f32; 2],
}

/// Where the sums of some pixels begin: in the image, in the weights and in the output.
struct Start {
    pixel: usize,
    weight: usize,
    out: usize,
}

impl DepthwiseConv2d {
    /// `N` output pixels side by side, `[N, outputs]`, `C` vectors of channels at a time. `[kx, x, columns]`: the first column of the kernel that lies
    /// inside, the image's column under it for the first pixel, and how many do.
    #[inline(always)]
    fn pixels<I: Isa, const N: usize, const C: usize>(
        &self,
        isa: I,
        patch: &Patch<'_>,
        [kx, x, columns]: [usize; 3],
        out: &mut [f32],
    ) {
        let lanes = isa.f32().len();
        let (inputs, outputs) = (self.inputs, self.bias.len());
        let (kernel, stride) = (self.window.kernel, self.window.stride);
        let line = patch.size.width * inputs;
        let start = patch.y * line + x * inputs;
        let weights = (patch.ky * kernel + kx) * outputs;
        if patch.rows > 0 && columns > 0 {
            let last = start + (patch.rows - 1) * line + ((N - 1) * stride + columns) * inputs;
            assert!(last <= patch.x.len());
            assert!(weights + ((patch.rows - 1) * kernel + columns) * outputs <= self.weight.len());
        }
        assert_eq!(out.len(), N * outputs);
        for first in (0..outputs).step_by(inputs) {
            let at = |c: usize| Start { pixel: start + c, weight: weights + first + c, out: first + c };
            let mut c = 0;
            // SAFETY: the last pixel and the last weight that are read were just checked to lie in their slices, as was the output's length; no
            // channel is beyond the last.
            #[allow(unsafe_code)]
            unsafe {
                while c + C * lanes <= inputs {
                    self.vectors::<I, N, C>(isa, patch, at(c), columns, out);
                    c += C * lanes;
                }
                while c + lanes <= inputs {
                    self.vectors::<I, N, 1>(isa, patch, at(c), columns, out);
                    c += lanes;
                }
            }
            for c in c..inputs {
                let Start { pixel, weight, out: o } = at(c);
                for n in 0..N {
                    let mut sum = self.bias[o];
                    for r in 0..patch.rows {
                        for k in 0..columns {
                            let pixel = patch.x[pixel + r * line + (n * stride + k) * inputs];
                            sum = pixel.mul_add(self.weight[weight + (r * kernel + k) * outputs], sum);
                        }
                    }
                    out[n * outputs + o] = sum.clamp(patch.clamps[0], patch.clamps[1]);
                }
            }
        }
    }

    /// `C` vectors of channels of `N` pixels.
    ///
    /// # Safety
    /// Pixels, weights and outputs from `at` on must lie in their slices for every row and column of the window.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn vectors<I: Isa, const N: usize, const C: usize>(
        &self,
        isa: I,
        patch: &Patch<'_>,
        at: Start,
        columns: usize,
        out: &mut [f32],
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let (inputs, outputs) = (self.inputs, self.bias.len());
        let (kernel, stride) = (self.window.kernel, self.window.stride);
        let (low, high) = (ops.splat(patch.clamps[0]), ops.splat(patch.clamps[1]));
        // SAFETY: the caller promises the places.
        unsafe {
            // Loops rather than closures, which would not be compiled for the instruction set.
            let mut bias = [ops.zero(); C];
            for (i, bias) in bias.iter_mut().enumerate() {
                *bias = ops.load_ptr(self.bias.as_ptr().add(at.out + i * lanes));
            }
            let mut sums = [bias; N];
            for r in 0..patch.rows {
                let pixel = patch.x.as_ptr().add(at.pixel + r * patch.size.width * inputs);
                let weight = self.weight.as_ptr().add(at.weight + r * kernel * outputs);
                for k in 0..columns {
                    let mut weights = [ops.zero(); C];
                    for (i, value) in weights.iter_mut().enumerate() {
                        *value = ops.load_ptr(weight.add(k * outputs + i * lanes));
                    }
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let pixel = pixel.add((n * stride + k) * inputs);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            *sum = ops.mul_add(ops.load_ptr(pixel.add(i * lanes)), weights[i], *sum);
                        }
                    }
                }
            }
            for (n, sums) in sums.into_iter().enumerate() {
                for (i, sum) in sums.into_iter().enumerate() {
                    let to = out.as_mut_ptr().add(n * outputs + at.out + i * lanes);
                    ops.store_ptr(ops.min(ops.max(sum, low), high), to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            Padding::Same => {
                (((n.div_ceil(w.stride) - 1) * w.stride + w.kernel).saturating_sub(n) / 2) as isize
            }
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
            Conv2d::new(&weight, inputs, window, identity(outputs), None).forward(&x, size, &mut out, Threads::Pool);
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
}
