//! What is shown of a query image's evidence: one method's predictions, and why. The JSON of the command line and of the server.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::calibration::{MethodCalibration, Temperature};
use crate::error::Result;
use crate::evidence::Evidence;
use crate::kernel::{GatedPrediction, LabelSupport, SupportKind};
use crate::labels::Labels;
use crate::methods::Method;
use crate::probabilities::image_weight;
use crate::scores::Scores;

/// Probability of each label.
pub type Distribution = BTreeMap<String, f64>;

/// One method's answer to one query image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    /// The best label; null where its score or similarity is below the least that was asked for.
    pub label: Option<String>,
    /// The method.
    pub method: &'static str,
    /// `sigmoid` where scores are each label's probability by itself; absent where they are a distribution over the labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_function: Option<&'static str>,
    /// The best labels, best first, ties in the labels' order; transformers' pipeline shape.
    pub predictions: Vec<Prediction>,
    /// 1 − H/ln C of the image's distribution.
    pub image_confidence: f64,
    /// The same of the captions'; null without captions.
    pub caption_confidence: Option<f64>,
    /// What `xmore` weighs the image with, in [0, 1]; the captions have the rest. Null without captions.
    pub image_weight: Option<f64>,
    /// `xmore-kernel`: how far the captions around such images are taken into account, in [0, 1].
    pub memory_gate: Option<f64>,
    /// `xmore-kernel`: the weight of the images whose captions name the labels, in [0, 1]. With the gate 0 as well the answer is zero-shot's.
    pub prototype_weight: Option<f64>,
    /// Whether the scores are calibrated. Absent where no calibration was given for the method; false where it is of no use: a method that
    /// uses captions found none, or the scores are sigmoids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<bool>,
    /// The temperature that they are calibrated with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What a remote index has to say, such as why it gave fewer pairs than asked for.
    pub note: Option<String>,
    /// Why, if asked for.
    #[serde(flatten)]
    pub explanation: Option<Explanation>,
}

/// What an answer is to have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerOptions {
    /// The method.
    pub method: Method,
    /// What its scores are.
    pub scores: Scores,
    /// How many of the best labels, at least 1.
    pub top: usize,
    /// Whether it is explained.
    pub explain: bool,
    /// Least score of the best label to be the answer.
    pub min_score: Option<f64>,
    /// Least similarity of the best label to be the answer.
    pub min_similarity: Option<f32>,
    /// What scores are calibrated with; those of an image without captions are not, where the method uses captions, and sigmoid scores never.
    pub temperature: Option<Temperature>,
    /// Least calibrated score of the best label to be the answer, where scores are calibrated and `min_score` says nothing else.
    pub calibrated_min_score: Option<f64>,
}

impl AnswerOptions {
    /// The five best labels by their distribution, without an explanation, whatever their scores.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            scores: Scores::default(),
            top: 5,
            explain: false,
            min_score: None,
            min_similarity: None,
            temperature: None,
            calibrated_min_score: None,
        }
    }

    /// The same with calibrated scores. The threshold, if there is one, counts unless another score is asked for.
    #[must_use]
    pub fn calibrated(self, fitted: &MethodCalibration) -> Self {
        Self {
            temperature: Some(fitted.temperature()),
            calibrated_min_score: fitted.threshold.map(|threshold| threshold.min_score),
            ..self
        }
    }

    /// Whether the best label is good enough to be the answer.
    fn names(&self, best: &Prediction, is_calibrated: bool) -> bool {
        let calibrated = self.calibrated_min_score.filter(|_| is_calibrated);
        self.min_score.or(calibrated).is_none_or(|least| best.score >= least)
            && self.min_similarity.is_none_or(|least| best.similarity >= least)
    }
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prediction {
    /// The label.
    pub label: String,
    /// Its probability by the method: among the labels, or by itself where scores are sigmoids.
    pub score: f64,
    /// Cosine of the image and the label's prompt, whatever the method and the other labels; 0.2 to 0.3 is a good match of a CLIP model.
    pub similarity: f32,
}

/// Where an answer comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The answer over all labels.
    pub scores: Distribution,
    /// p_img; with averaged templates under `templates`.
    pub image_distribution: Distribution,
    /// p_cap; null without captions.
    pub caption_distribution: Option<Distribution>,
    /// The captions, best first.
    pub captions: Vec<AnsweredCaption>,
    /// `xmore-kernel`: why the memory is taken into account or not.
    pub memory: Option<MemoryUse>,
}

/// Why `xmore-kernel` takes a memory into account or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemoryUse {
    /// What opened the gate for this image; null while it is closed.
    pub opened_by: Option<SupportKind>,
    /// What that means, in words.
    pub opened_because: Option<&'static str>,
    /// What the memory shows of the labels.
    #[serde(flatten)]
    pub labels: LabelSupport,
}

impl MemoryUse {
    fn of(gated: &GatedPrediction) -> Self {
        Self {
            opened_by: gated.opened_by,
            opened_because: gated.opened_by.map(SupportKind::summary),
            labels: (*gated.support).clone(),
        }
    }
}

/// A caption that was kept, with the label that it votes for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnsweredCaption {
    /// Row of the pair in the memory, or the remote index's id.
    pub id: u64,
    /// Cosine of the query image and the caption.
    pub similarity: f32,
    /// Cosine of the query image and the pair's image.
    pub image_similarity: f32,
    /// The caption.
    pub caption: String,
    /// The pair's image, as the memory names it.
    pub image_path: String,
    /// The label whose probability given this caption is the largest.
    pub vote: String,
}

impl Answer {
    /// One method's answer by the evidence on an image.
    ///
    /// # Errors
    /// Those of [`Evidence::scores_as`].
    pub fn new(evidence: &Evidence, labels: &Labels, options: &AnswerOptions) -> Result<Self> {
        let names = labels.names();
        // A temperature is of distributions.
        let calibrates = options.scores == Scores::Softmax && evidence.answers_by(options.method);
        let temperature = options.temperature.filter(|_| calibrates);
        let scores = evidence.scores_as(options.method, options.scores)?;
        let scores = match temperature {
            Some(temperature) => temperature.apply(&scores),
            None => scores,
        };
        let image = evidence.templates.as_ref().unwrap_or(&evidence.image);
        let map = |probabilities: &[f64]| -> Distribution {
            names.iter().cloned().zip(probabilities.iter().copied()).collect()
        };
        let explanation = options.explain.then(|| Explanation {
            scores: map(&scores),
            image_distribution: map(&image.values),
            caption_distribution: evidence.captions.as_ref().map(|captions| map(&captions.values)),
            captions: evidence
                .retrieved
                .iter()
                .zip(&evidence.votes)
                .map(|(caption, &vote)| AnsweredCaption {
                    id: caption.id,
                    similarity: caption.similarity,
                    image_similarity: caption.image_similarity,
                    caption: caption.caption.clone(),
                    image_path: caption.image_path.clone(),
                    vote: names[vote].clone(),
                })
                .collect(),
            memory: evidence.gated.as_ref().map(MemoryUse::of),
        });
        let prediction = |(label, score): (usize, f64)| Prediction {
            label: names[label].clone(),
            score,
            similarity: evidence.similarities[label],
        };
        let predictions: Vec<Prediction> = best(&scores, options.top).into_iter().map(prediction).collect();
        let named = predictions.first().filter(|best| options.names(best, temperature.is_some()));
        Ok(Self {
            label: named.map(|best| best.label.clone()),
            method: options.method.name(),
            score_function: (options.scores != Scores::default()).then(|| options.scores.name()),
            predictions,
            image_confidence: image.confidence,
            caption_confidence: evidence.captions.as_ref().map(|captions| captions.confidence),
            image_weight: evidence.captions.as_ref().map(|captions| image_weight(image, captions)),
            memory_gate: evidence.gated.as_ref().map(|gated| gated.gate),
            prototype_weight: evidence.gated.as_ref().map(|gated| gated.prototype_weight),
            calibrated: options.temperature.map(|_| temperature.is_some()),
            temperature: temperature.map(Temperature::value),
            note: evidence.note.clone(),
            explanation,
        })
    }
}

/// The `top` largest scores and their labels' indices, best first, ties in the labels' order.
pub fn best(scores: &[f64], top: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(top);
    order
}
