//! The results as text: plain tables, Markdown, csv.

use super::results::Results;
use super::sections::{CSV_HEADER, Grid, csv_row, heading, of_dataset, of_suite};
use crate::error::{CliError, Result};
use crate::output::table::{numbers, trimmed};

/// Plain tables, one below the other.
pub(super) fn plain(results: &Results<'_>) -> String {
    let show = |grid: &Grid| format!("{}\n{}", grid.title, trimmed(&numbers(&grid.header, &grid.rows)));
    join(results, |heading| heading.to_owned(), show)
}

/// Markdown tables under headings.
pub(super) fn markdown(results: &Results<'_>) -> String {
    let cell = |text: &String| text.replace('|', "\\|");
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
    let show = |grid: &Grid| {
        let rule: Vec<&str> = (0..grid.header.len()).map(|i| if i == 0 { "---" } else { "---:" }).collect();
        let rows: String = grid.rows.iter().map(|row| line(row)).collect();
        format!("**{}**\n\n{}| {} |\n{rows}", grid.title, line(&grid.header), rule.join(" | "))
    };
    join(results, |heading| format!("## {heading}"), show)
}

fn join(results: &Results<'_>, head: impl Fn(&str) -> String, show: impl Fn(&Grid) -> String) -> String {
    let mut parts = Vec::new();
    for report in results.reports {
        parts.push(head(&heading(report)));
        parts.extend(of_dataset(report).iter().map(&show));
    }
    if let Some(grid) = of_suite(results) {
        parts.push(show(&grid));
    }
    parts.extend(results.missing.iter().map(ToString::to_string));
    parts.join("\n\n")
}

/// A row for each dataset and method.
pub(super) fn csv(results: &Results<'_>) -> Result<String> {
    let fail = |e: csv::Error| CliError::Failed(e.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(CSV_HEADER).map_err(fail)?;
    for report in results.reports {
        for method in &report.methods {
            writer.write_record(csv_row(report, method)).map_err(fail)?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
