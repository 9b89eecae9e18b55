//! The results as titled grids of text, for every form of output that people read.

use xmore_eval::registry::{Suite, published};
use xmore_eval::{Comparison, EvalReport, MemoryUse, MethodReport};

use super::results::Results;

/// A table: the first column names the row.
pub(super) struct Grid {
    pub(super) title: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Grid {
    fn new(title: impl Into<String>, header: &[&str]) -> Self {
        Self {
            title: title.into(),
            header: header.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

fn points(share: f64) -> String {
    format!("{:+.2}", 100.0 * share)
}

fn p_value(p: f64) -> String {
    if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") }
}

fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

/// One line on what was measured.
pub(super) fn heading(report: &EvalReport) -> String {
    let mut text = format!("{}: {} images", report.dataset, report.images);
    if report.unreadable > 0 {
        text += &format!(", {} of them unreadable and counted as wrong", report.unreadable);
    }
    text += &format!(", {} classes", report.classes);
    if report.coverage > 0.0 {
        text += &format!(", captions retrieved for {:.1} %", report.coverage * 100.0);
    }
    text
}

/// Everything on one dataset.
pub(super) fn of_dataset(report: &EvalReport) -> Vec<Grid> {
    let mut grids = vec![accuracy(report), calibration(report)];
    grids.extend(calibrated(report));
    grids.extend(sweep(report));
    grids.extend(variants(report));
    grids.extend(naming(report));
    grids.extend(report.memory.as_ref().map(memory));
    grids
}

/// How far xmore-kernel took the memory into account, and what else the memory would have given.
fn memory(used: &MemoryUse) -> Grid {
    let title = format!("The memory in xmore-kernel: {}", used.labels);
    let mut grid = Grid::new(title, &["", "top-1 %", "mean gate"]);
    let mut row = |what: &str, acc1: f64, gate: String| {
        grid.rows.push(vec![what.to_owned(), percent(acc1), gate]);
    };
    row("as measured", used.acc1, format!("{:.2}", used.mean_gate));
    row("with the gate wholly open", used.acc1_open_gate, "1.00".to_owned());
    row("xmore, the paper's method", used.acc1_xmore, "–".to_owned());
    grid
}

/// A warning where the memory would have given more than what was made of it.
pub(super) fn memory_warning(report: &EvalReport) -> Option<String> {
    let used = report.memory.as_ref()?;
    let (better, acc1) = match used.acc1_open_gate >= used.acc1_xmore {
        true => ("with the gate wholly open", used.acc1_open_gate),
        false => ("by xmore, the paper's method", used.acc1_xmore),
    };
    (acc1 - used.acc1 >= WORTH_TELLING).then(|| {
        format!(
            "{}: xmore-kernel has {} % where the memory would have given {} % {better}; {}",
            report.dataset,
            percent(used.acc1),
            percent(acc1),
            used.labels
        )
    })
}

/// A difference of top-1 that is told.
const WORTH_TELLING: f64 = 0.01;

fn accuracy(report: &EvalReport) -> Grid {
    let mut grid = Grid::new("Accuracy", &["method", "top-1 %", "±", "top-5 %", "per class %"]);
    let references: Vec<&str> =
        ["zero-shot", "xmore"].into_iter().filter(|name| report.method(name).is_some()).collect();
    for name in &references {
        grid.header.extend([format!("− {name}"), "95 %".to_owned(), "p".to_owned()]);
    }
    for method in &report.methods {
        let accuracy = &method.accuracy;
        let mut row = vec![
            method.method.clone(),
            percent(method.acc1()),
            or_dash(method.orders.and_then(|orders| orders.acc1_std), percent),
            or_dash(accuracy.acc5, percent),
            percent(accuracy.mean_per_class_recall),
        ];
        for name in &references {
            match method.against(name) {
                Some(c) => row.extend([
                    points(c.difference),
                    format!("{} … {}", points(c.interval[0]), points(c.interval[1])),
                    p_value(c.p_value),
                ]),
                None => row.extend(["–".to_owned(), String::new(), String::new()]),
            }
        }
        grid.rows.push(row);
    }
    // Without stream methods nothing has a spread.
    if report.methods.iter().all(|method| method.orders.is_none()) {
        grid.header.remove(2);
        grid.rows.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    grid
}

fn calibration(report: &EvalReport) -> Grid {
    let mut grid = Grid::new("Calibration", &["method", "ECE %", "NLL", "Brier", "AURC"]);
    let threshold = report.methods.first().and_then(|method| method.selective).map(|s| s.threshold);
    if let Some(threshold) = threshold {
        grid.title += &format!("; answers below {threshold} withheld in the last columns");
        grid.header.extend(["answered %", "of these right %"].map(str::to_owned));
    }
    for method in &report.methods {
        let c = &method.calibration;
        let mut row = vec![
            method.method.clone(),
            percent(c.ece),
            format!("{:.4}", c.nll),
            format!("{:.4}", c.brier),
            format!("{:.4}", c.aurc),
        ];
        if let Some(selective) = &method.selective {
            row.extend([percent(selective.coverage), or_dash(selective.accuracy, percent)]);
        }
        grid.rows.push(row);
    }
    grid
}

/// What a calibration that was fitted on other photos makes of the probabilities.
fn calibrated(report: &EvalReport) -> Option<Grid> {
    let header = ["method", "temperature", "ECE % before", "after", "NLL before", "after"];
    let mut grid = Grid::new("Calibrated by other photos", &header);
    let all =
        || report.methods.iter().filter_map(|method| Some((&method.method, method.calibrated.as_ref()?)));
    let with_threshold = all().any(|(_, calibrated)| calibrated.given.is_some());
    if with_threshold {
        let more = ["least score", "answered %", "of these right %", "wished %"];
        grid.header.extend(more.map(str::to_owned));
    }
    for (method, calibrated) in all() {
        let mut row = vec![
            method.clone(),
            format!("{:.3}", calibrated.temperature),
            percent(calibrated.before.ece),
            percent(calibrated.after.ece),
            format!("{:.4}", calibrated.before.nll),
            format!("{:.4}", calibrated.after.nll),
        ];
        if with_threshold {
            let given = calibrated.given;
            row.extend([
                or_dash(given, |given| format!("{:.3}", given.threshold)),
                or_dash(given, |given| percent(given.coverage)),
                or_dash(given.and_then(|given| given.accuracy), percent),
                or_dash(calibrated.target_precision, percent),
            ]);
        }
        grid.rows.push(row);
    }
    (!grid.rows.is_empty()).then_some(grid)
}

fn sweep(report: &EvalReport) -> Option<Grid> {
    let first = report.sweep.first()?.k;
    let mut grid = Grid::new("Top-1 % over the number of captions", &["K"]);
    let methods: Vec<&str> =
        report.sweep.iter().filter(|point| point.k == first).map(|point| point.method.as_str()).collect();
    grid.header.extend(methods.iter().map(|method| (*method).to_owned()));
    let mut ks: Vec<usize> = report.sweep.iter().map(|point| point.k).collect();
    ks.dedup();
    for k in ks {
        let of_k = report.sweep.iter().filter(|point| point.k == k);
        grid.rows.push(std::iter::once(k.to_string()).chain(of_k.map(|point| percent(point.acc1))).collect());
    }
    Some(grid)
}

fn variants(report: &EvalReport) -> Option<Grid> {
    let methods: Vec<&str> = report.variants.first()?.acc1.iter().map(|(name, _)| name.as_str()).collect();
    let mut grid = Grid::new("Top-1 % with other retrievals", &["retrieval", "coverage %"]);
    grid.header.extend(methods.iter().map(|method| (*method).to_owned()));
    let main = methods.iter().map(|name| or_dash(report.method(name), |method| percent(method.acc1())));
    grid.rows.push(["as above".to_owned(), percent(report.coverage)].into_iter().chain(main).collect());
    for variant in &report.variants {
        let figures = variant.acc1.iter().map(|(_, acc1)| percent(*acc1));
        grid.rows
            .push([variant.variant.clone(), percent(variant.coverage)].into_iter().chain(figures).collect());
    }
    Some(grid)
}

fn naming(report: &EvalReport) -> Option<Grid> {
    let counts = report.methods.iter().find_map(|method| method.naming)?;
    let title = format!(
        "Top-1 % where captions name the true class ({} images) and where they do not ({})",
        counts.named, counts.unnamed
    );
    let mut grid = Grid::new(title, &["method", "named", "not named"]);
    for method in &report.methods {
        let naming = method.naming.unwrap_or(counts);
        let row = [naming.acc1_named, naming.acc1_unnamed].map(|acc1| or_dash(acc1, percent));
        grid.rows.push(std::iter::once(method.method.clone()).chain(row).collect());
    }
    Some(grid)
}

/// Measured and published side by side, one column a dataset; nothing for datasets given one by one.
pub(super) fn of_suite(results: &Results<'_>) -> Option<Grid> {
    let suite = results.suite?;
    if suite == Suite::K {
        return k_suite(results);
    }
    let names: Vec<&str> = suite.datasets().iter().map(|d| d.name).collect();
    let of = |name: &str| results.reports.iter().find(|report| report.dataset == name);
    // The paper averages ImageNet's shifts without ImageNet.
    let averaged = if suite == Suite::Table2 { 1.. } else { 0.. };
    let mut grid = Grid::new(format!("{}: top-1 %, measured and published", suite.name()), &["method"]);
    grid.header.extend(names.iter().map(|name| (*name).to_owned()));
    grid.header.push(if suite == Suite::Table2 { "shifts' mean".to_owned() } else { "mean".to_owned() });
    let mut methods: Vec<&str> = Vec::new();
    for method in results.reports.iter().flat_map(|report| &report.methods) {
        if !methods.contains(&method.method.as_str()) {
            methods.push(&method.method);
        }
    }
    for method in methods {
        let found: Vec<Option<f64>> =
            names.iter().map(|name| Some(of(name)?.method(method)?.acc1())).collect();
        let complete: Option<Vec<f64>> = found[averaged.clone()].iter().copied().collect();
        let mut row = vec![method.to_owned()];
        row.extend(found.iter().map(|acc1| or_dash(*acc1, percent)));
        row.push(or_dash(complete, |all| percent(all.iter().sum::<f64>() / all.len() as f64)));
        grid.rows.push(row);
    }
    for published in published::rows(suite, results.model) {
        let like = published.method.map_or_else(String::new, |method| format!(" ({method})"));
        let mut row = vec![format!("published: {}{like}", published.row)];
        row.extend(published.figures.iter().map(|figure| format!("{figure:.2}")));
        row.push(format!("{:.2}", published.average));
        grid.rows.push(row);
    }
    Some(grid)
}

/// Averages over the three groups of datasets for each K.
fn k_suite(results: &Results<'_>) -> Option<Grid> {
    let mut grid =
        Grid::new("paper-k: mean top-1 % over the number of captions, measured and published", &["datasets"]);
    grid.header.extend(Suite::KS.map(|k| format!("K = {k}")));
    let groups: [(&str, Vec<&str>); 3] = [
        ("ten datasets", Suite::Table1.datasets().iter().map(|d| d.name).collect()),
        ("ImageNet", vec!["ImageNet"]),
        ("ImageNet's shifts", Suite::Table2.datasets()[1..].iter().map(|d| d.name).collect()),
    ];
    let published = published::k_sweep(results.model);
    for (i, (group, names)) in groups.iter().enumerate() {
        for method in ["xmore", "xmore-stream"] {
            let at = |k: usize| -> Option<f64> {
                let of = |name: &&str| {
                    let report = results.reports.iter().find(|report| report.dataset == **name)?;
                    report.sweep.iter().find(|p| p.k == k && p.method == method).map(|p| p.acc1)
                };
                let all: Option<Vec<f64>> = names.iter().map(of).collect();
                all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
            };
            let row = Suite::KS.map(|k| or_dash(at(k), percent));
            grid.rows.push(std::iter::once(format!("{group}: {method}")).chain(row).collect());
        }
        if let Some(published) = &published {
            let row = published[i].map(|figure| format!("{figure:.2}"));
            grid.rows.push(std::iter::once(format!("{group}: published")).chain(row).collect());
        }
    }
    Some(grid)
}

/// The columns of the csv.
pub(super) const CSV_HEADER: [&str; 23] = [
    "dataset",
    "method",
    "images",
    "unreadable",
    "classes",
    "coverage",
    "acc1",
    "acc1_std",
    "acc5",
    "mean_per_class_recall",
    "ece",
    "nll",
    "brier",
    "aurc",
    "answered",
    "minus_zero_shot",
    "minus_zero_shot_low",
    "minus_zero_shot_high",
    "p_zero_shot",
    "minus_xmore",
    "minus_xmore_low",
    "minus_xmore_high",
    "p_xmore",
];

/// A method's figures, as shares and in full; empty where there is none.
pub(super) fn csv_row(report: &EvalReport, method: &MethodReport) -> Vec<String> {
    let c = &method.calibration;
    let mut row = vec![report.dataset.clone(), method.method.clone()];
    row.extend([report.images, report.unreadable, report.classes].map(|count| count.to_string()));
    let figures = [
        Some(report.coverage),
        Some(method.acc1()),
        method.orders.and_then(|orders| orders.acc1_std),
        method.accuracy.acc5,
        Some(method.accuracy.mean_per_class_recall),
        Some(c.ece),
        Some(c.nll),
        Some(c.brier),
        Some(c.aurc),
        method.selective.map(|selective| selective.coverage),
    ];
    let against = ["zero-shot", "xmore"].map(|name| {
        let against = method.against(name);
        let of = |get: fn(&Comparison) -> f64| against.map(get);
        [of(|c| c.difference), of(|c| c.interval[0]), of(|c| c.interval[1]), of(|c| c.p_value)]
    });
    let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
    row.extend(figures.into_iter().chain(against.into_iter().flatten()).map(number));
    row
}
