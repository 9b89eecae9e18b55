//! The report's charts: bars with error bars in CSS, which narrow screens can squeeze, and lines in SVG.

use maud::{Markup, html};

use super::super::findings::{Figures, MethodFigures};
use super::super::text::percent;
use xmore::Method;

/// One bar a method on a common scale from 0, with the mean ± one standard deviation. The table beside it says the same in text.
pub(super) fn bars(figures: &Figures) -> Markup {
    let end = |f: &MethodFigures| f.acc1_mean + f.acc1_std.unwrap_or(0.0);
    let top = figures.0.iter().map(|(_, f)| end(f)).fold(0.0, f64::max);
    let scale = 100.0 / nice_ceiling(top);
    html! {
        div.bars aria-hidden="true" {
            @for (method, f) in &figures.0 {
                div.bar-row {
                    span.bar-name { (method.name()) }
                    span.track {
                        span.fill.(kind(*method)) style=(format!("width:{:.2}%", scale * f.acc1_mean)) {}
                        @if let Some(std) = f.acc1_std {
                            @let from = (f.acc1_mean - std).max(0.0);
                            span.whisker style=(format!(
                                "left:{:.2}%;width:{:.2}%", scale * from, scale * (f.acc1_mean + std - from)
                            )) {}
                        }
                    }
                    span.bar-value { (percent(f.acc1_mean, None)) }
                }
            }
        }
    }
}

/// CSS class of a method: which modality it uses.
pub(super) fn kind(method: Method) -> &'static str {
    match method {
        Method::ZeroShot | Method::Templates => "picture",
        Method::Captions => "captions",
        Method::Equal | Method::Xmore => "both",
    }
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 88.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// Accuracy of three methods over the number of captions, K on a logarithmic axis.
pub(super) fn lines(sweep: &[(usize, Figures)]) -> Markup {
    let shown = [Method::ZeroShot, Method::Captions, Method::Xmore];
    let means = |method| sweep.iter().map(move |(_, figures)| figures.get(method).acc1_mean);
    let all: Vec<f64> = shown.into_iter().flat_map(means).collect();
    let ticks = ticks(all.iter().copied().fold(1.0, f64::min), all.iter().copied().fold(0.0, f64::max));
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let x = |i: usize| LEFT + (WIDTH - LEFT - RIGHT) * i as f64 / (sweep.len() - 1).max(1) as f64;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
    let ends: Vec<f64> = shown.iter().map(|&m| y(means(m).next_back().unwrap_or(low))).collect();
    html! {
        svg.lines viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
            aria-label="Accuracy over the number of captions K; the table below has the figures" {
            @for &tick in &ticks {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y(tick))) y2=(round(y(tick))) {}
                text.tick x=(LEFT - 8.0) y=(round(y(tick) + 4.0)) text-anchor="end" { (percent_tick(tick)) }
            }
            @for (i, (k, _)) in sweep.iter().enumerate() {
                text.tick x=(round(x(i))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (k) }
            }
            text.tick x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 4.0) text-anchor="middle" { "captions kept, K" }
            @for (&method, label_y) in shown.iter().zip(spread(&ends, 16.0)) {
                @let points: Vec<(f64, f64)> = means(method).enumerate().map(|(i, v)| (x(i), y(v))).collect();
                g.(kind(method)) {
                    polyline points=(points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")) {}
                    @for (x, y) in points {
                        circle cx=(round(x)) cy=(round(y)) r="3.5" {}
                    }
                    text.name x=(WIDTH - RIGHT + 10.0) y=(round(label_y + 4.0)) { (method.name()) }
                }
            }
        }
    }
}

/// Moves positions apart until neighbours are at least `gap` from one another, downwards.
fn spread(positions: &[f64], gap: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|&a, &b| positions[a].total_cmp(&positions[b]));
    let mut moved = positions.to_vec();
    for pair in order.windows(2) {
        moved[pair[1]] = moved[pair[1]].max(moved[pair[0]] + gap);
    }
    moved
}

/// Round values that enclose low..high, at least two.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
    let step = steps.into_iter().find(|step| (high - low) / step <= 5.0).unwrap_or(0.5);
    let first = (low / step + 1e-9).floor() as i64;
    let last = ((high / step - 1e-9).ceil() as i64).max(first + 1);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// The next tenth, at most 1.
fn nice_ceiling(value: f64) -> f64 {
    ((value * 10.0).ceil() / 10.0).clamp(0.1, 1.0)
}

fn percent_tick(value: f64) -> String {
    format!("{:.0} %", 100.0 * value)
}

/// Tenths of a pixel are enough.
fn round(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_enclose_the_values() {
        for (low, high) in [(0.0, 1.0), (0.457, 0.514), (0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.04, 0.05)] {
            let ticks = ticks(low, high);
            assert!((2..=8).contains(&ticks.len()), "{low} {high} {ticks:?}");
            assert!(
                ticks[0] <= low + 1e-6 && ticks[ticks.len() - 1] >= high - 1e-6,
                "{low} {high} {ticks:?}"
            );
        }
        assert_eq!((nice_ceiling(0.51), nice_ceiling(0.0), nice_ceiling(1.2)), (0.6, 0.1, 1.0));
    }

    #[test]
    fn names_of_lines_do_not_overlap() {
        assert_eq!(spread(&[10.0, 12.0, 100.0], 16.0), [10.0, 26.0, 100.0]);
        assert_eq!(spread(&[50.0, 40.0, 45.0], 10.0), [60.0, 40.0, 50.0]);
    }
}
