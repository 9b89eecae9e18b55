//! The results as text: plain tables, Markdown, csv.

use xmore_eval::EvalReport;
use xmore_eval::registry::{Missing, Suite};

use super::sections::{CSV_HEADER, Grid, csv_row, heading, of_dataset, of_suite};
use crate::error::{CliError, Result};
use crate::table::{numbers, trimmed};

/// All that a run found.
pub(super) struct Page<'a> {
    pub(super) reports: &'a [&'a EvalReport],
    pub(super) missing: &'a [Missing],
    pub(super) suite: Option<Suite>,
    /// The model's name.
    pub(super) model: &'a str,
}

/// Plain tables, one below the other.
pub(super) fn plain(page: &Page<'_>) -> String {
    let show = |grid: &Grid| format!("{}\n{}", grid.title, trimmed(&numbers(&grid.header, &grid.rows)));
    join(page, |heading| heading.to_owned(), show)
}

/// Markdown tables under headings.
pub(super) fn markdown(page: &Page<'_>) -> String {
    let cell = |text: &String| text.replace('|', "\\|");
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
    let show = |grid: &Grid| {
        let rule: Vec<&str> = (0..grid.header.len()).map(|i| if i == 0 { "---" } else { "---:" }).collect();
        let rows: String = grid.rows.iter().map(|row| line(row)).collect();
        format!("**{}**\n\n{}| {} |\n{rows}", grid.title, line(&grid.header), rule.join(" | "))
    };
    join(page, |heading| format!("## {heading}"), show)
}

fn join(page: &Page<'_>, head: impl Fn(&str) -> String, show: impl Fn(&Grid) -> String) -> String {
    let mut parts = Vec::new();
    for report in page.reports {
        parts.push(head(&heading(report)));
        parts.extend(of_dataset(report).iter().map(&show));
    }
    if let Some(grid) = of_suite(page) {
        parts.push(show(&grid));
    }
    parts.extend(page.missing.iter().map(ToString::to_string));
    parts.join("\n\n")
}

/// A row for each dataset and method.
pub(super) fn csv(page: &Page<'_>) -> Result<String> {
    let fail = |e: csv::Error| CliError::Failed(e.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(CSV_HEADER).map_err(fail)?;
    for report in page.reports {
        for method in &report.methods {
            writer.write_record(csv_row(report, method)).map_err(fail)?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
