//! Results as a table for people and JSON for programs.

use std::fmt;

use serde_json::{Value, json};
use xmore_clip::Embeddings;

use crate::int8::Agreement;
use crate::ours::Load;
use crate::peak::Peak;

/// What our engine multiplies and adds for an image of ViT-B/16: 11 whole blocks of 24 n w² + 4 n² w, n = 197 tokens, w = 768; of the last one
/// keys and values (4 n w²), and the rest (20 w² + 4 n w) for one token; 196 patches. A graph that computes all of the last block has 35.1e9.
const VIT_B_16_FLOPS: f64 = {
    let (n, w) = (197.0, 768.0);
    11.0 * (24.0 * n * w * w + 4.0 * n * n * w)
        + 4.0 * n * w * w
        + 20.0 * w * w
        + 4.0 * n * w
        + 2.0 * 196.0 * w * w
};

/// Everything measured.
pub struct Report {
    threads: usize,
    repeats: u32,
    pub peak: Option<Peak>,
    pub rows: Vec<RowReport>,
    pub loads: Vec<(String, Load)>,
    pub int8_texts: Option<Agreement>,
}

/// One row.
pub struct RowReport {
    pub name: String,
    pub arch: &'static str,
    /// Images or texts in the batch.
    pub items: usize,
    /// Name of the variant, times in ms; the reference first.
    pub ours: Vec<(String, Vec<f64>)>,
    pub peers: Vec<PeerResult>,
}

/// One other engine in one row.
pub struct PeerResult {
    name: String,
    version: String,
    pub times: Vec<f64>,
    /// Largest difference of a component of the unit embeddings from ours; `None` where they cannot be compared.
    pub difference: Option<f32>,
    /// Why it did not run.
    pub not_run: Option<String>,
}

impl PeerResult {
    pub fn new(name: &str, version: String) -> Self {
        Self { name: name.to_owned(), version, times: Vec::new(), difference: None, not_run: None }
    }

    pub fn not_run(name: &str, why: String) -> Self {
        Self { not_run: Some(why), ..Self::new(name, String::new()) }
    }
}

/// The middle value; of an even number the mean of the two.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Largest difference of a component.
pub fn difference(a: &Embeddings, b: &Embeddings) -> f32 {
    if (a.len(), a.dim()) != (b.len(), b.dim()) {
        return f32::INFINITY;
    }
    let differences = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, d| if max.is_nan() || d <= max { max } else { d })
}

impl RowReport {
    fn our_ms(&self) -> f64 {
        median(&self.ours[0].1)
    }

    /// The fastest other engine and its time.
    fn fastest(&self) -> Option<(&str, f64)> {
        let ran = self.peers.iter().filter(|peer| peer.not_run.is_none());
        ran.map(|peer| (peer.name.as_str(), median(&peer.times))).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn ratio(&self) -> Option<f64> {
        self.fastest().map(|(_, ms)| self.our_ms() / ms)
    }

    fn json(&self) -> Value {
        let ours = self.ours.iter().map(|(name, times)| {
            json!({"variant": name, "ms": median(times), "of_first": median(times) / self.our_ms(), "all_ms": times})
        });
        let peers = self.peers.iter().map(|peer| match &peer.not_run {
            Some(why) => json!({"name": peer.name, "not_run": why}),
            None => json!({"name": peer.name, "version": peer.version, "ms": median(&peer.times),
                           "all_ms": peer.times, "max_difference": peer.difference}),
        });
        json!({"row": self.name, "arch": self.arch, "items": self.items, "ours": ours.collect::<Vec<_>>(), "peers": peers.collect::<Vec<_>>(),
               "fastest_peer": self.fastest().map(|(name, _)| name), "ratio": self.ratio()})
    }
}

/// A row for people: our times, theirs, and how they compare.
pub fn line(row: &RowReport) -> String {
    let mut line = format!("{:<28}", row.name);
    for (name, times) in &row.ours {
        line += &format!("  xmore {name} {:.1} ms", median(times));
    }
    for (name, times) in row.ours.iter().skip(1) {
        line += &format!(" ({name} is {:.2} x f32)", median(times) / row.our_ms());
    }
    for peer in row.peers.iter().filter(|peer| peer.not_run.is_none()) {
        line += &format!("  {} {:.1}", peer.name, median(&peer.times));
        match peer.difference {
            Some(difference) if difference > 1e-4 => line += &format!(" (differs by {difference:.1e}!)"),
            _ => {}
        }
    }
    match (row.ratio(), row.fastest()) {
        (Some(ratio), Some((name, _))) => line + &format!("  ratio {ratio:.2} to {name}"),
        _ => line,
    }
}

impl Report {
    pub fn new(threads: usize, repeats: u32) -> Self {
        Self { threads, repeats, peak: None, rows: Vec::new(), loads: Vec::new(), int8_texts: None }
    }

    pub fn json(&self) -> Value {
        let loads = self.loads.iter().map(|(name, load)| json!({"row": name, "load": load}));
        json!({"threads": self.threads, "repeats": self.repeats, "peak": self.peak,
               "rows": self.rows.iter().map(RowReport::json).collect::<Vec<_>>(), "loads": loads.collect::<Vec<_>>(),
               "int8_texts": self.int8_texts.as_ref().map(Agreement::json)})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} threads, medians of {}; ratio: our time / the fastest peer's",
            self.threads, self.repeats
        )?;
        if let Some(peak) = &self.peak {
            writeln!(f, "{peak}")?;
        }
        for row in &self.rows {
            writeln!(f, "{}", line(row))?;
        }
        if let Some((peak, row)) =
            self.peak.as_ref().zip(self.rows.iter().find(|row| row.name == "image/ViT-B-16/8"))
        {
            let rate = row.items as f64 * VIT_B_16_FLOPS / row.our_ms() / 1e6;
            let share = 100.0 * rate / peak.fma_gflops;
            writeln!(f, "{}: {rate:.0} GFLOP/s of what is computed, {share:.0} % of the peak", row.name)?;
        }
        for (name, load) in &self.loads {
            writeln!(f, "{name:<28}  {load}")?;
        }
        if let Some(agreement) = &self.int8_texts {
            writeln!(f, "{:<28}  {agreement}", "int8/texts")?;
        }
        let mut notes: Vec<String> = Vec::new();
        for peer in self.rows.iter().flat_map(|row| &row.peers) {
            let note = match &peer.not_run {
                Some(why) => format!("{} not run: {why}", peer.name),
                None => format!("{}: {}", peer.name, peer.version),
            };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
