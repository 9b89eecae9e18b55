//! The results of an evaluation, as they are written and read back.

use serde::{Deserialize, Serialize};
use xmore::{Fit, Method};
use xmore_files::LeftOut;

use super::fit::FitSamples;
use super::memory_use::MemoryUse;
use super::metrics::{Accuracy, Calibration, Comparison, Outcome, Selective};

/// Results on one dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Name of the dataset.
    pub dataset: String,
    /// All images, those that could not be read included: they count as wrong.
    pub images: usize,
    /// How many of them could not be read.
    pub unreadable: usize,
    /// Files of the dataset's folders that are not among the images.
    #[serde(default)]
    pub left_out: LeftOut,
    /// Sub-folders without images, so that they are no classes.
    #[serde(default)]
    pub empty_classes: Vec<String>,
    /// Number of labels.
    pub classes: usize,
    /// Share of the images for which captions were retrieved.
    pub coverage: f64,
    /// Each method, in the order asked for.
    pub methods: Vec<MethodReport>,
    /// Accuracy over the number of captions, of the methods that use any.
    pub sweep: Vec<SweepPoint>,
    /// Accuracy with other retrievals.
    pub variants: Vec<VariantReport>,
    /// How far `xmore-kernel` took the memory into account; none if it was not measured.
    #[serde(default)]
    pub memory: Option<MemoryUse>,
    /// Notes about the remote index.
    pub notes: Vec<String>,
}

/// Results of one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodReport {
    /// Its name.
    pub method: String,
    /// Accuracy; of a stream method that of the first order.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Calibration.
    pub calibration: Calibration,
    /// What a calibration that was fitted on other photos made of it, where it was measured with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<CalibratedReport>,
    /// Accuracy with answers withheld, if that was asked for.
    pub selective: Option<Selective>,
    /// Of a stream method the spread over the orders.
    pub orders: Option<Orders>,
    /// Accuracy by whether the captions name the true label.
    pub naming: Option<Naming>,
    /// Share of each label's images that is right; none for a label without images.
    pub recalls: Vec<Option<f64>>,
    /// Against zero-shot and xmore, where these are measured.
    pub comparisons: Vec<Comparison>,
}

/// A method with and without the calibration that it was measured with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibratedReport {
    /// The temperature.
    pub temperature: f64,
    /// Without it.
    pub before: Fit,
    /// With it.
    pub after: Fit,
    /// The answers that the threshold gives, if there is one.
    pub given: Option<Selective>,
    /// The precision that the threshold was fitted for.
    pub target_precision: Option<f64>,
}

/// The spread of a stream method's accuracy over orders of the images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// How many orders.
    pub count: usize,
    /// Mean accuracy.
    pub acc1_mean: f64,
    /// Sample standard deviation; none for a single order.
    pub acc1_std: Option<f64>,
}

/// Accuracy on images whose captions name the true label, and on those whose captions do not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Naming {
    /// Images with captions of which at least one names the true label.
    pub named: usize,
    /// Images with captions of which none does.
    pub unnamed: usize,
    /// Accuracy on the first; none if there is no such image.
    pub acc1_named: Option<f64>,
    /// Accuracy on the second; none if there is no such image.
    pub acc1_unnamed: Option<f64>,
}

/// A method's accuracy with another number of captions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// Captions kept.
    pub k: usize,
    /// The method.
    pub method: String,
    /// Its accuracy; of a stream method the mean over the orders.
    pub acc1: f64,
}

/// Accuracies with another retrieval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantReport {
    /// What is different.
    pub variant: String,
    /// Share of the images for which captions were retrieved.
    pub coverage: f64,
    /// Each method that uses captions, and its accuracy.
    pub acc1: Vec<(String, f64)>,
}

/// What is known of single images, beside the report.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// For each method, for each image the answer; `None` where it could not be read.
    pub answers: Vec<(String, Vec<Option<Outcome>>)>,
    /// For each method that answers each image by itself what a calibration is fitted on, where that was to be kept.
    pub samples: Vec<(Method, FitSamples)>,
    /// For each image both modalities' confidences and the captions; `None` where it could not be read.
    pub images: Vec<Option<ImageDetails>>,
}

/// What was known of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageDetails {
    /// 1 − H(p_img) / ln C.
    pub image_confidence: f64,
    /// 1 − H(p_cap) / ln C; none without captions.
    pub caption_confidence: Option<f64>,
    /// The best captions, a few of them.
    pub captions: Vec<String>,
    /// Whether a caption names the true label; none without captions.
    pub named: Option<bool>,
}

impl EvalReport {
    /// A method's results.
    pub fn method(&self, name: &str) -> Option<&MethodReport> {
        self.methods.iter().find(|report| report.method == name)
    }
}

impl MethodReport {
    /// The accuracy to show: of a stream method the mean over the orders.
    pub fn acc1(&self) -> f64 {
        self.orders.map_or(self.accuracy.acc1, |orders| orders.acc1_mean)
    }

    /// The comparison with a method.
    pub fn against(&self, name: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| comparison.with == name)
    }
}
