//! Zero-shot image classification that looks things up: X-MoRe (arXiv 2308.15273) and its baselines.
//!
//! 1. Name a model: [`ModelName::parse`] knows open_clip's names, the hub's, and paths; get and open it with
//!    [`NamedModel::open_or_fetch`] ([`xmore_hub::lite`] gets the bundled one).
//! 2. Build a memory of image–caption pairs: [`build_memory`].
//! 3. Name the labels: [`Labels`], with a prompt [`Template`] or several.
//! 4. Set up a [`Classifier`] and gather [`Evidence`] on the query images' embeddings ([`encode_files`]).
//! 5. Ask for the answer of any [`Method`]: [`Evidence::scores`], or an [`Answer`] ready to be shown.
//! 6. Measure on labelled images: the crate `xmore-eval`.
//!
//! The evidence on an image is the same to the bit alone and in any batch.

mod answer;
mod build;
mod calibrated;
mod captions;
mod classify;
mod encode;
mod encoder;
mod ensemble;
mod error;
mod labels;
mod math;
mod model;
mod partly_seen;
mod pipeline;
mod recall;
mod retrieve;

pub use answer::{Answer, AnswerOptions, AnsweredCaption, Distribution, Explanation, Prediction, best};
pub use build::{
    BuildOptions, BuildOutcome, BuildProgress, BuildReport, ColumnProgress, ColumnReport, SkipLimit,
    SkipSummary, Skipped, build_memory, embed_column,
};
pub use calibrated::CalibratedBelief;
pub use captions::CaptionStore;
pub use classify::{Classifier, Evidence, StageTimes};
pub use encode::{EncodedBatch, EncodedImages, encode_each, encode_files, encode_refs, encode_texts};
pub use encoder::Encoder;
pub use ensemble::{Belief, Method, argmax, image_weight, mix};
pub use error::{Result, XmoreError};
pub use labels::{
    DEFAULT_TEMPLATE, Label, LabelEntry, LabelFile, LabelList, LabelWarning, Labels, MAX_LABEL_BYTES,
    Template, is_wordnet_id, normalized,
};
pub use math::{confidence, dot, entropy, softmax};
pub use model::NamedModel;
pub use partly_seen::PartlySeen;
pub use pipeline::{EncodedQueries, IfUnreachable, Opened, Pipeline, PipelineBuilder, QueryImage};
pub use retrieve::{
    OpenPairs, Queries, Ranking, Retrieval, RetrievalModels, RetrievalOptions, Retrieved, RetrievedCaption,
};
pub use xmore_hub::{LITE, ModelName};
