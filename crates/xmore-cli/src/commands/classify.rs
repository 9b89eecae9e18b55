//! `xmore classify`: labels for photos, and why.

use std::path::{Path, PathBuf};

use serde::Serialize;
use xmore::{Answer, Classifier, Evidence, Labels, Method, Prediction, XmoreError, best, image_weight};

use crate::args::{ClassifyArgs, Format};
use crate::error::{CliError, Result};
use crate::files::{print, print_json, stdout_error};
use crate::images::{Images, tell_left_out};
use crate::progress::bar;
use crate::setup::{Setup, tell_notes};
use crate::table::{table, trimmed};

pub(crate) fn run(args: &ClassifyArgs) -> Result<()> {
    let labels = match (&args.labels.labels, &args.labels.labels_file) {
        (Some(list), _) => Labels::parse(list)?,
        (None, file) => Labels::read(file.as_deref().unwrap_or(Path::new("")))?,
    };
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
    let options = args.method_args.options(method == Method::Templates)?;
    let retrieval = setup.retrieval(&args.method_args)?;
    let bar = bar(files.len() as u64, "images");
    // Side by side, so that the two towers load at the same time.
    let (classifier, encoded) = rayon::join(
        || {
            let classifier = Classifier::new(&setup.model, labels, retrieval, &options)?;
            if method == Method::Calibrated { setup.calibrate(classifier) } else { Ok(classifier) }
        },
        || setup.encode(&files, &mut |done| bar.set_position(done as u64)),
    );
    bar.finish_and_clear();
    let (classifier, (queries, encoded)) = (classifier?, encoded?);
    let evidence = setup.evidence(&classifier, &queries)?;
    tell_notes(&evidence);
    let explain = args.explain || args.format == Format::Json;
    let photos: Vec<Photo> = encoded
        .kept
        .iter()
        .zip(&evidence)
        .map(|(&file, evidence)| {
            let answer = Answer::new(evidence, classifier.labels(), method, args.top.get(), explain)?;
            Ok(Photo { image: &files[file], evidence, answer })
        })
        .collect::<Result<_, XmoreError>>()?;
    match args.format {
        Format::Json => print_json(&photos)?,
        Format::Csv => write_csv(&photos)?,
        Format::Table => print(&render(&photos, method, classifier.labels(), args.explain))?,
    }
    for (_, error) in &encoded.failed {
        eprintln!("error: {error}");
    }
    tell_left_out(&left_out);
    match encoded.failed.len() {
        0 => Ok(()),
        failed => Err(CliError::Failed(format!("{failed} of {} images could not be read", files.len()))),
    }
}

/// Without a memory the default is what can be done. Where an engine is away, every method answers by the image alone.
fn method(args: &ClassifyArgs, setup: &Setup) -> Method {
    match (args.method, &args.method_args.memory) {
        (Some(method), _) => method,
        (None, Some(_)) if setup.allows_calibrated(&args.method_args) => Method::Calibrated,
        (None, Some(_)) => Method::Xmore,
        (None, None) => {
            eprintln!("no --memory given: zero-shot, by the image alone");
            Method::ZeroShot
        }
    }
}

/// One photo's answer.
#[derive(Serialize)]
struct Photo<'a> {
    image: &'a PathBuf,
    #[serde(skip)]
    evidence: &'a Evidence,
    #[serde(flatten)]
    answer: Answer,
}

fn write_csv(photos: &[Photo]) -> Result<()> {
    let fail = |e: csv::Error| stdout_error(std::io::Error::other(e));
    let mut csv = csv::Writer::from_writer(std::io::stdout().lock());
    csv.write_record(["image", "rank", "label", "score"]).map_err(fail)?;
    for photo in photos {
        for (rank, prediction) in photo.answer.predictions.iter().enumerate() {
            let (image, rank) = (photo.image.to_string_lossy(), (rank + 1).to_string());
            csv.write_record([&image, rank.as_str(), &prediction.label, &prediction.score.to_string()])
                .map_err(fail)?;
        }
    }
    csv.flush().map_err(stdout_error)
}

fn render(photos: &[Photo], method: Method, labels: &Labels, explain: bool) -> String {
    let blocks = photos.iter().map(|photo| {
        let mut text = format!("{}\n", photo.image.display());
        for Prediction { label, score } in &photo.answer.predictions {
            text += &format!("  {:>5.1} %  {label}\n", score * 100.0);
        }
        if explain {
            text += &explanation(photo.evidence, method, labels);
        }
        text
    });
    blocks.collect::<Vec<_>>().join("\n")
}

fn explanation(evidence: &Evidence, method: Method, labels: &Labels) -> String {
    let image = evidence.templates.as_ref().unwrap_or(&evidence.image);
    let line = |name: &str, probabilities: &[f64], confidence: f64| {
        let top: Vec<String> = best(probabilities, 3)
            .into_iter()
            .map(|(label, p)| format!("{} {:.1} %", labels.names()[label], p * 100.0))
            .collect();
        format!("  {name:<9}{} (confidence {confidence:.3})\n", top.join(", "))
    };
    let mut text = format!("\n  method {}\n", method);
    text += &line("image", &image.probabilities, image.confidence);
    let Some(captions) = &evidence.captions else {
        return text + "  no captions\n";
    };
    text += &line("captions", &captions.probabilities, captions.confidence);
    if method == Method::Xmore {
        let weight = image_weight(image, captions);
        text +=
            &format!("  weight   image {:.0} %, captions {:.0} %\n", weight * 100.0, (1.0 - weight) * 100.0);
    }
    if let Some(calibrated) = evidence.calibrated.as_ref().filter(|_| method == Method::Calibrated) {
        text += &match calibrated.gate {
            0.0 => "  memory   does not know these labels well enough to be asked\n".to_owned(),
            gate => format!("  memory   taken into account by {:.0} %\n", gate * 100.0),
        };
    }
    let mut table = table(["similarity", "votes for", "caption"], &["similarity"]);
    for (caption, &vote) in evidence.retrieved.iter().zip(&evidence.votes) {
        let similarity = format!("{:.3}", caption.similarity);
        table.add_row([similarity.as_str(), &labels.names()[vote], &caption.caption]);
    }
    text + "\n" + &trimmed(&table).lines().map(|row| format!("  {row}\n")).collect::<String>()
}
