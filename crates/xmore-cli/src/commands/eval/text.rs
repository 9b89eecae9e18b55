//! The results as text: plain tables, Markdown, csv.

use super::results::Results;
use super::sections::{CSV_HEADER, Grid, csv_row, heading, of_dataset, of_suite};
use crate::error::Result;
use crate::output::csv::CsvOutput;
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

/// Prints a row for each dataset and method.
pub(super) fn print_csv(results: &Results<'_>) -> Result<()> {
    let mut csv = CsvOutput::new();
    csv.row(CSV_HEADER)?;
    for report in results.reports {
        for method in &report.methods {
            csv.row(csv_row(report, method))?;
        }
    }
    csv.flush()
}
