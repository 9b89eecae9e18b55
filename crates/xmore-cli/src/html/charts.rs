//! Charts of the HTML reports: bars in CSS, which narrow screens can squeeze, and the others in SVG.

use maud::{Markup, html};

/// One bar; its class says which modalities the method uses (`picture`, `captions`, `both`).
pub(crate) struct Bar<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    /// In [0, 1].
    pub(crate) value: f64,
    /// Half the length of its error bar.
    pub(crate) std: Option<f64>,
}

/// Bars on a common scale from 0. A table beside them says the same in text.
pub(crate) fn bars(bars: &[Bar<'_>]) -> Markup {
    let top = bars.iter().map(|bar| bar.value + bar.std.unwrap_or(0.0)).fold(0.0, f64::max);
    let scale = 100.0 / nice_ceiling(top);
    html! {
        div.bars aria-hidden="true" {
            @for bar in bars {
                div.bar-row {
                    span.bar-name { (bar.name) }
                    span.track {
                        span.fill.(bar.class) style=(format!("width:{:.2}%", scale * bar.value)) {}
                        @if let Some(std) = bar.std {
                            @let from = (bar.value - std).max(0.0);
                            span.whisker style=(format!(
                                "left:{:.2}%;width:{:.2}%", scale * from, scale * (bar.value + std - from)
                            )) {}
                        }
                    }
                    span.bar-value { (format!("{:.1} %", 100.0 * bar.value)) }
                }
            }
        }
    }
}

/// One line of a chart.
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    /// One value in [0, 1] at each place.
    pub(crate) values: Vec<f64>,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 88.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// Lines over places at equal distances.
pub(crate) fn lines(series: &[Series<'_>], places: &[String], title: &str, description: &str) -> Markup {
    let all = || series.iter().flat_map(|line| line.values.iter().copied());
    let ticks = ticks(all().fold(1.0, f64::min), all().fold(0.0, f64::max));
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let x = |i: usize| LEFT + (WIDTH - LEFT - RIGHT) * i as f64 / (places.len() - 1).max(1) as f64;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
    let ends: Vec<f64> = series.iter().map(|line| y(line.values.last().copied().unwrap_or(low))).collect();
    html! {
        svg.lines viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(description) {
            @for &tick in &ticks {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y(tick))) y2=(round(y(tick))) {}
                text.tick x=(LEFT - 8.0) y=(round(y(tick) + 4.0)) text-anchor="end" { (percent_tick(tick)) }
            }
            @for (i, place) in places.iter().enumerate() {
                text.tick x=(round(x(i))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (place) }
            }
            text.tick x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 4.0) text-anchor="middle" { (title) }
            @for (line, label_y) in series.iter().zip(spread(&ends, 16.0)) {
                @let points: Vec<(f64, f64)> = line.values.iter().enumerate().map(|(i, &v)| (x(i), y(v))).collect();
                g.(line.class) {
                    polyline points=(points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")) {}
                    @for (x, y) in points {
                        circle cx=(round(x)) cy=(round(y)) r="3.5" {}
                    }
                    text.name x=(WIDTH - RIGHT + 10.0) y=(round(label_y + 4.0)) { (line.name) }
                }
            }
        }
    }
}

/// Side of a small square chart.
const SQUARE: f64 = 200.0;
/// Its margin to the left and below.
const MARGIN: f64 = 30.0;

/// A reliability diagram: for each bin mean confidence and accuracy (`None` where it is empty), and the diagonal of perfect calibration.
pub(crate) fn reliability(bins: &[Option<(f64, f64)>], class: &str, description: &str) -> Markup {
    let side = SQUARE - MARGIN;
    let x = |share: f64| MARGIN + side * share;
    let y = |share: f64| side * (1.0 - share);
    let width = side / bins.len().max(1) as f64;
    html! {
        svg.square viewBox=(format!("-4 -8 {} {}", SQUARE + 12.0, SQUARE + 16.0)) role="img" aria-label=(description) {
            line.grid x1=(round(x(0.0))) y1=(round(y(0.0))) x2=(round(x(1.0))) y2=(round(y(1.0))) {}
            line.grid x1=(round(x(0.0))) y1=(round(y(0.0))) x2=(round(x(1.0))) y2=(round(y(0.0))) {}
            line.grid x1=(round(x(0.0))) y1=(round(y(0.0))) x2=(round(x(0.0))) y2=(round(y(1.0))) {}
            g.(class) {
                @for (i, bin) in bins.iter().enumerate() {
                    @if let Some((confidence, accuracy)) = bin {
                        rect x=(round(MARGIN + width * i as f64 + 0.5)) width=(round(width - 1.0))
                            y=(round(y(*accuracy))) height=(round(side * accuracy)) {}
                        circle cx=(round(x(*confidence))) cy=(round(y(*accuracy))) r="2.5" {}
                    }
                }
            }
            @for tick in [0.0, 0.5, 1.0] {
                text.tick x=(round(MARGIN - 4.0)) y=(round(y(tick) + 4.0)) text-anchor="end" { (percent_tick(tick)) }
                text.tick x=(round(x(tick))) y=(round(side + 14.0)) text-anchor="middle" { (percent_tick(tick)) }
            }
            text.tick x=(round(x(0.5))) y=(round(side + 30.0)) text-anchor="middle" { "confidence; accuracy upwards" }
        }
    }
}

/// A histogram of values in [0, 1].
pub(crate) fn histogram(values: &[f64], class: &str, title: &str) -> Markup {
    const BARS: usize = 20;
    let mut counts = [0usize; BARS];
    values.iter().for_each(|v| counts[((v * BARS as f64) as usize).min(BARS - 1)] += 1);
    let top = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let (side, width) = (SQUARE - MARGIN, (SQUARE - MARGIN) / BARS as f64);
    html! {
        svg.square viewBox=(format!("-4 -8 {} {}", SQUARE + 12.0, SQUARE + 16.0)) role="img"
            aria-label=(format!("{title}: {} values in {BARS} bars, the tallest {top}", values.len())) {
            line.grid x1=(MARGIN) y1=(side) x2=(SQUARE) y2=(side) {}
            g.(class) {
                @for (i, &count) in counts.iter().enumerate() {
                    @let height = side * count as f64 / top;
                    rect x=(round(MARGIN + width * i as f64 + 0.5)) width=(round(width - 1.0)) y=(round(side - height)) height=(round(height)) {}
                }
            }
            text.tick x=(round(MARGIN - 4.0)) y="4" text-anchor="end" { (top) }
            @for tick in [0.0, 0.5, 1.0] {
                text.tick x=(round(MARGIN + side * tick)) y=(round(side + 14.0)) text-anchor="middle" { (tick) }
            }
            text.tick x=(round(MARGIN + side / 2.0)) y=(round(side + 30.0)) text-anchor="middle" { (title) }
        }
    }
}

/// Moves positions apart until neighbors are at least `gap` from one another, downwards.
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

    #[test]
    fn values_fall_into_their_bars() {
        let page = histogram(&[0.0, 0.01, 0.99, 1.0, 1.0], "both", "x").into_string();
        // Two of three: the first bar has two thirds of the height of the last.
        assert!(page.contains(r#"height="170.0""#) && page.contains(r#"height="113.3""#), "{page}");
        let page = reliability(&[None, Some((0.75, 0.5))], "both", "y").into_string();
        assert!(page.contains(r#"cy="85.0""#) && page.matches("<rect").count() == 1, "{page}");
    }
}
