//! Evaluation on labeled images: every method side by side from one encoding pass, every image counted.
//!
//! 1. [`Dataset::read`] lists images and labels in whatever layout they are; [`registry`] knows the paper's fifteen datasets.
//! 2. [`EmbeddingCache::images`] encodes them once and for all.
//! 3. [`evaluate`] asks every method of [`EvalOptions`], and gives an [`EvalReport`] with accuracy, calibration and paired statistics,
//!    and [`Details`] on single images.
//!
//! A method is added as a variant of [`EvalMethod`], or of [`Method`](xmore::Method) if `classify` is to have it, too; what it needs to
//! know of an image belongs into [`Evidence`](xmore::Evidence).

mod cache;
mod coop;
mod data;
mod error;
mod fit;
mod memory_use;
mod methods;
mod metrics;
mod naming;
mod options;
mod random;
pub mod registry;
mod report;
mod run;

pub use cache::{CachedImages, EmbeddingCache};
pub use coop::CoopContext;
pub use data::{Dataset, DatasetFormat, DatasetOption, DatasetOptions, LabelColumns};
pub use error::{EvalError, Result};
pub use fit::{FitOptions, FitSamples};
pub use memory_use::MemoryUse;
pub use methods::{EvalMethod, TdaConfig};
pub use metrics::{
    Accuracy, Bin, Calibration, Comparison, Correctness, Outcome, Selective, class_recalls, compare,
    mcnemar_exact, risk_coverage, selective,
};
pub use options::{EvalOptions, Variant};
pub use random::SplitMix64;
pub use report::{
    CalibratedReport, Details, EvalReport, ImageDetails, MethodReport, Naming, Orders, SweepPoint,
    VariantReport,
};
pub use run::{EmbeddedDataset, OtherPrompts, accuracies, evaluate};
