//! `xmore classify`: labels for photos, and why. Answers are written as batches of photos are done.

mod args;
mod output;
mod stream;

use std::sync::OnceLock;

use xmore::{AnswerOptions, Calibration, FittedWith, Method, MethodCalibration, Scores, XmoreError};

use crate::error::{CliError, Result};
use crate::fallback::prepare_kernel;
use crate::flags::retrieval::Ks;
use crate::images::Images;
use crate::interrupt;
use crate::messages::images::tell_left_out;
use crate::messages::{labels, tell};
use crate::progress::bar;
use crate::setup::Setup;
pub(crate) use args::ClassifyArgs;
use output::{Form, Printer};
use stream::Stream;

pub(crate) fn run(args: &ClassifyArgs) -> Result<()> {
    let labels = args.labels.read(args.labels_column.as_deref())?;
    if args.retrieval.k.0.len() != 1 {
        return Err(CliError::Usage(
            "classify takes one number of captions with -k; eval takes several".to_owned(),
        ));
    }
    let Images { files, left_out } = Images::find(&args.images, &args.folders.options())?;
    if let (Some(method), None) = (args.method, &args.retrieval.memory)
        && method.needs_memory()
    {
        return Err(XmoreError::MethodNeedsMemory { method: method.name() }.into());
    }
    let calibration = match args.scores {
        Scores::Softmax => args.calibration.read()?,
        Scores::Sigmoid => None,
    };
    let setup = Setup::open(&args.retrieval, &args.model)?;
    let method = method(args, &setup);
    args.scores.check(&**setup.pipeline.encoder(), method)?;
    let fitted = calibration.as_ref().map(|calibration| fitted(calibration, args, &setup, method));
    let fitted = fitted.transpose()?.flatten();
    if let Some(warning) = fitted.and_then(|fitted| fitted.label_warning(&labels)) {
        tell!("warning: {warning}");
    }
    if let (Method::Kernel, None, false) = (method, args.method, args.shows_evidence())
        && args.retrieval.is_local()
        && args.retrieval.k != Ks::default()
    {
        tell!(
            "-k has no effect on {method}, which reads all captions near a photo; --method xmore keeps the best"
        );
    }
    let templates = args.retrieval.templates()?;
    labels::tell_own_prompts(&labels, &templates, method == Method::Templates);
    let _orderly = interrupt::orderly();
    let bar = bar(files.len() as u64, "images");
    let answer = AnswerOptions {
        scores: args.scores,
        top: args.top.get(),
        explain: args.explain,
        min_score: args.min_score,
        min_similarity: args.min_similarity,
        ..AnswerOptions::new(method)
    };
    let answer = fitted.map_or(answer, |fitted| answer.calibrated(fitted));
    let form = Form { format: args.format, answer };
    let classifier = OnceLock::new();
    let mut stream = Stream::new(&setup, &files, &classifier, Printer::new(form), bar.clone());
    stream.left_out = left_out;
    // In parallel, so that both towers load at the same time; encoded photos are kept until the labels are embedded.
    let (made, encoded) = rayon::join(
        || {
            // The kernel method separately: the remote index may no longer be reachable.
            let prepared: &[Method] = if method == Method::Kernel { &[] } else { &[method] };
            let made = setup.pipeline.classifier(labels, prepared);
            let made = made.and_then(|made| match method {
                Method::Kernel => prepare_kernel(&setup.pipeline, made),
                _ => Ok(made),
            });
            let (made, result) = match made {
                Ok(made) => {
                    bar.suspend(|| labels::tell_warnings(made.warnings()));
                    (Some(made), Ok(()))
                }
                Err(error) => (None, Err(error)),
            };
            // Set here and nowhere else.
            let _ = classifier.set(made);
            result
        },
        || setup.pipeline.encode_each(&files, &interrupt::requested, &mut |batch| stream.take(batch)),
    );
    let ended = stream.finish();
    bar.finish_and_clear();
    tell_left_out(&stream.left_out);
    made?;
    encoded?;
    let (done, failed) = ended?;
    if done < files.len() && interrupt::requested() {
        return Err(CliError::Interrupted(format!("interrupted after {done} of {} images", files.len())));
    }
    args.skips.check(failed as u64, files.len() as u64, "images")
}

/// What was fitted for the method; nothing where the remote index cannot be reached, so that the method cannot be used.
fn fitted<'a>(
    calibration: &'a Calibration,
    args: &ClassifyArgs,
    setup: &Setup,
    method: Method,
) -> Result<Option<&'a MethodCalibration>> {
    if args.retrieval.memory.is_some() && method.needs_memory() && setup.pipeline.pairs().is_none() {
        tell!("scores are not calibrated: they are those of the image alone");
        return Ok(None);
    }
    let used = FittedWith::of(&setup.pipeline, method, setup.pipeline.templates(), args.retrieval.options());
    Ok(Some(calibration.for_use(method, &used)?))
}

/// Without a memory the default is what can be done. Where a remote index cannot be reached, every method answers by the image alone.
fn method(args: &ClassifyArgs, setup: &Setup) -> Method {
    match (args.method, &args.retrieval.memory) {
        (Some(method), _) => method,
        // A remote index that cannot be reached now is none of the pipeline's.
        (None, Some(_)) if setup.pipeline.pairs().is_none() => Method::Xmore,
        (None, Some(_)) => setup.pipeline.default_method(),
        (None, None) => {
            tell!("no --memory given: zero-shot, by the image alone");
            setup.pipeline.default_method()
        }
    }
}
