//! Each image's answers, a row for each image and method.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use xmore_eval::Outcome as ImageOutcome;
use xmore_files::Output;

use super::results::Outcome;
use crate::error::Result;
use crate::messages::tell;
use crate::output::output_error;

/// An image that could not be read has no answer.
#[derive(Serialize)]
struct Row<'a> {
    dataset: &'a str,
    image: String,
    label: &'a str,
    method: &'a str,
    answer: Option<&'a str>,
    probability: Option<f64>,
    label_probability: Option<f64>,
    /// Place of the true label, from 1.
    rank: Option<usize>,
    right: bool,
    /// Whether a retrieved caption names the true label.
    named: Option<bool>,
}

/// Writes csv or JSON lines, by the file's name.
pub(super) fn write(path: &Path, mut file: Output, outcomes: &[Outcome]) -> Result<()> {
    let as_csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let written = if as_csv {
        let mut csv = csv::Writer::from_writer(&mut file);
        let rows = each_row(outcomes, &mut |row| csv.serialize(row).map_err(io::Error::other));
        rows.and_then(|()| csv.flush())
    } else {
        each_row(outcomes, &mut |row| {
            serde_json::to_writer(&mut file, &row)?;
            file.write_all(b"\n")
        })
    };
    written.and_then(|()| file.commit()).map_err(|error| output_error(path, error))?;
    for outcome in outcomes.iter().filter(|outcome| outcome.fresh.is_none()) {
        tell!(
            "{}: its images are not in {}: its results were taken from an earlier run",
            outcome.report.dataset,
            path.display()
        );
    }
    Ok(())
}

fn each_row(outcomes: &[Outcome], write: &mut dyn FnMut(Row<'_>) -> io::Result<()>) -> io::Result<()> {
    for fresh in outcomes.iter().filter_map(|outcome| outcome.fresh.as_ref()) {
        let (dataset, details) = (&fresh.dataset, &fresh.details);
        let labels = dataset.labels.names();
        for (i, image) in dataset.images.iter().enumerate() {
            for (method, answers) in &details.answers {
                let answer: Option<ImageOutcome> = answers[i];
                write(Row {
                    dataset: &dataset.name,
                    image: image.to_string(),
                    label: &labels[dataset.truth[i]],
                    method,
                    answer: answer.map(|a| labels[a.label].as_str()),
                    probability: answer.map(|a| a.confidence),
                    label_probability: answer.map(|a| a.truth),
                    rank: answer.map(|a| a.rank + 1),
                    right: answer.is_some_and(|a| a.right()),
                    named: details.images[i].as_ref().and_then(|image| image.named),
                })?;
            }
        }
    }
    Ok(())
}
