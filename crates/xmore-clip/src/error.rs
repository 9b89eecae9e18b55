//! What can go wrong between a model folder and an embedding.

use std::path::{Path, PathBuf};

use thiserror::Error;
use xmore_files::image::ImageError;

use crate::checkpoint::Dtype;

/// Result of this crate's fallible functions.
pub type Result<T, E = ClipError> = std::result::Result<T, E>;

/// Errors of loading models, images and texts. Every message names the file it is about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClipError {
    /// A file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A model folder lacks a file that its configuration names.
    #[error("{file} is missing from the model folder {}{}", dir.display(), though_named(named_by.as_deref()))]
    MissingFile {
        /// The model folder.
        dir: PathBuf,
        /// The missing file, relative to it.
        file: String,
        /// The file of the folder that names it, if one does.
        named_by: Option<PathBuf>,
    },
    /// A configuration or tokenizer file does not say what it should.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A checkpoint is not in a format that is read here, or is damaged.
    #[error("{}: not a readable checkpoint: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// A checkpoint has no tensor of a name that the architecture needs.
    #[error("{}: no tensor `{name}`; the file holds {count} tensors, such as {sample}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor looked for.
        name: String,
        /// How many there are.
        count: usize,
        /// A few that are there.
        sample: String,
    },
    /// A tensor has another shape than the architecture needs.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape that was found.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A tensor holds other elements than floats.
    #[error("{}: tensor `{name}` holds {found}, expected {expected}", path.display())]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it holds.
        found: Dtype,
        /// What can be read.
        expected: &'static str,
    },
    /// A tensor holds values that are NaN or infinite.
    #[error(
        "{}: tensor `{name}` has {count} values that are NaN or infinite, the first at element {first}; the file is damaged or \
         its training had diverged",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How many of its values.
        count: usize,
        /// The first of them, counted in row-major order.
        first: usize,
    },
    /// An image could not be decoded.
    #[error("{}: {source}", path.display())]
    Image {
        /// The image file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
    /// Prepared pixels are not of the image tower's size.
    #[error("an image of {found} values, expected {expected}: [{side}, {side}, 3]")]
    PixelCount {
        /// Values that were given.
        found: usize,
        /// Values of an image.
        expected: usize,
        /// Side of the tower's square, in pixels.
        side: usize,
    },
    /// Tokens that the text tower cannot take.
    #[error("{}: {message}", path.display())]
    Tokens {
        /// The model.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// Vectors that were to take the place of words.
    #[error("{}: {message}", path.display())]
    Context {
        /// The model.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A GPU cannot be used, or failed.
    #[error("{0}")]
    Device(#[from] xmore_cuda::CudaError),
    /// A device does not compute in a precision.
    #[error("{device} does not compute in {precision}: {reason}")]
    Precision {
        /// The precision's name.
        precision: &'static str,
        /// The device's name.
        device: String,
        /// What it lacks.
        reason: String,
    },
    /// Texts were to be cleaned in another way, but the model's tokenizer does that by itself.
    #[error("{}: its tokenizer cleans texts by itself, in one way only", path.display())]
    Cleaning {
        /// The model.
        path: PathBuf,
    },
    /// A model needs an operation that is not written for GPUs yet.
    #[error("the model needs {operation}, which is not computed on a GPU yet; the processor computes it")]
    NotOnGpu {
        /// The operation.
        operation: &'static str,
    },
    /// A GPU was to decode image files, but the model computes on the processor.
    #[error("a GPU decodes images only for a model that computes on it; this one computes on the processor")]
    Decoding,
    /// A text could not be tokenized.
    #[error("cannot tokenize {text:?}: {message}")]
    Tokenize {
        /// The start of the text.
        text: String,
        /// What the tokenizer said.
        message: String,
    },
}

/// What asks for a file that is missing.
fn though_named(named_by: Option<&Path>) -> String {
    named_by.map_or_else(String::new, |path| format!(", though {} names it", path.display()))
}

impl ClipError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn config(path: &Path, message: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), message: message.into() }
    }

    pub(crate) fn checkpoint(path: &Path, message: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_owned(), message: message.into() }
    }
}
