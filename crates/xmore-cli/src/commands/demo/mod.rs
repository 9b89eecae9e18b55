//! `xmore demo`: pairs in, a memory, held-out photos classified by every method, a table and a report out.

mod apt;
mod experiment;
mod extract;
mod findings;
mod json;
mod pairs;
pub(crate) mod pictures;
mod report;
mod splits;
mod stamps;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use xmore::{ModelName, RetrievalOptions};
use xmore_files::{Output, is_standard_output};

use crate::error::{CliError, Result};
use crate::flags::model::ModelChoice;
use crate::html::write_page;
use crate::messages::tell;
use crate::output::{output_error, print, print_json};
use crate::progress;
use experiment::Settings;
use pairs::PairSet;

/// Compare zero-shot with retrieved captions on held-out photos, and write a report
///
/// Fetches the model `lite` and Debian's free tuxpaint stamps (photos with captions), remembers 75 % of the pairs, classifies the other
/// 25 % with every method, over several random splits.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Use your own pairs: a folder with one sub-folder for each label (its name, spaces for underscores), each holding at least 4
    /// pictures with their captions in .txt files of the same stem
    #[arg(long, value_name = "DIR")]
    pairs: Option<PathBuf>,
    /// Where to write the report: one file, nothing beside it
    #[arg(short, long, value_name = "FILE", default_value = "xmore-demo.html")]
    output: PathBuf,
    /// Captions kept for each photo
    #[arg(short, default_value_t = RetrievalOptions::default().k)]
    k: usize,
    /// Pairs looked at for each photo [default: 128 as in the paper, but at most a tenth of the memory]
    #[arg(long, value_name = "N")]
    neighbors: Option<usize>,
    /// Number of random splits
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    splits: u64,
    /// Seed of the first split; the others have the next numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: ModelChoice,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Table and explained examples
    Table,
    /// One object
    Json,
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    // What can be wrong without any work is found before minutes of it.
    let settings = Settings { k: args.k, neighbors: args.neighbors, splits: args.splits, seed: args.seed };
    settings.retrieval(0).check()?;
    let (output, mut file) = open_output(&args.output)?;
    let own = args.pairs.as_deref().map(PairSet::folder).transpose()?;

    let name = args.model.name()?;
    if matches!(name, ModelName::Bundled(_)) {
        xmore_hub::fetch(&name, &progress::fetch_progress())?;
    }
    let model = Arc::new(args.model.open()?);
    let set = match own {
        Some(set) => set,
        None => PairSet::stamps(&stamps::fetch(&progress::fetch_progress())?)?,
    };
    let (pairs, labels) = (set.pairs.len(), set.labels.names().len());
    tell!("{pairs} pairs with {labels} labels from {}", set.dir.display());
    let told = set.skipped.len();
    list_skipped(&set.skipped);

    let findings = experiment::run(set, &model, settings)?;
    list_skipped(&findings.set.skipped[told..]);
    let page = report::page(&findings)?;
    write_page(&mut file, &page).and_then(|()| file.commit()).map_err(|e| output_error(&output, e))?;

    match args.format {
        Format::Table => print(&text::table(&findings, &output)?),
        Format::Json => print_json(&json::Json::of(&findings, &output)?),
    }
}

/// Tells what is left out; of many things the first. The report has them all.
fn list_skipped(skipped: &[String]) {
    const SHOWN: usize = 10;
    skipped.iter().take(SHOWN).for_each(|what| tell!("left out: {what}"));
    if skipped.len() > SHOWN {
        tell!("left out: {} more, listed in the report", skipped.len() - SHOWN);
    }
}

/// Opens the report before minutes of work, so that what is wrong with its place is found now; returns its absolute path too.
fn open_output(path: &Path) -> Result<(PathBuf, Output)> {
    if path.is_dir() {
        return Err(CliError::Usage(format!(
            "--output {}: expected a file, found a folder; name a file in it, such as {}",
            path.display(),
            path.join("xmore-demo.html").display()
        )));
    }
    let file = Output::create(path).map_err(|e| output_error(path, e))?;
    let shown = if is_standard_output(path) { path.to_owned() } else { absolute(path)? };
    Ok((shown, file))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|reason| CliError::Io {
        action: "resolve",
        path: path.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_s_place_is_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = open_output(&dir.path().join("new/report.html")).unwrap();
        assert!(path.is_absolute() && path.parent().unwrap().is_dir());
        let message = open_output(dir.path()).err().unwrap().to_string();
        assert!(message.contains("found a folder"), "{message}");
        std::fs::write(dir.path().join("file"), "").unwrap();
        let message = open_output(&dir.path().join("file/report.html")).err().unwrap().to_string();
        assert!(message.contains("file"), "{message}");
    }
}
