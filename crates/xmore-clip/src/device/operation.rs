//! Operations of the newer architectures, which not every device has.

use crate::nn::activation::Activation;

/// An operation that not every device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// GELU by its tanh approximation.
    GeluTanh,
    /// Patches of pictures of any aspect.
    AnyAspect,
    /// Patches without a class token.
    PatchesAlone,
    /// Attention of a learned query.
    LearnedQuery,
    /// Norms after residual branches.
    NormAfterBranch,
    /// Perceptrons with a gate.
    GatedPerceptron,
    /// Rotation of queries and keys by positions.
    RotaryPositions,
    /// Class tokens before the positions of maps.
    ClassBeforeMaps,
    /// Depthwise convolutions with another activation than ReLU6, or several outputs for each input.
    DepthwiseForm,
    /// Norms at every position of a map.
    MapNorm,
    /// Perceptrons at every position of a map.
    MapPerceptron,
    /// Squeeze and excitation.
    SqueezeExcite,
    /// Attention between the positions of a map.
    MapAttention,
    /// Means over a part of a sequence.
    Means,
    /// A row at any place of a sequence.
    PickAnywhere,
    /// Embeddings of tokens multiplied by a number.
    ScaledTokens,
    /// A learned token behind texts.
    ClassBehindTexts,
}

impl Operation {
    /// That of an activation, if not every device has it.
    pub(crate) fn of_activation(activation: Activation) -> Option<Self> {
        match activation {
            Activation::GeluTanh => Some(Self::GeluTanh),
            Activation::Relu | Activation::Relu6 | Activation::Gelu | Activation::QuickGelu => None,
        }
    }

    /// What it is, in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GeluTanh => "GELU by its tanh approximation",
            Self::AnyAspect => "patches of pictures of any aspect",
            Self::PatchesAlone => "patches without a class token",
            Self::LearnedQuery => "attention pooling",
            Self::NormAfterBranch => "norms after residual branches",
            Self::GatedPerceptron => "gated perceptrons",
            Self::RotaryPositions => "rotary positions",
            Self::ClassBeforeMaps => "class tokens behind convolutions",
            Self::DepthwiseForm => "depthwise convolutions with other activations than ReLU6",
            Self::MapNorm => "layer norms between convolutions",
            Self::MapPerceptron => "perceptrons between convolutions",
            Self::SqueezeExcite => "squeeze and excitation",
            Self::MapAttention => "attention between convolutions",
            Self::Means => "mean pooling",
            Self::PickAnywhere => "pooling at a token inside a text without a causal mask",
            Self::ScaledTokens => "scaled embeddings of tokens",
            Self::ClassBehindTexts => "class tokens behind texts",
        }
    }
}
