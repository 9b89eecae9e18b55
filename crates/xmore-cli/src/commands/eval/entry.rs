//! Results as JSON in CLIP_benchmark's schema: an object for each dataset and method, with keys of our own beside.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xmore::Method;
use xmore_eval::{EvalReport, MemoryUse, MethodReport, SweepPoint, VariantReport};
use xmore_files::LeftOut;

pub(super) const TASK: &str = "zeroshot_classification";
pub(super) const LANGUAGE: &str = "en";

/// One method on one dataset. The first keys are CLIP_benchmark's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    dataset: String,
    model: String,
    pretrained: String,
    task: String,
    metrics: Metrics,
    language: String,
    method: String,
    images: usize,
    unreadable: usize,
    #[serde(default)]
    left_out: LeftOut,
    #[serde(default)]
    empty_classes: Vec<String>,
    classes: usize,
    /// Share of the images with captions.
    coverage: f64,
    details: MethodReport,
    sweep: Vec<SweepPoint>,
    variants: Vec<VariantReport>,
    /// Of xmore-kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryUse>,
    notes: Vec<String>,
    settings: Value,
    /// All methods that were measured together, where others of them are in other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<String>>,
}

/// CLIP_benchmark's three, then calibration. Of a stream method `acc1` is the mean over the orders, the others are of the first order.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Metrics {
    acc1: f64,
    acc5: Option<f64>,
    mean_per_class_recall: f64,
    ece: f64,
    nll: f64,
    brier: f64,
    aurc: f64,
}

impl Entry {
    /// A report's methods.
    pub(super) fn of(report: &EvalReport, model: &str, settings: &Value) -> Vec<Entry> {
        let (architecture, pretrained) = split_name(model);
        let entry = |method: &MethodReport| Entry {
            dataset: report.dataset.clone(),
            model: architecture.to_owned(),
            pretrained: pretrained.to_owned(),
            task: TASK.to_owned(),
            metrics: Metrics {
                acc1: method.acc1(),
                acc5: method.accuracy.acc5,
                mean_per_class_recall: method.accuracy.mean_per_class_recall,
                ece: method.calibration.ece,
                nll: method.calibration.nll,
                brier: method.calibration.brier,
                aurc: method.calibration.aurc,
            },
            language: LANGUAGE.to_owned(),
            method: method.method.clone(),
            images: report.images,
            unreadable: report.unreadable,
            left_out: report.left_out.clone(),
            empty_classes: report.empty_classes.clone(),
            classes: report.classes,
            coverage: report.coverage,
            details: method.clone(),
            sweep: report.sweep.iter().filter(|point| point.method == method.method).cloned().collect(),
            variants: variants_of(report, &method.method),
            memory: report.memory.clone().filter(|_| method.method == Method::Kernel.name()),
            notes: report.notes.clone(),
            settings: settings.clone(),
            methods: None,
        };
        report.methods.iter().map(entry).collect()
    }

    pub(super) fn dataset(&self) -> &str {
        &self.dataset
    }

    pub(super) fn method(&self) -> &str {
        &self.method
    }

    pub(super) fn settings(&self) -> &Value {
        &self.settings
    }

    /// The methods measured together, where they are told.
    pub(super) fn methods(&self) -> Option<&[String]> {
        self.methods.as_deref()
    }

    /// The same for a file that has not all of the methods measured together.
    pub(super) fn among(self, methods: &[String]) -> Self {
        Self { methods: Some(methods.to_vec()), ..self }
    }

    /// Whether it is of this dataset and model.
    pub(super) fn is_of(&self, dataset: &str, model: &str) -> bool {
        self.dataset == dataset && (self.model.as_str(), self.pretrained.as_str()) == split_name(model)
    }

    /// The report that entries of one dataset were made of.
    pub(super) fn join(entries: Vec<Entry>) -> Option<EvalReport> {
        let first = entries.first()?;
        let mut report = EvalReport {
            dataset: first.dataset.clone(),
            images: first.images,
            unreadable: first.unreadable,
            left_out: first.left_out.clone(),
            empty_classes: first.empty_classes.clone(),
            classes: first.classes,
            coverage: first.coverage,
            methods: Vec::new(),
            sweep: Vec::new(),
            variants: Vec::new(),
            memory: None,
            notes: first.notes.clone(),
        };
        for entry in entries {
            report.methods.push(entry.details);
            report.memory = report.memory.or(entry.memory);
            report.sweep.extend(entry.sweep);
            for variant in entry.variants {
                match report.variants.iter_mut().find(|known| known.variant == variant.variant) {
                    Some(known) => known.acc1.extend(variant.acc1),
                    None => report.variants.push(variant),
                }
            }
        }
        report.sweep.sort_by_key(|point| point.k);
        Some(report)
    }
}

/// A model's name as CLIP_benchmark has it: architecture and weights.
pub(super) fn split_name(model: &str) -> (&str, &str) {
    model.split_once(',').unwrap_or((model, ""))
}

fn variants_of(report: &EvalReport, method: &str) -> Vec<VariantReport> {
    let of_method = |variant: &VariantReport| {
        let acc1: Vec<_> = variant.acc1.iter().filter(|(name, _)| name == method).cloned().collect();
        (!acc1.is_empty()).then(|| VariantReport { acc1, ..variant.clone() })
    };
    report.variants.iter().filter_map(of_method).collect()
}
