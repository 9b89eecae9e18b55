//! The number formats of linear layers: a variant of [`Precision`], its implementation of [`PackedWeight`], one of [`HeadAttention`] where attention is
//! computed in it, too, and a line in each function here.

use std::sync::OnceLock;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::amx::{self, AmxAttention, AmxBf16, AmxInt8};
use super::attention::{BetweenProducts, HeadAttention};
use super::bf16::{Bf16, Bf16Operand};
use super::conv::WindowWeight;
use super::float32::Float32;
use super::gemm::OperandBuffer;
use super::int8::Int8;
use super::packed_weight::PackedWeight;
use super::speed::is_faster_than_f32;

/// How a layer's weights are kept and multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats, as published.
    #[default]
    F32,
    /// 8-bit integers in the transformers' linear layers: weights scaled per output channel, activations per token as they come. A
    /// quarter of the memory, faster, and not quite the same numbers.
    Int8,
    /// 16-bit floats with 10 fraction bits: on GPUs.
    F16,
    /// 16-bit floats with 7 fraction bits and the range of 32-bit ones. On GPUs everything; on a processor the transformers' linear layers and, with AMX, the
    /// convolutions of CLIP's ResNets, with sums and residual branches in 32 bits: half the memory, and faster where it has instructions for them (AMX, AVX512-BF16). Processors with AMX add
    /// in another order than the rest, which all give the same bits; batch and threads change none on any.
    Bf16,
    /// 8-bit floats in the transformers' linear layers, weights scaled per output channel, activations per token, and 16-bit floats between
    /// them: on GPUs from Ada and Hopper on.
    Fp8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::Int8, Self::F16, Self::Bf16, Self::Fp8];

    /// Whether a processor computes in it.
    pub(crate) fn is_of_cpu(self) -> bool {
        matches!(self, Self::F32 | Self::Int8 | Self::Bf16)
    }

    /// Whether this processor multiplies faster in it than in 32-bit floats, by instructions of its own. Those of bf16 are checked when first asked for; where
    /// they are those of AVX-512, which Intel's processors run at half the rate of multiply-adds in 32-bit floats and AMD's at twice that, they are timed once.
    pub fn is_accelerated(self) -> bool {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Bf16 && amx::multiplies_bf16() {
            return true;
        }
        static FASTER: OnceLock<bool> = OnceLock::new();
        self == Self::Bf16
            && Bf16::has_instruction()
            && *FASTER.get_or_init(|| is_faster_than_f32(Self::Bf16))
    }

    /// How what is computed of pixels is kept where the transformers are in this precision: the layer from pixels to patches, and CLIP's ResNets. 8 bits are too
    /// few for pixels.
    pub(crate) fn of_pixels(self) -> Self {
        if self == Self::Bf16 { self } else { Self::F32 }
    }

    /// How a thread computes attention where the linear layers are in this precision: 8 bits are too few for it.
    pub(super) fn head_attention(self) -> Box<dyn HeadAttention> {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Bf16 if amx::multiplies_bf16() => Box::new(AmxAttention::new()),
            Self::Bf16 => Box::new(BetweenProducts::new(Bf16Operand::new)),
            _ => Box::new(BetweenProducts::new(OperandBuffer::new)),
        }
    }

    /// Tokens whose values between two layers stay in a core's own caches: enough rows to use each weight well, few enough for them. Between layers in tiles of
    /// bf16 they take half as many bytes.
    pub(crate) fn tokens_of_portion(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Bf16 if amx::multiplies_bf16() => 400,
            _ => 256,
        }
    }

    /// Packs a weight that is given by its outputs' rows of `inputs` elements, each with a factor, and a bias `[outputs]`.
    pub(super) fn pack<'w>(
        self,
        outputs: usize,
        inputs: usize,
        bias: Option<Vec<f32>>,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Box<dyn PackedWeight> {
        match self {
            Self::F32 => Box::new(Float32::from_rows(outputs, inputs, bias, row)),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Int8 if amx::multiplies_int8() => {
                Box::new(AmxInt8::from_rows(outputs, inputs, &bias.unwrap_or_default(), row))
            }
            Self::Int8 => Box::new(Int8::from_rows(outputs, inputs, &bias.unwrap_or_default(), row)),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Bf16 if amx::multiplies_bf16() => {
                Box::new(AmxBf16::from_rows(outputs, inputs, &bias.unwrap_or_default(), row))
            }
            Self::Bf16 => Box::new(Bf16::from_rows(outputs, inputs, &bias.unwrap_or_default(), row)),
            Self::F16 | Self::Fp8 => {
                unreachable!("a processor's device is opened for its own precisions alone")
            }
        }
    }

    /// Packs a convolution's weight, as [`Precision::pack`] does: in bf16 where AMX multiplies, else in 32-bit floats. 8 bits are too few for pixels; that other
    /// instructions for bf16 make up for the rounding of every window was not found (see docs/decisions/amx.md).
    pub(super) fn pack_windows<'w>(
        self,
        outputs: usize,
        inputs: usize,
        bias: Vec<f32>,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Box<dyn WindowWeight> {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Bf16 if amx::multiplies_bf16() => Box::new(AmxBf16::from_rows(outputs, inputs, &bias, row)),
            _ => Box::new(Float32::from_rows(outputs, inputs, Some(bias), row)),
        }
    }

    /// The name in a model's identity.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Int8 => "int8",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::Fp8 => "fp8",
        }
    }

    /// The short name, by which users ask for it.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }

    /// The format of a short name.
    pub fn of_short_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.short_name() == name)
    }

    /// The format of a name in a model's identity.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }

    /// What is added to a model's fingerprint: numbers in another format are those of another model.
    pub(crate) fn fingerprint_suffix(self) -> &'static str {
        match self {
            Self::F32 => "",
            Self::Int8 => "-int8",
            Self::F16 => "-float16",
            Self::Bf16 => "-bfloat16",
            Self::Fp8 => "-fp8",
        }
    }
}
