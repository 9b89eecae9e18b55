//! The forms in which answers are printed, batch by batch.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use xmore::{
    Answer, AnswerOptions, Classifier, Evidence, GatedPrediction, Labels, Method, Prediction, Scores, best,
    image_weight,
};
use xmore_files::{escape_for_terminal, escape_json, escape_lines, escape_path, path_to_text};

use crate::error::Result;
use crate::flags::output::Format;
use crate::output::csv::CsvOutput;
use crate::output::stdout_error;
use crate::output::table::{add_row, table, trimmed};

/// What is printed of an answer, and how.
pub(super) struct Form {
    pub(super) format: Format,
    pub(super) answer: AnswerOptions,
}

/// Prints answers as they come.
pub(super) struct Printer {
    form: Form,
    csv: Option<CsvOutput>,
    printed: usize,
}

/// One photo's answer as JSON has it.
#[derive(Serialize)]
struct Photo<'a> {
    image: Cow<'a, str>,
    #[serde(flatten)]
    answer: &'a Answer,
    /// What the model cannot make of the labels.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

impl Printer {
    pub(super) fn new(form: Form) -> Self {
        Self { form, csv: None, printed: 0 }
    }

    /// Prints the answers to some photos and flushes them.
    pub(super) fn photos<'a>(
        &mut self,
        photos: impl Iterator<Item = (&'a Path, &'a Evidence)>,
        classifier: &Classifier,
    ) -> Result<()> {
        let labels = classifier.labels();
        let warnings: Vec<String> = classifier.warnings().iter().map(ToString::to_string).collect();
        let explain = self.form.answer.explain || matches!(self.form.format, Format::Json | Format::Jsonl);
        let options = AnswerOptions { explain, ..self.form.answer };
        let mut text = String::new();
        for (image, evidence) in photos {
            let answer = Answer::new(evidence, labels, &options)?;
            match self.form.format {
                Format::Csv => self.csv_rows(image, &answer)?,
                Format::Jsonl => text += &(self.json(image, &answer, &warnings, false)? + "\n"),
                Format::Json => {
                    text += if self.printed == 0 { "[\n" } else { ",\n" };
                    text += &self.json(image, &answer, &warnings, true)?;
                }
                Format::Table => {
                    text += if self.printed == 0 { "" } else { "\n" };
                    text += &self.block(image, evidence, &answer, labels);
                }
            }
            self.printed += 1;
        }
        if let Some(csv) = &mut self.csv {
            return csv.flush();
        }
        write(&text)
    }

    /// Ends the output: JSON is a whole list then, however many answers there are.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.form.format {
            Format::Json => write(if self.printed == 0 { "[]\n" } else { "\n]\n" }),
            Format::Csv => {
                self.csv()?;
                self.csv.as_mut().map_or(Ok(()), CsvOutput::flush)
            }
            Format::Jsonl | Format::Table => Ok(()),
        }
    }

    fn json(&self, image: &Path, answer: &Answer, warnings: &[String], pretty: bool) -> Result<String> {
        let photo = Photo { image: path_to_text(image), answer, warnings };
        let text = if pretty { serde_json::to_string_pretty(&photo) } else { serde_json::to_string(&photo) };
        let text = text.map_err(|e| stdout_error(e.into()))?;
        // As an element of a list that is printed whole.
        let text = if pretty { format!("  {}", text.replace('\n', "\n  ")) } else { text };
        Ok(escape_json(&text).into_owned())
    }

    /// The writer of csv, which has written its header.
    fn csv(&mut self) -> Result<&mut CsvOutput> {
        if self.csv.is_none() {
            let mut csv = CsvOutput::new();
            csv.row(["image", "rank", "label", "score", "similarity"])?;
            self.csv = Some(csv);
        }
        Ok(self.csv.get_or_insert_with(CsvOutput::new))
    }

    /// The labels, one a row; a photo without an answer has one row with an empty label and the best label's numbers.
    fn csv_rows(&mut self, image: &Path, answer: &Answer) -> Result<()> {
        let named = answer.label.is_some();
        let shown = if named { answer.predictions.len() } else { 1 };
        let csv = self.csv()?;
        for (rank, Prediction { label, score, similarity }) in
            answer.predictions.iter().take(shown).enumerate()
        {
            let (rank, score, similarity) =
                ((rank + 1).to_string(), score.to_string(), similarity.to_string());
            let label = if named { label.as_str() } else { "" };
            csv.row([&*path_to_text(image), &rank, label, &score, &similarity])?;
        }
        Ok(())
    }

    fn block(&self, image: &Path, evidence: &Evidence, answer: &Answer, labels: &Labels) -> String {
        let mut text = format!("{}\n", escape_path(image));
        let line = |Prediction { label, score, similarity }: &Prediction| {
            let label = escape_for_terminal(label);
            format!("{:>5.1} %  {label}  (similarity {similarity:.3})\n", score * 100.0)
        };
        match answer.predictions.first().filter(|_| answer.label.is_none()) {
            Some(best) => text += &format!("  none of these; the best was\n  {}", line(best)),
            None => {
                answer.predictions.iter().for_each(|prediction| text += &format!("  {}", line(prediction)))
            }
        }
        if self.form.answer.explain {
            text += &explanation(evidence, &self.form.answer, labels, answer.temperature);
        }
        text
    }
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(stdout_error)
}

fn explanation(
    evidence: &Evidence,
    options: &AnswerOptions,
    labels: &Labels,
    temperature: Option<f64>,
) -> String {
    let method = options.method;
    let image = evidence.templates.as_ref().unwrap_or(&evidence.image);
    let line = |name: &str, probabilities: &[f64], confidence: f64| {
        let top: Vec<String> = best(probabilities, 3)
            .into_iter()
            .map(|(label, p)| format!("{} {:.1} %", labels.names()[label], p * 100.0))
            .collect();
        format!("  {name:<9}{} (confidence {confidence:.3})\n", escape_for_terminal(&top.join(", ")))
    };
    let mut text = format!("\n  method {}\n", method);
    if let Some(temperature) = temperature {
        text += &format!("  scores   calibrated with temperature {temperature:.3}\n");
    }
    if options.scores == Scores::Sigmoid {
        text +=
            "  scores   of each label by itself; the image's below are of one distribution over the labels\n";
    }
    text += &line("image", &image.values, image.confidence);
    let Some(captions) = &evidence.captions else {
        return text + "  no captions\n";
    };
    text += &line("captions", &captions.values, captions.confidence);
    if method == Method::Xmore {
        let weight = image_weight(image, captions);
        text +=
            &format!("  weight   image {:.0} %, captions {:.0} %\n", weight * 100.0, (1.0 - weight) * 100.0);
    }
    if let Some(gated) = evidence.gated.as_ref().filter(|_| method == Method::Kernel) {
        text += &memory_use(gated);
    }
    let mut table = table(&["similarity", "votes for", "caption"], &["similarity"]);
    for (caption, &vote) in evidence.retrieved.iter().zip(&evidence.votes) {
        let similarity = format!("{:.3}", caption.similarity);
        add_row(&mut table, [similarity.as_str(), &labels.names()[vote], &caption.caption]);
    }
    let table = trimmed(&table).lines().map(|row| format!("  {row}\n")).collect::<String>();
    text + "\n" + &escape_lines(&table)
}

/// Why the memory is taken into account or not.
fn memory_use(gated: &GatedPrediction) -> String {
    let mut text = match gated.opened_by {
        Some(kind) => {
            format!("  memory   used with a weight of {:.0} %: {}\n", gated.gate * 100.0, kind.summary())
        }
        None => {
            "  memory   its captions are not used: too little shows that it knows the labels of this image\n"
                .to_owned()
        }
    };
    if gated.prototype_weight > 0.0 {
        let weight = gated.prototype_weight * 100.0;
        text += &format!("  images   of captions that name the labels used with a weight of {weight:.0} %\n");
    }
    text + &format!("  labels   {}\n", gated.support)
}
