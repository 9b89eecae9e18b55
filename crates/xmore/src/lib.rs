//! Zero-shot image classification that looks things up: X-MoRe (arXiv 2308.15273) and its baselines.
//!
//! [`Pipeline`] is the way in: encoders, pairs and options in one value, set up once and asked from any thread.
//!
//! 1. Open a model: [`NamedModel::open`], or [`NamedModel::open_or_fetch`] for one of the hub's by a [`ModelName`]; or bring an
//!    [`Encoder`] of your own.
//! 2. Build a memory of image–caption pairs: [`build_memory`], or [`build_part`] on several machines and [`merge_memories`]; open it, or a remote index: [`OpenPairs::open`].
//! 3. Set up a [`Pipeline`], and make [`Labels`] ready for one [`Method`] or several: [`Pipeline::classifier`].
//! 4. Ask for answers: [`Pipeline::classify`], or [`Pipeline::evidence`] for what every method's answer follows from.
//!
//! `examples/` has these steps; the crate `xmore-eval` measures on labeled images. An image's answer is the same to the bit alone and
//! in any batch.

mod answer;
mod build;
mod calibration;
mod captions;
mod classify;
mod encode;
mod encoder;
mod error;
mod evidence;
mod kernel;
mod labels;
mod math;
mod mentions;
mod methods;
mod model;
mod partly_seen;
mod pipeline;
mod probabilities;
mod retrieve;
mod row_hash;
mod scores;

pub use answer::{
    Answer, AnswerOptions, AnsweredCaption, Distribution, Explanation, MemoryUse, Prediction, best,
};
pub use build::{
    BuildOptions, BuildOutcome, BuildProgress, BuildReport, EmbeddingSetProgress, EmbeddingSetReport,
    MergeProgress, MergeReport, Part, PartError, SkipLimit, SkipSummary, Skipped, add_embedding_set,
    build_memory, build_part, merge_memories,
};
pub use calibration::error::CalibrationError;
pub use calibration::{
    Calibration, CaptionsUsed, Fit, FittedWith, LabelSet, MethodCalibration, PairsUsed, Temperature,
    Threshold,
};
pub use captions::CaptionStore;
pub use classify::{Classifier, StageTimes};
pub use encode::{
    EncodedBatch, EncodedImages, GivenImage, encode_each, encode_files, encode_given, encode_refs,
    encode_texts,
};
pub use encoder::Encoder;
pub use error::{Result, XmoreError};
pub use evidence::{Evidence, SigmoidScores};
pub use kernel::{GatedPrediction, LabelSupport, Support, SupportKind};
pub use labels::error::LabelError;
pub use labels::{
    DEFAULT_TEMPLATE, Label, LabelEntry, LabelFile, LabelList, LabelWarning, Labels, MAX_LABEL_BYTES,
    Template, is_wordnet_id, normalized,
};
pub use math::{confidence, dot, entropy, sigmoid, softmax};
pub use methods::{Method, Modalities};
pub use model::{AutoPrecision, NamedModel};
pub use partly_seen::PartlySeen;
pub use pipeline::{EncodedQueries, IfUnreachable, Opened, Pipeline, PipelineBuilder, QueryImage};
pub use probabilities::{Probabilities, argmax, image_weight, mix};
pub use retrieve::error::RetrievalError;
pub use retrieve::{
    OpenPairs, Queries, Ranking, Retrieval, RetrievalModels, RetrievalOptions, Retrieved, RetrievedCaption,
};
pub use scores::Scores;
pub use xmore_clip::{
    DecodedFiles, DeviceChoice, Embeddings, LoadOptions, Loaded, Pixels, Precision, ResizeMode,
    TextEmbeddings, Tokens,
};
pub use xmore_files::image::Orientation;
#[cfg(feature = "hub")]
pub use xmore_hub::{LITE, ModelName};
pub use xmore_memory::retriever::RemoteOptions;
pub use xmore_memory::store::{Mode, ModelIdentity};
pub use xmore_memory::{Memory, MemoryError};
