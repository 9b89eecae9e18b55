//! The report's changed answers: three explained in full, and a gallery of all of them.

use maud::{Markup, html};
use xmore::{SupportKind, best};

use super::super::findings::{Change, Findings, SHOWN, Turn};
use super::pictures::Pictures;
use crate::error::Result;

/// Labels of each distribution that are shown.
const TOP: usize = 4;

/// One changed answer: the picture, the three distributions label by label, the weights, the captions.
pub(super) fn explained(findings: &Findings, pictures: &Pictures, change: &Change) -> Result<Markup> {
    let (set, evidence) = (&findings.set, change.evidence);
    let label = |index: usize| set.label(index);
    let share = 100.0 * change.gate;
    let confidence = evidence.captions.as_ref().map_or(0.0, |captions| captions.confidence);
    Ok(html! {
        article.example {
            header {
                (pictures.img(change.pair)?)
                div {
                    h3 { (verdict(change.turn)) }
                    p { "True label: " strong { (label(change.truth)) } }
                    p {
                        "Picture alone: " (label(change.before)) ". With captions: " strong { (label(change.after)) } "."
                    }
                    p.fine {
                        (set.pairs[change.pair].name) ", split " (change.run.seed) ". Its own caption (not shown to the model): “"
                        (set.pairs[change.pair].caption) "”"
                        @if change.own_caption { ", which a pair in memory has too" }
                    }
                }
            }
            h4 { "How far the memory is taken into account" }
            span.track aria-hidden="true" { span.fill.both style=(format!("width:{share:.1}%")) {} }
            p.weights {
                span { (format!("{share:.0} %")) @if let Some(kind) = opened_by(change) { ": " (kind.summary()) } }
                span {
                    "confidence of the picture " (format!("{:.2}", evidence.image.confidence))
                    ", of the captions " (format!("{confidence:.2}"))
                }
            }
            h4 { "Labels by each modality" }
            (distributions(findings, change))
            h4 { "The " (evidence.retrieved.len()) " captions, best first" }
            ol.captions-list {
                @for (caption, &vote) in evidence.retrieved.iter().zip(&evidence.votes) {
                    li {
                        (pictures.img(change.run.memory[caption.id as usize])?)
                        div {
                            q { (caption.caption) }
                            p.fine {
                                "cosine " (format!("{:.3}", caption.similarity)) " · votes "
                                span.vote.right[vote == change.truth] { (label(vote)) }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn opened_by(change: &Change) -> Option<SupportKind> {
    change.evidence.gated.as_ref().and_then(|gated| gated.opened_by)
}

fn verdict(turn: Turn) -> Markup {
    match turn {
        Turn::Better => html! { span.badge.better { "✓ better" } " Captions put it right" },
        Turn::Worse => html! { span.badge.worse { "✗ worse" } " Captions put it wrong" },
        Turn::StillWrong => html! { span.badge.other { "– other" } " Wrong with and without captions" },
    }
}

/// The most probable labels of each modality and of both together, one row a label, in three columns.
fn distributions(findings: &Findings, change: &Change) -> Markup {
    let image = &change.evidence.image.values;
    let captions = change.evidence.captions.as_ref().map_or(image, |captions| &captions.values);
    let mut rows: Vec<usize> = [image, captions, &change.scores]
        .into_iter()
        .flat_map(|p| best(p, TOP))
        .map(|(label, _)| label)
        .collect();
    rows.push(change.truth);
    rows.sort_by(|&a, &b| change.scores[b].total_cmp(&change.scores[a]).then(a.cmp(&b)));
    rows.dedup();
    let columns = [
        ("picture", "picture alone", image),
        ("captions", "captions alone", captions),
        ("both", SHOWN.name(), &change.scores),
    ];
    html! {
        div.scroll { table.distributions {
            thead { tr {
                th scope="col" { "label" }
                @for (_, name, _) in &columns { th scope="col" { (name) } }
            } }
            tbody {
                @for label in rows {
                    tr.truth[label == change.truth] {
                        th scope="row" {
                            (findings.set.label(label)) @if label == change.truth { " " span.vote.right { "true" } }
                        }
                        @for (class, _, p) in &columns {
                            td {
                                span.number { (format!("{:.1} %", 100.0 * p[label])) }
                                span.track aria-hidden="true" {
                                    span.fill.(class) style=(format!("width:{:.2}%", 100.0 * p[label])) {}
                                }
                            }
                        }
                    }
                }
            }
        } }
    }
}

/// All changed answers of one turn; the same change of the same picture in several splits is shown once.
pub(super) fn gallery(
    findings: &Findings,
    pictures: &Pictures,
    changes: &[Change],
    turn: Turn,
) -> Result<Markup> {
    let mut groups: Vec<(&Change, usize)> = Vec::new();
    for change in changes.iter().filter(|change| change.turn == turn) {
        let key = |c: &Change| (c.pair, c.before, c.after);
        match groups.iter_mut().find(|(first, _)| key(first) == key(change)) {
            Some((_, times)) => *times += 1,
            None => groups.push((change, 1)),
        }
    }
    groups.sort_by_key(|(change, _)| change.pair);
    let label = |index| findings.set.label(index);
    Ok(html! {
        @if groups.is_empty() { p { "None." } }
        ul.gallery {
            @for (change, times) in groups {
                li {
                    (pictures.img(change.pair)?)
                    p { s { (label(change.before)) } " → " strong { (label(change.after)) } }
                    @if turn != Turn::Better { p.fine { "truth: " (label(change.truth)) } }
                    @if times > 1 { p.fine { "in " (times) " splits" } }
                }
            }
        }
    })
}
