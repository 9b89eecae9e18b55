//! Dual encoders: images and texts in, unit vectors of one joint space out.
//!
//! 1. Open a model folder: [`Model::load`].
//! 2. Prepare images: [`Model::preprocess`] gives a [`Preprocess`], whose [`Preprocess::load`] decodes, resizes exactly as Pillow
//!    does, and normalizes.
//! 3. Encode: [`Model::encode_images`] and [`Model::encode_texts`] give [`Embeddings`] `[n, dim]`, the same bits for an input
//!    alone as in any batch.
//! 4. Compare: the cosine of an image and a text is the dot product of their rows; times [`Model::logit_scale`] it is a logit.
//!
//! [`ClipTokenizer`] turns texts into CLIP's token ids by itself, with its built-in vocabulary.
//!
//! Everything runs on the processor with what it offers (AVX-512, AVX2, NEON), chosen at run time, or on an NVIDIA GPU ([`DeviceChoice`]).

mod arch;
mod checkpoint;
mod device;
mod embeddings;
mod error;
mod fingerprint;
mod json;
mod model;
mod nn;
mod options;
mod preprocess;
mod profile;
mod threads;
mod tokenizer;

pub use arch::{ARCHITECTURES, Architecture, CONFIG_FILE, LITE_FILES, LITE2_FILES, TEXT_TOWER_FOLDER};
pub use checkpoint::{Checkpoint, CheckpointKind, Dtype};
pub use device::{DecodedFile, Decoding, DeviceChoice};
pub use embeddings::Embeddings;
pub use error::{ClipError, Result};
pub use model::{DecodedFiles, Model, TextEmbeddings};
#[doc(hidden)]
pub use nn::precision::Precision;
#[doc(hidden)]
pub use nn::speed::{tile_peak_work, time_products};
pub use options::LoadOptions;
pub use preprocess::{
    Interpolation, Loaded, NaFlex, PatchGrid, Pixels, Preprocess, Region, ResizeMode, resize,
};
pub use profile::profile_report;
pub use threads::bind_threads;
#[doc(hidden)]
pub use tokenizer::{
    Cleaning, Padding, TokenizerOptions, encode_with_file, encode_with_folder, encode_with_json,
};
pub use tokenizer::{ClipTokenizer, Tokens};
pub use xmore_cuda::CudaError;
