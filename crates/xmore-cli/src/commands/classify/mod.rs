//! `xmore classify`: labels for photos, and why. Answers are written as batches of photos are done.

mod output;
mod stream;

use std::sync::OnceLock;

use xmore::{AnswerOptions, Method, XmoreError};

use crate::args::ClassifyArgs;
use crate::error::{CliError, Result};
use crate::images::{Images, tell_left_out};
use crate::interrupt;
use crate::labels;
use crate::messages::tell;
use crate::progress::bar;
use crate::setup::Setup;
use output::{Form, Printer};
use stream::Stream;

pub(crate) fn run(args: &ClassifyArgs) -> Result<()> {
    let labels = labels::read(args)?;
    if args.method_args.k.0.len() != 1 {
        return Err(CliError::Usage(
            "classify takes one number of captions with -k; eval takes several".to_owned(),
        ));
    }
    let Images { files, left_out } = Images::find(&args.images, &args.walk)?;
    if let (Some(method), None) = (args.method, &args.method_args.memory)
        && method.needs_memory()
    {
        return Err(XmoreError::MethodNeedsMemory { method: method.name() }.into());
    }
    let setup = Setup::open(&args.method_args, &args.model)?;
    let method = method(args, &setup);
    let templates = args.method_args.templates()?;
    labels::tell_own_prompts(&labels, &templates, method == Method::Templates);
    let _orderly = interrupt::orderly();
    let bar = bar(files.len() as u64, "images");
    let form = Form {
        format: args.format,
        answer: AnswerOptions {
            method,
            top: args.top.get(),
            explain: args.explain,
            min_score: args.min_score,
            min_similarity: args.min_similarity,
        },
    };
    let classifier = OnceLock::new();
    let mut stream = Stream::new(&setup, &files, &classifier, Printer::new(form), bar.clone());
    stream.left_out = left_out;
    // Side by side, so that the two towers load at the same time; photos wait for the labels.
    let (made, encoded) = rayon::join(
        || {
            // Kernel apart, since a remote index may be away by now.
            let prepared: &[Method] = if method == Method::Kernel { &[] } else { &[method] };
            let made = setup.pipeline.classifier(labels, prepared);
            let made = made.and_then(|made| match method {
                Method::Kernel => setup.prepare_kernel(made),
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

/// Without a memory the default is what can be done. Where a remote index is away, every method answers by the image alone.
fn method(args: &ClassifyArgs, setup: &Setup) -> Method {
    match (args.method, &args.method_args.memory) {
        (Some(method), _) => method,
        (None, Some(_)) if setup.pipeline.allows(Method::Kernel) => Method::Kernel,
        (None, Some(_)) => Method::Xmore,
        (None, None) => {
            tell!("no --memory given: zero-shot, by the image alone");
            Method::ZeroShot
        }
    }
}
