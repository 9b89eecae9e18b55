//! The demo's report: one self-contained HTML page.

mod answers;
mod charts;
mod pictures;

use maud::{Markup, html};
use xmore::{DEFAULT_TEMPLATE, Method};
use xmore_hub::lite::BundledModel;

use super::experiment::paper_neighbors;
use super::findings::{Change, Figures, Findings, SHOWN, Turn, examples, tally};
use super::text::{percent, points};
use crate::error::Result;
use crate::html::document;
use pictures::Pictures;

/// The whole page.
pub(super) fn page(findings: &Findings) -> Result<Markup> {
    let changes = findings.changes()?;
    let pictures = Pictures::of(findings);
    let figures = findings.figures();
    let main = html! {
        (introduction(findings, &figures, &changes))
        section {
            h2 { "Accuracy" }
            (charts::bars(&figures))
            (accuracy_table(findings, &figures))
        }
        (sweep(findings))
        section {
            h2 { "Changed answers, explained" }
            (choice_of_examples())
            @for change in examples(&changes) { (answers::explained(findings, &pictures, change)?) }
            @if changes.is_empty() { p { "Captions changed no answer." } }
        }
        (all_changes(findings, &pictures, &changes)?)
        (labels(findings, &pictures)?)
        (measured(findings))
        (licenses(findings))
    };
    Ok(document("xmore demo", &main))
}

fn introduction(findings: &Findings, figures: &Figures, changes: &[Change]) -> Markup {
    let zero_shot = figures.get(Method::ZeroShot);
    let shown = figures.get(SHOWN);
    let [least, most] = findings.gains(SHOWN).map(|gain| points(gain, None));
    let tally = tally(changes);
    html! {
        header.top {
            h1 { "Do captions help to name a picture?" }
            p.lead {
                "Photos are classified with labels in plain words: first from the picture alone (zero-shot), then with what captions of similar "
                "pictures say, as far as the memory knows the labels (" (SHOWN.name()) ", the default; the paper’s method is "
                a href="https://arxiv.org/abs/2308.15273" { "X-MoRe" } ", " code { (Method::Xmore.name()) } "). "
                "The captions come from a memory of " (findings.runs[0].memory.len()) " pairs of pictures and captions; the "
                (findings.runs[0].queries.len()) " photos that are classified are not in it."
            }
            dl.cards {
                div { dt { "picture alone" } dd { (percent(zero_shot.acc1_mean, None)) } }
                div { dt { "with captions (" (SHOWN.name()) ")" } dd { (percent(shown.acc1_mean, None)) } }
                div { dt { "gain, in points" } dd { (points(shown.gain_mean, shown.gain_std)) } }
                @if findings.runs.len() > 1 {
                    div { dt { "gain on the worst / the best split" } dd { (least) " / " (most) } }
                }
                div { dt { "answers changed to right / to wrong" } dd { (tally.better) " / " (tally.worse) } }
            }
        }
    }
}

fn accuracy_table(findings: &Findings, figures: &Figures) -> Markup {
    let strict = findings.strict_figures();
    html! {
        div.scroll { table.figures {
            caption {
                "Top-1 accuracy, mean"
                @if findings.runs.len() > 1 { " ± sample standard deviation over " (findings.runs.len()) " random splits" }
                "; gain over zero-shot in points"
            }
            thead { tr {
                th scope="col" { "method" }
                th scope="col" { "accuracy" }
                th scope="col" { "gain" }
                th scope="col" { "without same captions" }
            } }
            tbody {
                @for (method, f) in &figures.0 {
                    tr {
                        th scope="row" { (method.name()) span.what { (method.summary()) } }
                        td.number { (percent(f.acc1_mean, f.acc1_std)) }
                        td.number { @if *method == Method::ZeroShot { "–" } @else { (points(f.gain_mean, f.gain_std)) } }
                        td.number {
                            @if let Some(strict) = &strict {
                                @let f = strict.get(*method);
                                (percent(f.acc1_mean, f.acc1_std))
                            } @else { "–" }
                        }
                    }
                }
            }
        } }
        p.fine {
            (findings.own_captions()) " of " (findings.queries()) " queries have a pair with their very caption in memory, such as a mirrored "
            "copy. The last column is with a memory from which all such pairs are taken out."
        }
    }
}

fn sweep(findings: &Findings) -> Markup {
    let sweep = findings.sweep();
    let neighbors = findings.neighbor_sweep();
    html! {
        section {
            h2 { "How many captions" }
            (charts::lines(&sweep))
            @let caption = format!(
                "Top-1 accuracy for each number of captions kept, of {} neighbors or as many as are kept", findings.neighbors
            );
            (sweep_table(&caption, "K", &sweep))
            @if !neighbors.is_empty() {
                h3 { "Of how many neighbors" }
                p {
                    "Captions are chosen among those of the pairs with the most similar pictures. The paper takes " (paper_neighbors())
                    " of 400 million"
                    @if findings.neighbors < paper_neighbors() { "; of a small memory so many are not similar any more" }
                    ". The figures above are with " (findings.neighbors) "; these are with other numbers, at K = " (findings.k) "."
                }
                (sweep_table("Top-1 accuracy for each number of neighbors", "neighbors", &neighbors))
            }
        }
    }
}

fn sweep_table(caption: &str, what: &str, sweep: &[(usize, Figures)]) -> Markup {
    let shown = [Method::Captions, Method::Equal, Method::Xmore, SHOWN];
    html! {
        div.scroll { table.figures {
            caption { (caption) }
            thead { tr {
                th scope="col" { (what) }
                @for method in shown { th scope="col" { (method.name()) } }
            } }
            tbody {
                @for (value, figures) in sweep {
                    tr {
                        th scope="row" { (value) }
                        @for method in shown {
                            @let f = figures.get(method);
                            td.number { (percent(f.acc1_mean, f.acc1_std)) }
                        }
                    }
                }
            }
        } }
    }
}

fn choice_of_examples() -> Markup {
    html! {
        p {
            "Chosen by rule: the two answers that captions put right and the one they put wrong where they moved the true label’s "
            "probability most, of different labels, and if possible where no pair in memory has the query’s own caption."
        }
    }
}

fn all_changes(findings: &Findings, pictures: &Pictures, changes: &[Change]) -> Result<Markup> {
    let tally = tally(changes);
    let groups = [
        (Turn::Better, "For the better", tally.better),
        (Turn::Worse, "For the worse", tally.worse),
        (Turn::StillWrong, "From one wrong label to another", tally.still_wrong),
    ];
    Ok(html! {
        section {
            h2 { "All changed answers" }
            p {
                "Of " (findings.queries()) " answers over all splits, " (SHOWN.name()) " changed " (changes.len()) ". The struck-out label is that of the "
                "picture alone."
            }
            @for (turn, title, count) in groups {
                details open[turn != Turn::StillWrong] {
                    summary { h3 { (title) " (" (count) ")" } }
                    (answers::gallery(findings, pictures, changes, turn)?)
                }
            }
        }
    })
}

/// One picture of each label, so that a reader sees what the labels mean.
fn labels(findings: &Findings, pictures: &Pictures) -> Result<Markup> {
    let set = &findings.set;
    Ok(html! {
        section {
            h2 { "The " (set.labels.names().len()) " labels" }
            ul.gallery {
                @for (label, name) in set.labels.names().iter().enumerate() {
                    @let mut of_label = (0..set.pairs.len()).filter(|&i| set.pairs[i].label == label);
                    @if let Some(first) = of_label.next() {
                        li {
                            (pictures.img(first)?)
                            p { strong { (name) } }
                            p.fine { (of_label.count() + 1) " pairs" }
                        }
                    }
                }
            }
        }
    })
}

fn measured(findings: &Findings) -> Markup {
    let set = &findings.set;
    html! {
        section {
            h2 { "How it was measured" }
            ul {
                li { (set.pairs.len()) " pairs with " (set.labels.names().len()) " labels." }
                li {
                    (findings.runs.len()) " random splits, seeds " (findings.seed) " to " (findings.runs[findings.runs.len() - 1].seed)
                    ": 75 % of the pairs are in the memory, the pictures of the other 25 % are the queries. A label is used only in the prompt “"
                    (DEFAULT_TEMPLATE.replace("{}", "label")) "”; nothing is trained here, and no label of a pair in memory is used."
                }
                li {
                    "Retrieval: the " (findings.neighbors) " pairs with the most similar pictures, duplicate captions dropped, "
                    "the " (findings.k) " captions closest to the picture kept (K = " (findings.k) ")."
                }
                li { "Model: " code { (findings.model.name) } " (fingerprint " code { (findings.model.fingerprint.chars().take(12).collect::<String>()) } "…)." }
                li { "The splits share photos, so the standard deviation tells how much a split matters, not how other photos would fare." }
            }
            @if !set.skipped.is_empty() {
                details {
                    summary { (set.skipped.len()) " left out" }
                    ul { @for what in &set.skipped { li { (what) } } }
                }
            }
        }
    }
}

fn licenses(findings: &Findings) -> Markup {
    html! {
        footer {
            h2 { "Data and licenses" }
            @if findings.set.stamps {
                p {
                    "Pictures and captions: Tux Paint stamps, from Debian’s package " code { "tuxpaint-stamps-default" }
                    ", © Bill Kendrick and contributors, GPL-2 and freer; the package’s copyright file names them. This page embeds small copies "
                    "of them, so these terms hold for the page too."
                }
            } @else {
                p { "Pictures and captions: from " code { (findings.set.dir.display()) } ". This page embeds small copies of them." }
            }
            @if let Some(model) = BundledModel::find(&findings.model.name) {
                p {
                    "Model " code { (model.name()) } ": " (model.towers()) " towers (Apache-2.0) with heads of our own, whose training data is "
                    "for research; its model card states figures, limits and terms."
                }
            }
        }
    }
}
