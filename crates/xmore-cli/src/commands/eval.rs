//! `xmore eval`: accuracy of the methods on labelled photos.

use xmore::{Classifier, Dataset, EvalReport, Method, XmoreError, evaluate};

use crate::args::{EvalArgs, ShortFormat};
use crate::error::Result;
use crate::files::{print, print_json};
use crate::progress::bar;
use crate::setup::{Setup, tell_notes};
use crate::table::{table, trimmed};

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let methods = methods(args)?;
    let dataset = Dataset::read(&args.dataset)?;
    let setup = Setup::open(&args.method_args, &args.model)?;
    let options = args.method_args.options(methods.contains(&Method::Templates))?;
    let retrieval = setup.retrieval(&args.method_args)?;
    let classifier = Classifier::new(&setup.model, dataset.labels.clone(), retrieval, &options)?;
    let bar = bar(dataset.images.len() as u64, "images");
    let (queries, encoded) = setup.encode(&dataset.images, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    for (_, error) in &encoded.failed {
        eprintln!("counted as wrong: {error}");
    }
    let evidence = setup.evidence(&classifier, &queries)?;
    tell_notes(&evidence);
    let truth: Vec<usize> = encoded.kept.iter().map(|&image| dataset.truth[image]).collect();
    let report = evaluate(&dataset.name, &evidence, &truth, encoded.failed.len(), &methods)?;
    match args.format {
        ShortFormat::Json => print_json(&report),
        ShortFormat::Table => print(&render(&report)),
    }
}

fn methods(args: &EvalArgs) -> Result<Vec<Method>> {
    let memory = args.method_args.memory.is_some();
    if args.methods.is_empty() {
        return Ok(Method::ALL.into_iter().filter(|method| memory || !method.needs_memory()).collect());
    }
    match args.methods.iter().find(|method| method.needs_memory() && !memory) {
        Some(method) => Err(XmoreError::MethodNeedsMemory { method: method.name() }.into()),
        None => Ok(args.methods.clone()),
    }
}

fn render(report: &EvalReport) -> String {
    let mut table = table(["method", "top-1 %"], &["top-1 %"]);
    for (method, accuracy) in &report.methods {
        table.add_row([method.name().to_owned(), format!("{:.2}", accuracy.acc1 * 100.0)]);
    }
    let mut text = format!("{}: {} images", report.dataset, report.images);
    if report.unreadable > 0 {
        text += &format!(", {} of them unreadable and counted as wrong", report.unreadable);
    }
    if report.methods.iter().any(|(method, _)| method.needs_memory()) {
        text += &format!(", captions retrieved for {:.1} %", report.coverage * 100.0);
    }
    format!("{text}\n\n{}", trimmed(&table))
}
