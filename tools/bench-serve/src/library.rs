//! The library in this process: what the server is compared with, and who knows the right answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore::{
    Classifier, Evidence, Labels, Method, ModelName, NamedModel, OpenPairs, Queries, Retrieval,
    RetrievalModels, RetrievalOptions, Template, encode_files,
};
use xmore_clip::{LoadOptions, Precision};
use xmore_memory::Memory;

use crate::Result;
use crate::workload::Predictions;

/// The method of all requests.
pub const METHOD: Method = Method::Kernel;
/// Captions kept and pairs looked at, the defaults of both sides; said all the same, should one of them change.
pub const K: usize = 16;
pub const NEIGHBORS: usize = 128;
/// Predictions of an answer.
pub const TOP: usize = 5;

/// The model that a memory was built with.
pub fn model_of(memory: &Memory) -> Result<NamedModel> {
    let recorded = &memory.manifest().model;
    let mut options = LoadOptions::default();
    options.precision = recorded.precision.as_deref().and_then(Precision::named).unwrap_or_default();
    Ok(NamedModel::open_or_fetch(&ModelName::parse(&recorded.name, None)?, &options, &|_| {})?)
}

/// Labels, model and memory, ready to answer.
pub struct Library {
    model: Arc<NamedModel>,
    classifier: Classifier,
}

impl Library {
    /// All set-up, which no measurement counts.
    pub fn new(model: Arc<NamedModel>, memory: Memory, labels: Labels) -> Result<Self> {
        let options = RetrievalOptions { k: K, neighbors: NEIGHBORS, ..RetrievalOptions::default() };
        let pairs = Arc::new(OpenPairs::from(memory));
        let retrieval = Retrieval::new(pairs, RetrievalModels::one(model.clone()), options)?;
        let templates = [Template::default()];
        let classifier = Classifier::new(&*model, labels, Some(retrieval), &templates, &[METHOD])?;
        Ok(Self { model, classifier })
    }

    /// Scores of many photos, in batches, as `xmore classify` has them.
    pub fn classify_files(&self, photos: &[PathBuf]) -> Result<Vec<Vec<f64>>> {
        let mut encoded = encode_files(&*self.model, photos, &mut |_| {})?;
        if let Some((photo, error)) = encoded.failed.pop() {
            return Err(format!("{}: {error}; leave it out", photos[photo].display()).into());
        }
        let evidence = self.classifier.evidence(&Queries::from(encoded.embeddings))?;
        evidence.iter().map(scores).collect()
    }

    /// Scores of one photo, as quickly as the library has them.
    pub fn classify_one(&self, photo: &Path) -> Result<Vec<f64>> {
        let pixels = self.model.preprocess().load(photo)?;
        let embedding = self.model.encode_images(&[pixels])?;
        scores(&self.classifier.evidence(&Queries::from(embedding))?[0])
    }

    /// The best labels with their scores, ties in the labels' order.
    pub fn predictions(&self, scores: &[f64]) -> Predictions {
        let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        order.truncate(TOP);
        let names = self.classifier.labels().names();
        order.into_iter().map(|(label, score)| (names[label].clone(), score)).collect()
    }

    /// Whether the memory is taken into account for these labels; otherwise zero-shot would be measured under another name.
    pub fn uses_memory(&self) -> bool {
        self.classifier.label_support().is_some_and(|support| !support.is_closed())
    }
}

fn scores(evidence: &Evidence) -> Result<Vec<f64>> {
    Ok(evidence.scores(METHOD)?)
}
