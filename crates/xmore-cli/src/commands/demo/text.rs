//! The demo's result on standard output for people: a table with explained examples.

use std::fmt::Write;
use std::path::Path;

use comfy_table::Table;
use xmore::{Method, best};

use super::experiment::paper_neighbors;
use super::findings::{Change, Findings, SHOWN, Tally, Turn, examples, tally};
use crate::error::Result;
use crate::messages::counted;
use crate::output::table::{add_row, framed};

/// Splits from which on no more are suggested.
const MANY_SPLITS: usize = 40;
/// Labels shown of a distribution, and captions of an example.
const TOP_LABELS: usize = 3;
const TOP_CAPTIONS: usize = 8;

/// The findings for people.
pub(super) fn table(findings: &Findings, report: &Path) -> Result<String> {
    let changes = findings.changes()?;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut out, findings, &changes, report);
    Ok(out)
}

fn write_table(out: &mut String, findings: &Findings, changes: &[Change], report: &Path) -> std::fmt::Result {
    let splits = findings.runs.len();
    writeln!(
        out,
        "Top-1 accuracy, {}: {} pairs in memory, {} photos classified, {} labels, K = {}",
        counted(splits as u64, "random split"),
        findings.runs[0].memory.len(),
        findings.runs[0].queries.len(),
        findings.set.labels.names().len(),
        findings.k
    )?;
    writeln!(out, "{}", methods(findings))?;
    if splits > 1 {
        let [least, most] = findings.gains(SHOWN).map(|gain| points(gain, None));
        writeln!(
            out,
            "± is the sample standard deviation over the splits. The gain of {SHOWN}, the default, is {least} on the worst split"
        )?;
        let more = if splits < MANY_SPLITS { "; `--splits 40` says more" } else { "" };
        writeln!(out, "and {most} on the best{more}.")?;
    }
    let own = findings.own_captions();
    writeln!(
        out,
        "{own} of {} queries have a pair with their very caption in memory; the last",
        findings.queries()
    )?;
    writeln!(out, "column is with a memory from which all such pairs are taken out.")?;
    write!(out, "Captions are those of the {} nearest pairs", findings.neighbors)?;
    let paper = findings.neighbor_sweep().into_iter().find(|(n, _)| *n == paper_neighbors());
    match paper.filter(|_| findings.neighbors != paper_neighbors()) {
        Some((n, figures)) => {
            let f = figures.get(Method::Xmore);
            let accuracy = percent(f.acc1_mean, f.acc1_std);
            writeln!(out, "; with {n}, which the paper takes of 400 million, xmore has {accuracy}.")?;
        }
        None => writeln!(out, ".")?,
    }
    let Tally { better, worse, still_wrong } = tally(changes);
    writeln!(
        out,
        "{SHOWN} changed {} of {} answers: {better} for the better, {worse} for the worse, {still_wrong} from one wrong label to another.",
        changes.len(),
        findings.queries()
    )?;
    for (i, example) in examples(changes).into_iter().enumerate() {
        writeln!(out)?;
        explain(out, i + 1, findings, example)?;
    }
    writeln!(out, "\nReport: {}", report.display())
}

fn methods(findings: &Findings) -> Table {
    let mut table = framed(&["method", "accuracy", "gain over zero-shot", "without same captions"]);
    let strict = findings.strict_figures();
    for (method, f) in findings.figures().0 {
        let gain = match method {
            Method::ZeroShot => String::new(),
            _ => points(f.gain_mean, f.gain_std),
        };
        let strict = strict.as_ref().map_or("–".to_owned(), |s| {
            let f = s.get(method);
            percent(f.acc1_mean, f.acc1_std)
        });
        add_row(&mut table, [method.name().to_owned(), percent(f.acc1_mean, f.acc1_std), gain, strict]);
    }
    table
}

fn explain(out: &mut String, number: usize, findings: &Findings, change: &Change) -> std::fmt::Result {
    let set = &findings.set;
    let turn = match change.turn {
        Turn::Better => "captions put it right",
        Turn::Worse => "captions put it wrong",
        Turn::StillWrong => "wrong with and without captions",
    };
    writeln!(out, "Example {number}: {turn}: {}", set.pairs[change.pair].name)?;
    writeln!(
        out,
        "  truth           {} (split {}{})",
        set.label(change.truth),
        change.run.seed,
        if change.own_caption { ", its own caption is in memory" } else { "" }
    )?;
    let image = &change.evidence.image;
    writeln!(out, "  picture alone   {}   confidence {:.2}", top(findings, &image.values), image.confidence)?;
    if let Some(captions) = &change.evidence.captions {
        writeln!(
            out,
            "  captions alone  {}   confidence {:.2}",
            top(findings, &captions.values),
            captions.confidence
        )?;
    }
    let (together, gate) = (top(findings, &change.scores), 100.0 * change.gate);
    writeln!(out, "  {SHOWN:<14}  {together}   memory used with a weight of {gate:.0} %")?;
    let evidence = change.evidence;
    writeln!(out, "  captions (cosine with the picture, label voted for):")?;
    let shown = || evidence.retrieved.iter().zip(&evidence.votes).take(TOP_CAPTIONS);
    let width = shown().map(|(_, &vote)| set.label(vote).chars().count()).max().unwrap_or(0);
    for (caption, &vote) in shown() {
        writeln!(out, "    {:+.3}  {:<width$}  {}", caption.similarity, set.label(vote), caption.caption)?;
    }
    match evidence.retrieved.len().saturating_sub(TOP_CAPTIONS) {
        0 => Ok(()),
        more => writeln!(out, "    … and {more} more, in the report"),
    }
}

/// The most probable labels.
fn top(findings: &Findings, probabilities: &[f64]) -> String {
    let shown = best(probabilities, TOP_LABELS)
        .into_iter()
        .map(|(label, p)| format!("{} {:.1} %", findings.set.label(label), 100.0 * p));
    shown.collect::<Vec<_>>().join(", ")
}

/// "51.4 ± 2.0 %"
pub(super) fn percent(mean: f64, std: Option<f64>) -> String {
    match std {
        Some(std) => format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * std),
        None => format!("{:.1} %", 100.0 * mean),
    }
}

/// "+5.7 ± 1.0", in percentage points.
pub(super) fn points(mean: f64, std: Option<f64>) -> String {
    // Rounded first: a difference of a rounding error must not show as "-0.0".
    let mean = (1000.0 * mean).round() / 10.0 + 0.0;
    match std {
        Some(std) => format!("{mean:+.1} ± {:.1}", 100.0 * std),
        None => format!("{mean:+.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_in_words() {
        assert_eq!(percent(0.5144, Some(0.02)), "51.4 ± 2.0 %");
        assert_eq!(percent(0.5144, None), "51.4 %");
        assert_eq!(points(0.0571, Some(0.01)), "+5.7 ± 1.0");
        assert_eq!(points(-1e-9, None), "+0.0");
        assert_eq!(points(-0.02, None), "-2.0");
    }
}
