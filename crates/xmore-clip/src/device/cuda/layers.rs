//! Weights on the card.

use xmore_cuda::{Arg, Buffer, Element, Format, Launch, Source, Stream};

use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Window, fold_dense, fold_depthwise};
use crate::nn::linear::{Part, fused_bias};
use crate::nn::norm::BatchNorm;

use super::Cuda;

/// Inputs are padded with zeros to a multiple of this: 16 bytes of 16-bit elements, as fast products need.
const INPUTS: usize = 8;

/// Inputs and outputs of layers in 8-bit floats are multiples of this.
const FP8_SIZES: usize = 16;

/// A fully connected layer: `[outputs, padded inputs]`.
pub(crate) struct CudaLinear {
    pub(super) weight: Buffer,
    /// Of the type of the outputs.
    pub(super) bias: Option<Buffer>,
    /// Of quantized rows, `[outputs]`.
    pub(super) scales: Option<Buffer>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl CudaLinear {
    pub(super) fn new(cuda: &Cuda, parts: &[Part<'_>], inputs: usize, quantize: bool) -> Result<Self> {
        let padded = inputs.next_multiple_of(INPUTS);
        let outputs: usize = parts.iter().map(|part| part.weight.len() / inputs).sum();
        let mut weight = Vec::with_capacity(outputs * padded);
        for part in parts {
            for row in part.weight.chunks_exact(inputs) {
                weight.extend(row.iter().map(|w| w * part.scale));
                weight.resize(weight.len() + padded - inputs, 0.0);
            }
        }
        let bias = fused_bias(parts, inputs);
        let bias = bias.map(|bias| Buffer::of(&cuda.device, &cuda.element.encode(&bias))).transpose()?;
        // Other sizes have no product of 8-bit floats.
        let quantize = quantize && inputs.is_multiple_of(FP8_SIZES) && outputs.is_multiple_of(FP8_SIZES);
        let (weight, scales) = if quantize {
            let (weight, scales) = quantized(cuda, &weight, padded)?;
            (weight, Some(scales))
        } else {
            (Buffer::of(&cuda.device, &cuda.element.encode(&weight))?, None)
        };
        Ok(Self { weight, bias, scales, inputs, outputs })
    }

    /// Length of an input row with its zeros.
    pub(super) fn padded_inputs(&self) -> usize {
        self.inputs.next_multiple_of(INPUTS)
    }

    /// Type of weights and inputs.
    pub(super) fn format(&self, element: Element) -> Format {
        if self.scales.is_some() { Format::E4m3 } else { format(element) }
    }
}

/// The product's name of an element.
pub(super) fn format(element: Element) -> Format {
    match element {
        Element::F32 => Format::F32,
        Element::F16 => Format::F16,
        Element::Bf16 => Format::Bf16,
    }
}

/// Groups of 8 elements for each of `threads` threads that hold a row.
pub(super) fn vectors(width: usize, threads: usize) -> i64 {
    width.div_ceil(8 * threads) as i64
}

/// Rows of `width` as 8-bit floats, and their scales.
fn quantized(cuda: &Cuda, rows: &[f32], width: usize) -> Result<(Buffer, Buffer)> {
    let count = rows.len() / width;
    let from = Buffer::of(&cuda.device, rows)?;
    let (to, scales) = (Buffer::new(&cuda.device, rows.len())?, Buffer::new(&cuda.device, count * 4)?);
    let stream = Stream::new(&cuda.device)?;
    let defines = [("ELEMENT", Element::F32.code()), ("MAX_VECTORS", vectors(width, 128)), ("QUANTIZE", 0)];
    let kernel = cuda.device.kernel(Source::Rows, "quantize", &defines, 0)?;
    let args = [
        Arg::Pointer(from.pointer()),
        Arg::Pointer(to.pointer()),
        Arg::Pointer(scales.pointer()),
        width.into(),
        Arg::I32(0),
    ];
    // SAFETY: the buffers have `count` rows of `width`, a multiple of 8 that `MAX_VECTORS` covers; they are kept until the stream is done.
    #[allow(unsafe_code)]
    unsafe {
        stream.launch(&kernel, Launch::blocks([count, 1, 1], 128, 0), &args)?;
    }
    stream.synchronize()?;
    Ok((to, scales))
}

/// A layer norm.
pub(crate) struct CudaNorm {
    pub(super) weight: Buffer,
    pub(super) bias: Buffer,
    pub(super) epsilon: f32,
    pub(super) width: usize,
}

impl CudaNorm {
    pub(super) fn new(cuda: &Cuda, weight: &[f32], bias: &[f32], epsilon: f32) -> Result<Self> {
        let width = weight.len();
        let [weight, bias] = [Buffer::of(&cuda.device, weight)?, Buffer::of(&cuda.device, bias)?];
        Ok(Self { weight, bias, epsilon, width })
    }
}

/// A dense convolution with folded batch normalization, as a layer over windows: taps in row order, channels innermost.
pub(crate) struct CudaConv {
    pub(super) linear: CudaLinear,
    pub(super) window: Window,
    pub(super) channels: usize,
    pub(super) activation: Option<Activation>,
}

impl CudaConv {
    pub(super) fn new(
        cuda: &Cuda,
        weight: &[f32],
        channels: usize,
        window: Window,
        bn: &BatchNorm,
        activation: Option<Activation>,
    ) -> Result<Self> {
        let taps = window.kernel * window.kernel;
        let folded = fold_dense(weight, channels, taps, &bn.scale);
        let part = Part { weight: &folded, bias: Some(&bn.shift), scale: 1.0 };
        let linear = CudaLinear::new(cuda, &[part], taps * channels, false)?;
        Ok(Self { linear, window, channels, activation })
    }
}

/// A depthwise convolution with folded batch normalization and ReLU6.
pub(crate) struct CudaDepthwise {
    /// f32 `[kernel * kernel, channels]`.
    pub(super) weight: Buffer,
    pub(super) bias: Buffer,
    pub(super) window: Window,
}

impl CudaDepthwise {
    pub(super) fn new(cuda: &Cuda, weight: &[f32], window: Window, bn: &BatchNorm) -> Result<Self> {
        let weight = Buffer::of(&cuda.device, &fold_depthwise(weight, &bn.scale))?;
        Ok(Self { weight, bias: Buffer::of(&cuda.device, &bn.shift)?, window })
    }
}
