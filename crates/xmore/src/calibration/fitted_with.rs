//! What a method's probabilities depend on besides the labels: a calibration is of no use with anything else.

use serde::{Deserialize, Serialize};
use xmore_files::image::Orientation;
use xmore_memory::store::ModelIdentity;

use super::error::CalibrationError;
use crate::labels::Template;
use crate::methods::Method;
use crate::pipeline::Pipeline;
use crate::retrieve::{Ranking, RetrievalOptions};

/// Model, prompts and pairs, as far as a method's answers depend on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FittedWith {
    /// The model that classifies.
    pub model: ModelIdentity,
    /// Which way up images are decoded.
    pub orientation: Orientation,
    /// What else of an image's preparation was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<String>,
    /// The prompts; none of a method that has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<String>>,
    /// The pairs; none of a method that uses none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairsUsed>,
}

/// Pairs, and which of them are looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairsUsed {
    /// Of a memory a digest of its content, of a remote index its URL without a password: what it holds is not known.
    pub memory: String,
    /// Only these rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<(u64, u64)>,
    /// Only pairs whose caption matches this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_filter: Option<String>,
    /// Pairs whose image is more similar to the query image than this are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_duplicates_above: Option<f32>,
    /// How captions are chosen; none of a method that reads all near a photo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<CaptionsUsed>,
}

/// How captions are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptionsUsed {
    /// Captions kept.
    pub k: usize,
    /// Pairs among which they are chosen.
    pub neighbors: usize,
    /// "two-stages", "by-image" or "direct".
    pub ranking: String,
    /// Captions more similar to one another than this count once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_duplicates_above: Option<f32>,
    /// A text that captions are classified inside of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_template: Option<String>,
    /// The model that searches images.
    pub search_model: ModelIdentity,
    /// The model that ranks captions.
    pub rerank_model: ModelIdentity,
}

impl FittedWith {
    /// What a method's answers by a pipeline depend on, with these prompts, and these options if it has pairs.
    pub fn of(
        pipeline: &Pipeline,
        method: Method,
        templates: &[Template],
        options: RetrievalOptions,
    ) -> Self {
        let encoder = pipeline.encoder();
        let has_own_prompts = method == Method::Templates && templates.len() == 1;
        Self {
            model: encoder.identity().clone(),
            orientation: encoder.orientation(),
            preparation: encoder.preparation().map(str::to_owned),
            templates: (!has_own_prompts).then(|| templates.iter().map(ToString::to_string).collect()),
            pairs: if method.needs_memory() { PairsUsed::of(pipeline, method, options) } else { None },
        }
    }

    /// # Errors
    /// [`CalibrationError::FittedWithOther`] for the first thing that is another in `used`.
    pub(super) fn check(&self, method: Method, used: &Self) -> Result<(), CalibrationError> {
        let (expected, found) = (self.facts(), used.facts());
        match expected.into_iter().zip(found).find(|(expected, found)| expected != found) {
            None => Ok(()),
            Some((expected, found)) => Err(CalibrationError::FittedWithOther {
                method: method.name(),
                what: expected.what,
                expected: expected.shown,
                found: found.shown,
            }),
        }
    }

    /// Each thing in a fixed order, as it is compared.
    fn facts(&self) -> Vec<Fact> {
        let pairs = self.pairs.as_ref();
        let captions = pairs.and_then(|pairs| pairs.captions.as_ref());
        let templates = self.templates.as_ref().map(|templates| templates.join(" | "));
        vec![
            Fact::model("model", Some(&self.model)),
            Fact::new("orientation", Some(self.orientation.name())),
            Fact::new("preparation", self.preparation.as_ref()),
            Fact::new("prompts", templates),
            Fact::new("memory", pairs.map(|pairs| &pairs.memory)),
            Fact::new(
                "rows",
                pairs.and_then(|pairs| pairs.rows).map(|(start, end)| format!("{start}..{end}")),
            ),
            Fact::new("caption filter", pairs.and_then(|pairs| pairs.caption_filter.as_ref())),
            Fact::new("query duplicates above", pairs.and_then(|pairs| pairs.query_duplicates_above)),
            Fact::new("k", captions.map(|captions| captions.k)),
            Fact::new("neighbors", captions.map(|captions| captions.neighbors)),
            Fact::new("ranking", captions.map(|captions| &captions.ranking)),
            Fact::new("near duplicates above", captions.and_then(|captions| captions.near_duplicates_above)),
            Fact::new("caption template", captions.and_then(|captions| captions.caption_template.as_ref())),
            Fact::model("search model", captions.map(|captions| &captions.search_model)),
            Fact::model("rerank model", captions.map(|captions| &captions.rerank_model)),
        ]
    }
}

impl PairsUsed {
    fn of(pipeline: &Pipeline, method: Method, options: RetrievalOptions) -> Option<Self> {
        let retrieval = pipeline.retrieval()?;
        let (pairs, models) = (retrieval.pairs(), retrieval.models());
        let reads_all_near = method == Method::Kernel && pairs.memory().is_some();
        Some(Self {
            memory: pipeline.pairs_digest()?.to_owned(),
            rows: retrieval.filter().rows.as_ref().map(|rows| (rows.start, rows.end)),
            caption_filter: pipeline.caption_filter().map(str::to_owned),
            query_duplicates_above: options.query_duplicates_above,
            captions: (!reads_all_near).then(|| CaptionsUsed {
                k: options.k,
                neighbors: options.neighbors,
                ranking: match options.ranking {
                    Ranking::TwoStages => "two-stages",
                    Ranking::ByImage => "by-image",
                    Ranking::Direct => "direct",
                }
                .to_owned(),
                near_duplicates_above: options.near_duplicates_above,
                caption_template: retrieval.caption_template().map(ToString::to_string),
                search_model: models.search.identity().clone(),
                rerank_model: models.rerank.identity().clone(),
            }),
        })
    }
}

/// One thing that answers depend on.
struct Fact {
    what: &'static str,
    /// What is compared.
    key: Option<String>,
    shown: String,
}

impl PartialEq for Fact {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Fact {
    fn new(what: &'static str, value: Option<impl ToString>) -> Self {
        let key = value.map(|value| value.to_string());
        Self { what, shown: key.clone().unwrap_or_else(|| "none".to_owned()), key }
    }

    /// A model, whatever its name.
    fn model(what: &'static str, model: Option<&ModelIdentity>) -> Self {
        let shown = model.map(|model| format!("{model} (fingerprint {})", model.short_fingerprint()));
        Self {
            what,
            key: model.map(|model| format!("{} {}", model.fingerprint, model.dim)),
            shown: shown.unwrap_or_else(|| "none".to_owned()),
        }
    }
}
