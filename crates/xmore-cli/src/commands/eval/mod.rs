//! `xmore eval`: accuracy of the methods on labeled photos.

mod args;
mod encode;
mod entry;
mod html;
mod measure;
mod per_image;
mod results;
mod sections;
mod targets;
mod text;

use xmore_eval::registry::Suite;
use xmore_files::image::Orientation;

pub(crate) use args::EvalArgs;
use args::{EvalFormat, Wanted};

use crate::error::{CliError, Result};
use crate::flags::retrieval::Ks;
use crate::messages::tell;
use crate::output::{print, print_json};
use crate::setup::Setup;
use entry::Entry;
use measure::Session;
use results::{Outcome, Results};
use targets::Target;

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let args = &adjusted(args)?;
    let (targets, missing) = targets::find(args)?;
    for missing in &missing {
        tell!("{missing}");
    }
    if targets.is_empty() {
        return Err(CliError::Failed("none of the datasets was found".to_owned()));
    }
    if let (Some(output), 2..) = (&args.output, targets.len())
        && entry::path(output, "a", "m") == entry::path(output, "b", "m")
    {
        let message = format!(
            "--output {} names one file for {} datasets: give a folder, or put {{dataset}} into the name",
            output.display(),
            targets.len()
        );
        return Err(CliError::Usage(message));
    }
    let setup = Setup::open(&args.retrieval, &args.model)?;
    let session = Session::new(args, &setup)?;
    let mut outcomes = Vec::new();
    let mut failed = Vec::new();
    for target in &targets {
        match one(args, &session, target) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => failed.push((target.name(), error)),
        }
    }
    if outcomes.is_empty() || targets.len() == 1 {
        failed.drain(..).try_for_each(|(_, error)| Err(error))?;
    }
    for (name, error) in &failed {
        tell!("error: {name}: {error}");
    }
    let reports: Vec<&xmore_eval::EvalReport> = outcomes.iter().map(|outcome| &outcome.report).collect();
    let results =
        Results { reports: &reports, missing: &missing, suite: args.suite, model: setup.model.name() };
    match args.format {
        EvalFormat::Table => print(&text::plain(&results))?,
        EvalFormat::Markdown => print(&text::markdown(&results))?,
        EvalFormat::Csv => text::print_csv(&results)?,
        EvalFormat::Json => {
            let entries: Vec<Entry> = reports.iter().flat_map(|report| session.entries(report)).collect();
            print_json(&entries)?;
        }
    }
    if let Some(path) = &args.per_image {
        per_image::write(path, &outcomes)?;
    }
    if let Some(path) = &args.html {
        html::write(path, &results, &outcomes, &session)?;
        tell!("report: {}", path.display());
    }
    if !failed.is_empty() {
        let (count, all) = (failed.len(), targets.len());
        return Err(CliError::Failed(format!("{count} of {all} datasets could not be measured")));
    }
    for report in reports {
        let (failed, images) = (report.unreadable as u64, report.images as u64);
        args.skips.check(failed, images, &format!("images of {}", report.dataset))?;
    }
    Ok(())
}

/// One dataset: measured, or taken from before.
fn one(args: &EvalArgs, session: &Session<'_>, target: &Target) -> Result<Outcome> {
    let output = args.output.as_deref().map(|output| entry::path(output, &target.name(), session.model()));
    if let (true, Some(path)) = (args.skip_existing, &output) {
        match entry::read(path, session.settings())? {
            entry::Existing::Same(report) => {
                tell!("{}: taken from {}", report.dataset, path.display());
                return Ok(Outcome { report: *report, fresh: None });
            }
            entry::Existing::Different => {
                tell!("{} was measured with other settings: measuring again", path.display());
            }
            entry::Existing::Nothing => {}
        }
    }
    let (report, fresh) = session.measure(target)?;
    if let Some(path) = &output {
        entry::write(path, &session.entries(&report))?;
    }
    Ok(Outcome { report, fresh: Some(fresh) })
}

/// What a suite sets where the user has not.
fn adjusted(args: &EvalArgs) -> Result<EvalArgs> {
    let mut args = args.clone();
    if let Some(suite) = args.suite {
        // Published figures are of pixels as they are stored.
        args.model.encoder.orientation = args.model.encoder.orientation.or(Some(Orientation::Stored));
        if args.methods.is_empty() {
            args.methods = vec![Wanted::All];
        }
        if suite == Suite::K && args.retrieval.k == Ks::default() {
            args.retrieval.k = Ks(Suite::KS.to_vec());
        }
        if suite == Suite::K && args.retrieval.memory.is_none() {
            return Err(CliError::Usage("--suite paper-k needs --memory: it counts captions".to_owned()));
        }
    }
    Ok(args)
}
