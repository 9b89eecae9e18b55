//! The report as one HTML page: figures, curves, and the images whose answer changed.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use maud::{Markup, html};
use xmore_eval::{EvalReport, MethodReport, Outcome as ImageOutcome};
use xmore_files::Output;
use xmore_files::image::{Alpha, DecodeOptions, decode_bytes};
use xmore_memory::ingest::{ImageReader, ImageRef};

use super::measure::Session;
use super::results::{Fresh, Outcome, Results};
use super::sections::{Grid, heading, of_dataset, of_suite, percent};
use crate::error::Result;
use crate::html::charts::{self, Bar, Series};
use crate::html::thumbnails::Thumbnail;
use crate::html::{class, document, write_page};
use crate::output::output_error;

/// Changed images that are shown of each kind and dataset.
const SHOWN: usize = 24;
/// Labels in the table of gains.
const LABELS_SHOWN: usize = 15;
/// Thumbnails in the whole page, at some kilobytes each.
const MAX_PICTURES: usize = 600;

/// Writes the page.
pub(super) fn write(
    path: &Path,
    mut file: Output,
    results: &Results<'_>,
    outcomes: &[Outcome],
    session: &Session<'_>,
) -> Result<()> {
    let pictures = Pictures { reader: ImageReader::new(), left: Cell::new(MAX_PICTURES) };
    let main = html! {
        header.top {
            h1 { "xmore eval" }
            p.lead { "Model " code { (session.model()) } ". Every image counts: one that cannot be read is wrong." }
        }
        @if let Some(suite) = of_suite(results) { section { (grid(&suite)) } }
        @for missing in results.missing { p { (missing) } }
        @for outcome in outcomes { (dataset(outcome, &pictures)) }
        footer {
            h2 { "Settings" }
            p.fine { code { (session.settings().to_string()) } }
            p.fine {
                "− zero-shot and − xmore: difference in points, with its 95 % bootstrap interval over the images and the two-sided p of "
                "McNemar’s exact test. ECE over 15 bins; AURC: area under the risk–coverage curve."
            }
        }
    };
    let written = write_page(&mut file, &document("xmore eval", &main)).and_then(|()| file.commit());
    written.map_err(|error| output_error(path, error))
}

fn dataset(outcome: &Outcome, pictures: &Pictures) -> Markup {
    let report = &outcome.report;
    let bar = |method: &MethodReport| {
        (method.method.clone(), method.acc1(), method.orders.and_then(|o| o.acc1_std))
    };
    let figures: Vec<_> = report.methods.iter().map(bar).collect();
    let bars: Vec<Bar<'_>> = figures
        .iter()
        .map(|(name, value, std)| Bar { name, class: class(name), value: *value, std: *std })
        .collect();
    html! {
        section {
            h2 { (heading(report)) }
            (charts::bars(&bars))
            @for of_dataset in of_dataset(report) { (grid(&of_dataset)) }
            (sweep(report))
            h3 { "Reliability" }
            div.squares {
                @for method in &report.methods { (reliability(method)) }
            }
            @if let Some(fresh) = &outcome.fresh {
                (confidences(fresh))
                (gains(report, fresh))
                (changes(fresh, pictures))
            }
        }
    }
}

fn grid(grid: &Grid) -> Markup {
    html! {
        div.scroll { table.figures {
            caption { (grid.title) }
            thead { tr { @for column in &grid.header { th scope="col" { (column) } } } }
            tbody {
                @for row in &grid.rows {
                    tr {
                        @for (i, cell) in row.iter().enumerate() {
                            @if i == 0 { th scope="row" { (cell) } } @else { td.number { (cell) } }
                        }
                    }
                }
            }
        } }
    }
}

fn sweep(report: &EvalReport) -> Markup {
    let mut ks: Vec<usize> = report.sweep.iter().map(|point| point.k).collect();
    ks.dedup();
    let places: Vec<String> = ks.iter().map(usize::to_string).collect();
    let values = |name: &str| {
        let points = report.sweep.iter().filter(|point| point.method == name);
        points.map(|point| point.acc1).collect::<Vec<f64>>()
    };
    let zero_shot = report.method("zero-shot").map(|m| vec![m.acc1(); ks.len()]).unwrap_or_default();
    let lines = [("zero-shot", zero_shot), ("captions", values("captions")), ("xmore", values("xmore"))];
    let series: Vec<Series<'_>> = lines
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| Series { name, class: class(name), values })
        .collect();
    html! {
        @if !ks.is_empty() && !series.is_empty() {
            (charts::lines(&series, &places, "captions kept, K", "Accuracy over the number of captions; the table has the figures"))
        }
    }
}

fn reliability(method: &MethodReport) -> Markup {
    let bin = |bin: &xmore_eval::Bin| (bin.count > 0).then_some((bin.confidence, bin.accuracy));
    let bins: Vec<_> = method.calibration.bins.iter().map(bin).collect();
    let description =
        format!("{}: accuracy over confidence, ECE {} %", method.method, percent(method.calibration.ece));
    html! {
        figure {
            figcaption { (method.method) ", ECE " (percent(method.calibration.ece)) " %" }
            (charts::reliability(&bins, class(&method.method), &description))
        }
    }
}

fn confidences(fresh: &Fresh) -> Markup {
    let images = || fresh.details.images.iter().flatten();
    let of_images: Vec<f64> = images().map(|image| image.image_confidence).collect();
    let of_captions: Vec<f64> = images().filter_map(|image| image.caption_confidence).collect();
    html! {
        h3 { "Confidence of each modality" }
        div.squares {
            figure { figcaption { "image" } (charts::histogram(&of_images, "picture", "1 − H(p_img) / ln C")) }
            @if !of_captions.is_empty() {
                figure { figcaption { "captions" } (charts::histogram(&of_captions, "captions", "1 − H(p_cap) / ln C")) }
            }
        }
    }
}

/// Recall of each label, those first that captions changed most.
fn gains(report: &EvalReport, fresh: &Fresh) -> Markup {
    let (Some(before), Some(after)) = (report.method("zero-shot"), report.method("xmore")) else {
        return html! {};
    };
    let mut rows: Vec<(usize, f64, f64)> = before
        .recalls
        .iter()
        .zip(&after.recalls)
        .enumerate()
        .filter_map(|(label, (before, after))| Some((label, (*before)?, (*after)?)))
        .collect();
    rows.sort_by(|a, b| (b.2 - b.1).abs().total_cmp(&(a.2 - a.1).abs()).then(a.0.cmp(&b.0)));
    rows.truncate(LABELS_SHOWN);
    let table = Grid {
        title: "Recall of the labels that captions changed most, %".to_owned(),
        header: ["label", "zero-shot", "xmore", "gain"].map(str::to_owned).into(),
        rows: rows
            .into_iter()
            .map(|(label, before, after)| {
                let name = fresh.dataset.labels.names()[label].clone();
                vec![name, percent(before), percent(after), format!("{:+.2}", 100.0 * (after - before))]
            })
            .collect(),
    };
    grid(&table)
}

/// An image whose answer captions changed.
struct Change {
    image: usize,
    before: ImageOutcome,
    after: ImageOutcome,
}

fn changes(fresh: &Fresh, pictures: &Pictures) -> Markup {
    let of = |name: &str| {
        fresh.details.answers.iter().find(|(method, _)| method == name).map(|(_, answers)| answers)
    };
    let (Some(before), Some(after)) = (of("zero-shot"), of("xmore")) else { return html! {} };
    let changed = before.iter().zip(after).enumerate().filter_map(|(image, (before, after))| {
        let (before, after) = ((*before)?, (*after)?);
        (before.label != after.label).then_some(Change { image, before, after })
    });
    let changed: Vec<Change> = changed.collect();
    let group = |title: &str, wanted: &dyn Fn(&Change) -> bool, open: bool| {
        let mut all: Vec<&Change> = changed.iter().filter(|change| wanted(change)).collect();
        // Those first whose true label captions moved most.
        let shift = |c: &Change| (c.after.truth - c.before.truth).abs();
        all.sort_by(|a, b| shift(b).total_cmp(&shift(a)).then(a.image.cmp(&b.image)));
        html! {
            details open[open] {
                summary { h3 { (title) " (" (all.len()) ")" } }
                ul.gallery { @for change in all.iter().take(SHOWN) { (shown(change, fresh, pictures)) } }
                @if all.len() > SHOWN { p.fine { "The " (SHOWN) " are shown whose true label’s probability moved most." } }
            }
        }
    };
    html! {
        h3 { "Answers that xmore changed" }
        (group("For the better", &|c| c.after.right(), true))
        (group("For the worse", &|c| c.before.right(), true))
        (group("From one wrong label to another", &|c| !c.before.right() && !c.after.right(), false))
    }
}

fn shown(change: &Change, fresh: &Fresh, pictures: &Pictures) -> Markup {
    let (dataset, labels) = (&fresh.dataset, fresh.dataset.labels.names());
    let truth = &labels[dataset.truth[change.image]];
    let captions = fresh.details.images[change.image].as_ref().map_or(&[][..], |image| &image.captions);
    html! {
        li {
            (pictures.img(&dataset.images[change.image], truth))
            p { s { (labels[change.before.label]) } " → " strong { (labels[change.after.label]) } }
            @if !change.after.right() { p.fine { "truth: " (truth) } }
            @for caption in captions { p.fine { "“" (caption) "”" } }
        }
    }
}

/// Thumbnails, as long as the page does not grow too large.
struct Pictures {
    reader: ImageReader,
    left: Cell<usize>,
}

impl Pictures {
    /// An `img`; its name only, where the image can no longer be read or there are too many.
    fn img(&self, image: &ImageRef, alt: &str) -> Markup {
        let name = PathBuf::from(image.to_string());
        if self.left.get() > 0
            && let Ok(bytes) = self.reader.read(image)
            && let Ok(picture) = decode_bytes(&bytes, &name, Alpha::White, &DecodeOptions::default())
            && let Ok(thumbnail) = Thumbnail::of(picture.image(), &name)
        {
            self.left.set(self.left.get() - 1);
            return thumbnail.img(alt);
        }
        html! { p.fine { (name.display()) } }
    }
}
