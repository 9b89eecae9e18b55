//! `xmore eval`: accuracy of the methods on labeled photos.

mod args;
mod calibrate;
mod encode;
mod entry;
mod html;
mod measure;
mod outputs;
mod per_image;
mod results;
mod sections;
mod targets;
mod text;

use std::path::{Path, PathBuf};

use xmore::{RetrievalError, Template, XmoreError};
use xmore_eval::EvalReport;
use xmore_eval::registry::Suite;
use xmore_files::Output;
use xmore_files::image::Orientation;

pub(crate) use args::EvalArgs;
use args::{EvalFormat, Wanted};

use crate::error::{CliError, Result};
use crate::flags::retrieval::Ks;
use crate::messages::tell;
use crate::output::{output_error, print, print_json};
use crate::setup::Setup;
use entry::Entry;
use measure::{Prepared, Session};
use outputs::{Existing, Outputs};
use results::{Outcome, Results};
use targets::Target;

/// What the authors' `caption_ensemble` puts before each caption.
const AUTHORS_CAPTIONS: &str = "a_photo_of_a {}";

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let args = &adjusted(args)?;
    if args.retrieval.k.0.contains(&0) {
        return Err(XmoreError::from(RetrievalError::NoCaptionsAsked).into());
    }
    let (targets, missing) = targets::find(args)?;
    for missing in &missing {
        tell!("{missing}");
    }
    if targets.is_empty() {
        return Err(CliError::Failed("none of the datasets was found".to_owned()));
    }
    if args.fit.is_some() && targets.len() != 1 {
        let message = format!("--fit takes one dataset, found {}", targets.len());
        return Err(CliError::Usage(message));
    }
    let setup = Setup::open(&args.retrieval, &args.model)?;
    let session = Session::new(args, &setup)?;
    let names: Vec<String> = targets.iter().map(Target::name).collect();
    let outputs =
        args.output.as_deref().map(|path| Outputs::new(path, session.model(), &names, args.skip_existing));
    let mut outputs = outputs.transpose()?;
    let files = ResultFiles::create(args)?;
    let (mut jobs, mut failed) = (Vec::new(), Vec::new());
    for target in &targets {
        match prepared(args, &session, outputs.as_ref(), target) {
            Ok(job) => jobs.push((target.name(), job)),
            Err(error) if error.is_usage() => return Err(error),
            Err(error) => failed.push((target.name(), error)),
        }
    }
    let mut outcomes = Vec::new();
    for (name, job) in jobs {
        match done(&session, outputs.as_mut(), job) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => failed.push((name, error)),
        }
    }
    if outcomes.is_empty() || targets.len() == 1 {
        failed.drain(..).try_for_each(|(_, error)| Err(error))?;
    }
    for (name, error) in &failed {
        tell!("error: {name}: {error}");
    }
    if let (Some((path, mut file)), [outcome]) = (files.fit, &outcomes[..]) {
        let calibration = calibrate::fit(args, &setup, outcome)?;
        let written = calibration.write_to(&mut file).and_then(|()| file.commit());
        written.map_err(|error| output_error(path, error))?;
        tell!("calibration: {}", path.display());
    }
    let reports: Vec<&EvalReport> = outcomes.iter().map(|outcome| &outcome.report).collect();
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
    if let Some((path, file)) = files.per_image {
        per_image::write(path, file, &outcomes)?;
    }
    if let Some((path, file)) = files.html {
        html::write(path, file, &results, &outcomes, &session)?;
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

/// What is to be done for a dataset.
enum Job {
    /// Its results are there from before.
    Taken(EvalReport),
    Measure(Prepared),
}

/// Reads a dataset, so that what cannot work is told before any image is encoded; nothing if its results are there from before.
fn prepared(
    args: &EvalArgs,
    session: &Session<'_>,
    outputs: Option<&Outputs<'_>>,
    target: &Target,
) -> Result<Job> {
    if let (true, Some(outputs)) = (args.skip_existing, outputs) {
        let (path, existing) = outputs.existing(&target.name(), session.settings())?;
        match existing {
            Existing::Same(report) => {
                tell!("{}: taken from {}", report.dataset, path.display());
                return Ok(Job::Taken(*report));
            }
            Existing::Different => {
                tell!("{} was measured with other settings: measuring again", path.display());
            }
            Existing::Nothing => {}
        }
    }
    Ok(Job::Measure(session.prepare(target)?))
}

/// Measures what is to be measured, and writes its results.
fn done(session: &Session<'_>, outputs: Option<&mut Outputs<'_>>, job: Job) -> Result<Outcome> {
    let (report, fresh) = match job {
        Job::Taken(report) => return Ok(Outcome { report, fresh: None }),
        Job::Measure(prepared) => session.measure(prepared)?,
    };
    if let Some(outputs) = outputs {
        outputs.write(session.entries(&report))?;
    }
    Ok(Outcome { report, fresh: Some(fresh) })
}

/// The files that are written at the end, opened before any work: most of what can be wrong with them shows then.
struct ResultFiles<'a> {
    per_image: Option<(&'a Path, Output)>,
    html: Option<(&'a Path, Output)>,
    fit: Option<(&'a Path, Output)>,
}

impl<'a> ResultFiles<'a> {
    fn create(args: &'a EvalArgs) -> Result<Self> {
        let create = |path: &'a Option<PathBuf>| -> Result<_> {
            let Some(path) = path.as_deref() else { return Ok(None) };
            Ok(Some((path, Output::create(path).map_err(|error| output_error(path, error))?)))
        };
        Ok(Self { per_image: create(&args.per_image)?, html: create(&args.html)?, fit: create(&args.fit)? })
    }
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
        if args.retrieval.memory.is_some() && args.retrieval.caption_template.is_none() {
            let theirs = Template::new(AUTHORS_CAPTIONS)?;
            tell!(
                "captions are classified inside `{theirs}`, as in the scripts of the paper's authors; the caption files behind the published \
                 figures may never have been published (--caption-template '{{}}' takes captions as they are)"
            );
            args.retrieval.caption_template = Some(theirs);
        }
        let other_models = args.retrieval.search_model.is_some() || args.retrieval.rerank_model.is_some();
        if args.retrieval.memory.is_some() && !other_models {
            tell!(
                "one model searches, ranks and classifies; the paper's authors search with ViT-B-32,openai (--search-model) and rank with \
                 ViT-L-14,openai (--rerank-model)"
            );
        }
        if suite == Suite::K && args.retrieval.memory.is_none() {
            return Err(CliError::Usage("--suite paper-k needs --memory: it counts captions".to_owned()));
        }
    }
    Ok(args)
}
