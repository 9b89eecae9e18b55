//! Results as JSON in CLIP_benchmark's schema: an object for each dataset and method, with keys of our own beside.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xmore_eval::{EvalReport, MethodReport, SweepPoint, VariantReport};
use xmore_files::{LeftOut, NotRegular, is_standard_output, read_bounded};

use crate::error::{CliError, Result};
use crate::output::write_whole;

const TASK: &str = "zeroshot_classification";
const LANGUAGE: &str = "en";
/// Results of a run with every method, variant and number of captions have some megabytes.
const MAX_RESULTS_BYTES: u64 = 1 << 30;

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
    notes: Vec<String>,
    settings: Value,
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
        let (architecture, pretrained) = model.split_once(',').unwrap_or((model, ""));
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
            notes: report.notes.clone(),
            settings: settings.clone(),
        };
        report.methods.iter().map(entry).collect()
    }

    /// The report that entries of one dataset were made of.
    fn join(entries: Vec<Entry>) -> Option<EvalReport> {
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
            notes: first.notes.clone(),
        };
        for entry in entries {
            report.methods.push(entry.details);
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

fn variants_of(report: &EvalReport, method: &str) -> Vec<VariantReport> {
    let of_method = |variant: &VariantReport| {
        let acc1: Vec<_> = variant.acc1.iter().filter(|(name, _)| name == method).cloned().collect();
        (!acc1.is_empty()).then(|| VariantReport { acc1, ..variant.clone() })
    };
    report.variants.iter().filter_map(of_method).collect()
}

/// Where a dataset's results go: a name with CLIP_benchmark's places; a `.json` file, a stream or what else is there and no folder, as it is;
/// else a file in the folder.
pub(super) fn path(output: &Path, dataset: &str, model: &str) -> PathBuf {
    let (architecture, pretrained) = model.split_once(',').unwrap_or((model, ""));
    let clean = |text: &str| text.replace(['/', '\\', ':', ','], "-").replace(' ', "_");
    let fill = |text: &str| {
        text.replace("{dataset}", &clean(dataset))
            .replace("{model}", &clean(architecture))
            .replace("{pretrained}", &clean(pretrained))
            .replace("{language}", LANGUAGE)
            .replace("{task}", TASK)
    };
    let given = output.to_string_lossy();
    if given.contains('{') {
        PathBuf::from(fill(&given))
    } else if !output.is_dir()
        && (output.exists() || is_standard_output(output) || output.extension().is_some_and(|e| e == "json"))
    {
        output.to_owned()
    } else {
        let pretrained = if pretrained.is_empty() { "" } else { "_{pretrained}" };
        output.join(fill(&format!("{{dataset}}_{{model}}{pretrained}.json")))
    }
}

/// What is at a path from before.
pub(super) enum Existing {
    Nothing,
    Same(Box<EvalReport>),
    Different,
}

/// Reads results from before.
pub(super) fn read(path: &Path, settings: &Value) -> Result<Existing> {
    let text = match read_bounded(path, MAX_RESULTS_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Existing::Nothing),
        // Streams and devices keep nothing.
        Err(error) if NotRegular::of(&error).is_some() => return Ok(Existing::Nothing),
        Err(reason) => return Err(CliError::Io { action: "read", path: path.to_owned(), reason }),
    };
    // Whatever it is, if it is not ours it is not to be lost.
    let entries: Vec<Entry> = serde_json::from_slice(&text).map_err(|e| {
        CliError::Failed(format!(
            "{}: expected results of xmore eval, found something else: {e}",
            path.display()
        ))
    })?;
    if entries.iter().any(|entry| entry.settings != *settings) {
        return Ok(Existing::Different);
    }
    Ok(Entry::join(entries).map_or(Existing::Nothing, |report| Existing::Same(Box::new(report))))
}

/// Writes results.
pub(super) fn write(path: &Path, entries: &[Entry]) -> Result<()> {
    write_whole(path, |file| {
        serde_json::to_writer_pretty(&mut *file, entries)?;
        file.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_asked() {
        let name = |output, model| path(Path::new(output), "DTD", model).display().to_string();
        assert_eq!(name("out", "ViT-B-16,openai"), "out/DTD_ViT-B-16_openai.json");
        assert_eq!(name("out", "lite"), "out/DTD_lite.json");
        assert_eq!(name("x.json", "lite"), "x.json");
        assert_eq!(name("-", "lite"), "-");
        #[cfg(unix)]
        assert_eq!(name("/dev/null", "lite"), "/dev/null");
        assert_eq!(
            name("b_{dataset}_{pretrained}_{model}_{language}_{task}.json", "RN50,openai"),
            "b_DTD_openai_RN50_en_zeroshot_classification.json"
        );
        assert_eq!(name("out", "local-dir:/a/b"), "out/DTD_local-dir--a-b.json");
    }
}
