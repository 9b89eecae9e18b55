//! What is measured, and how.

use super::methods::{EvalMethod, TdaConfig};
use xmore::{MethodCalibration, Ranking, RetrievalOptions};

/// What an evaluation measures.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The methods, in the order of the results.
    pub methods: Vec<EvalMethod>,
    /// Captions kept for the main figures, K.
    pub k: usize,
    /// Further numbers of captions, none above the retrieval's own `k`.
    pub sweep: Vec<usize>,
    /// Retrievals that differ from the main one.
    pub variants: Vec<Variant>,
    /// Orders in which the stream methods see the images; the first gives the answers that are compared.
    pub orders: u64,
    /// Seed of orders and bootstrap samples.
    pub seed: u64,
    /// Bootstrap samples.
    pub samples: usize,
    /// Also measure what is left when answers less confident than this are withheld.
    pub abstain_below: Option<f64>,
    /// TDA's hyperparameters.
    pub tda: TdaConfig,
    /// Keep what a calibration is fitted on ([`Details::samples`](crate::Details::samples)).
    pub keep_samples: bool,
    /// Measure these methods with what was fitted for them. That it goes with model, memory and options is for the caller to see to.
    pub calibrations: Vec<MethodCalibration>,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            k: RetrievalOptions::default().k,
            sweep: Vec::new(),
            variants: Vec::new(),
            orders: 5,
            seed: 0,
            samples: 10_000,
            abstain_below: None,
            tda: TdaConfig::default(),
            keep_samples: false,
            calibrations: Vec::new(),
        }
    }
}

/// A retrieval that differs from the main one in one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Variant {
    /// Captions in the order of their images: the first stage alone.
    Unsorted,
    /// Captions searched with the query image directly.
    ImageToText,
    /// Pairs with an image nearly that of the query (cosine above the number) left out: they are the query, or leak it.
    WithoutQueryDuplicates(f32),
    /// With them, where the main retrieval leaves them out.
    WithQueryDuplicates,
}

impl Variant {
    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsorted => "unsorted",
            Self::ImageToText => "image-to-text",
            Self::WithoutQueryDuplicates(_) => "without-query-duplicates",
            Self::WithQueryDuplicates => "with-query-duplicates",
        }
    }

    /// The main retrieval's options, changed.
    pub fn of(self, options: RetrievalOptions) -> RetrievalOptions {
        match self {
            Self::Unsorted => RetrievalOptions { ranking: Ranking::ByImage, ..options },
            Self::ImageToText => RetrievalOptions { ranking: Ranking::Direct, ..options },
            Self::WithoutQueryDuplicates(above) => {
                RetrievalOptions { query_duplicates_above: Some(above), ..options }
            }
            Self::WithQueryDuplicates => RetrievalOptions { query_duplicates_above: None, ..options },
        }
    }
}
