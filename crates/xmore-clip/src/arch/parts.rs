//! What an architecture gives: facts, and towers that are loaded when they are first used.

use crate::device::{Device, ImageLoader, Operation, Place, TextLoader};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::preprocess::Preprocess;
use crate::tokenizer::Tokenizer;

/// A model whose configuration has been read.
pub(crate) struct Opened {
    pub(crate) facts: Facts,
    /// Where the towers compute.
    pub(crate) place: Place,
    pub(crate) image: Box<dyn ImageLoader>,
    pub(crate) text: Box<dyn TextLoader>,
    pub(crate) tokenizer: TokenizerLoader,
}

/// Reads a model's tokenizer.
pub(crate) type TokenizerLoader = Box<dyn Fn() -> Result<Box<dyn Tokenizer>> + Send + Sync>;

/// An image tower that a configuration describes.
pub(crate) struct ImagePart {
    /// What it is, in words.
    pub(crate) description: String,
    /// Side of the square that it sees, in pixels.
    pub(crate) image_size: usize,
    /// What it needs of a device beside what every device has.
    pub(crate) operations: Vec<Operation>,
    pub(crate) loader: Box<dyn ImageLoader>,
}

/// A text tower that a configuration describes, and its tokenizer.
pub(crate) struct TextPart {
    /// What it is, in words.
    pub(crate) description: String,
    /// Most tokens of a text, start and end included.
    pub(crate) context_length: usize,
    /// What it needs of a device beside what every device has.
    pub(crate) operations: Vec<Operation>,
    pub(crate) loader: Box<dyn TextLoader>,
    pub(crate) tokenizer: TokenizerLoader,
    /// Files of the folder that it and its tokenizer are read from, beside the weights.
    pub(crate) beside: Vec<String>,
}

/// What is known of a model before its towers are loaded.
pub(crate) struct Facts {
    /// Length of the joint embedding.
    pub(crate) dim: usize,
    /// Of a cosine, before a softmax or sigmoid: the factor, and what is added.
    pub(crate) logit_scale: f32,
    pub(crate) logit_bias: f32,
    pub(crate) preprocess: Preprocess,
    /// What the towers are, image first.
    pub(crate) towers: [String; 2],
    pub(crate) context_length: usize,
    /// The files that the fingerprint is made of, in order.
    pub(crate) files: Vec<String>,
    /// Other files that are read, where they are there.
    pub(crate) beside: Vec<String>,
}

/// From a tower's features into the joint space.
pub(crate) enum Head<D: Device> {
    Linear(D::Linear),
    Perceptron(HeadPerceptron<D>),
    /// A linear map, to whose result that of a perceptron is added.
    LinearAndResidual(D::Linear, HeadPerceptron<D>),
}

/// fc2(gelu(fc1(x))), of `width` hidden values.
pub(crate) struct HeadPerceptron<D: Device> {
    pub(crate) fc1: D::Linear,
    pub(crate) fc2: D::Linear,
    pub(crate) width: usize,
}

impl<D: Device> Head<D> {
    /// `features` is `[rows, inputs]`; returns `[rows, dim]`, of any length.
    pub(crate) fn forward(
        &self,
        run: &mut D::Run<'_>,
        rows: usize,
        features: &D::Rows,
        dim: usize,
    ) -> D::Rows {
        let mut out = D::rows(run, rows, dim);
        match self {
            Self::Linear(linear) => D::linear_into(run, linear, features, &mut out, None),
            Self::Perceptron(perceptron) => {
                let hidden = perceptron.hidden(run, rows, features);
                D::linear_into(run, &perceptron.fc2, &hidden, &mut out, None);
            }
            Self::LinearAndResidual(linear, perceptron) => {
                D::linear_into(run, linear, features, &mut out, None);
                let hidden = perceptron.hidden(run, rows, &out);
                D::linear_add(run, &perceptron.fc2, &hidden, &mut out);
            }
        }
        out
    }
}

impl<D: Device> HeadPerceptron<D> {
    fn hidden(&self, run: &mut D::Run<'_>, rows: usize, x: &D::Rows) -> D::Rows {
        let mut hidden = D::rows(run, rows, self.width);
        D::linear_into(run, &self.fc1, x, &mut hidden, Some(Activation::Gelu));
        hidden
    }
}
