//! `xmore classify`: labels for photos, and why.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xmore::{Classifier, Evidence, Labels, Method, XmoreError, image_weight};

use crate::args::{ClassifyArgs, Format};
use crate::error::{CliError, Result};
use crate::files::{expand_images, print, print_json, stdout_error};
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
    let files = expand_images(&args.images)?;
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
    let answers: Vec<Answer> = encoded
        .kept
        .iter()
        .zip(&evidence)
        .map(|(&file, evidence)| Answer::new(&files[file], evidence, method, args.top.get()))
        .collect::<Result<_, XmoreError>>()?;
    match args.format {
        Format::Json => {
            let all: Vec<Value> = answers.iter().map(|a| a.json(classifier.labels())).collect();
            print_json(&all)?;
        }
        Format::Csv => write_csv(&answers, classifier.labels())?,
        Format::Table => print(&render(&answers, classifier.labels(), args.explain))?,
    }
    for (_, error) in &encoded.failed {
        eprintln!("error: {error}");
    }
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
struct Answer<'a> {
    image: &'a PathBuf,
    evidence: &'a Evidence,
    method: Method,
    /// Label and score, best first.
    top: Vec<(usize, f64)>,
}

impl<'a> Answer<'a> {
    fn new(
        image: &'a PathBuf,
        evidence: &'a Evidence,
        method: Method,
        top: usize,
    ) -> Result<Self, XmoreError> {
        Ok(Self { image, evidence, method, top: best(&evidence.scores(method)?, top) })
    }

    fn json(&self, labels: &Labels) -> Value {
        let names = labels.names();
        let predictions: Vec<Value> =
            self.top.iter().map(|&(label, score)| json!({"score": score, "label": names[label]})).collect();
        let map = |probabilities: &[f64]| -> Value {
            names
                .iter()
                .zip(probabilities)
                .map(|(name, p)| (name.clone(), json!(p)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let evidence = self.evidence;
        let image = evidence.templates.as_ref().unwrap_or(&evidence.image);
        let captions: Vec<Value> = evidence
            .retrieved
            .iter()
            .zip(&evidence.votes)
            .map(|(c, &vote)| {
                json!({
                    "id": c.id,
                    "similarity": c.similarity,
                    "image_similarity": c.image_similarity,
                    "caption": c.caption,
                    "image_path": c.image_path,
                    "vote": names[vote],
                })
            })
            .collect();
        json!({
            "image": self.image,
            "method": self.method.name(),
            "predictions": predictions,
            "image_distribution": map(&image.probabilities),
            "image_confidence": image.confidence,
            "caption_distribution": evidence.captions.as_ref().map(|belief| map(&belief.probabilities)),
            "caption_confidence": evidence.captions.as_ref().map(|belief| belief.confidence),
            "memory_gate": evidence.calibrated.as_ref().map(|calibrated| calibrated.gate),
            "captions": captions,
            "note": evidence.note,
        })
    }
}

/// The `top` largest scores, ties in the labels' order.
fn best(scores: &[f64], top: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(top);
    order
}

fn write_csv(answers: &[Answer], labels: &Labels) -> Result<()> {
    let fail = |e: csv::Error| stdout_error(std::io::Error::other(e));
    let mut csv = csv::Writer::from_writer(std::io::stdout().lock());
    csv.write_record(["image", "rank", "label", "score"]).map_err(fail)?;
    for answer in answers {
        for (rank, &(label, score)) in answer.top.iter().enumerate() {
            let (image, rank) = (answer.image.to_string_lossy(), (rank + 1).to_string());
            csv.write_record([&image, rank.as_str(), &labels.names()[label], &score.to_string()])
                .map_err(fail)?;
        }
    }
    csv.flush().map_err(stdout_error)
}

fn render(answers: &[Answer], labels: &Labels, explain: bool) -> String {
    let blocks = answers.iter().map(|answer| {
        let mut text = format!("{}\n", answer.image.display());
        for &(label, score) in &answer.top {
            text += &format!("  {:>5.1} %  {}\n", score * 100.0, labels.names()[label]);
        }
        if explain {
            text += &explanation(answer, labels);
        }
        text
    });
    blocks.collect::<Vec<_>>().join("\n")
}

fn explanation(answer: &Answer, labels: &Labels) -> String {
    let evidence = answer.evidence;
    let image = evidence.templates.as_ref().unwrap_or(&evidence.image);
    let line = |name: &str, probabilities: &[f64], confidence: f64| {
        let top: Vec<String> = best(probabilities, 3)
            .into_iter()
            .map(|(label, p)| format!("{} {:.1} %", labels.names()[label], p * 100.0))
            .collect();
        format!("  {name:<9}{} (confidence {confidence:.3})\n", top.join(", "))
    };
    let mut text = format!("\n  method {}\n", answer.method);
    text += &line("image", &image.probabilities, image.confidence);
    let Some(captions) = &evidence.captions else {
        return text + "  no captions\n";
    };
    text += &line("captions", &captions.probabilities, captions.confidence);
    if answer.method == Method::Xmore {
        let weight = image_weight(image, captions);
        text +=
            &format!("  weight   image {:.0} %, captions {:.0} %\n", weight * 100.0, (1.0 - weight) * 100.0);
    }
    if let Some(calibrated) = evidence.calibrated.as_ref().filter(|_| answer.method == Method::Calibrated) {
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
