//! Results as a table for people and JSON for programs.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use xmore_clip::Embeddings;

use crate::agreement::Agreement;
use crate::ours::Load;
use crate::peak::Peak;
use crate::peer::Ready;
use crate::processor;

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
    pub near_texts: Vec<Agreement>,
}

/// One row.
pub struct RowReport {
    pub name: String,
    pub arch: &'static str,
    /// Images or texts in the batch.
    pub items: usize,
    /// The reference first.
    pub ours: Vec<OurResult>,
    pub peers: Vec<PeerResult>,
}

/// One of our precisions in one row.
pub struct OurResult {
    pub name: &'static str,
    /// In ms.
    pub times: Vec<f64>,
    /// With the reference.
    pub compared: Compared,
}

/// One other engine in one row.
pub struct PeerResult {
    name: String,
    version: String,
    /// What it computes in.
    precision: String,
    pub times: Vec<f64>,
    /// With our reference; `None` where that cannot be.
    pub compared: Option<Compared>,
    /// Why it did not run.
    pub not_run: Option<String>,
}

impl PeerResult {
    pub fn new(name: &str, ready: Ready) -> Self {
        let Ready { version, precision } = ready;
        Self { name: name.to_owned(), version, precision, times: Vec::new(), compared: None, not_run: None }
    }

    pub fn not_run(name: &str, why: String) -> Self {
        Self { not_run: Some(why), ..Self::new(name, Ready::default()) }
    }

    /// Whether it is one that a precision of ours is compared with: f32 with f32, the others with all that are as near to f32 as asked.
    fn is_peer_of(&self, ours: &OurResult) -> bool {
        let near = self.compared.is_some_and(|compared| compared.cosine >= LEAST_COSINE);
        self.not_run.is_none() && (self.precision == "f32" || (ours.name != "f32" && near))
    }
}

/// Least cosine to f32 of an engine that our precisions below f32 are compared with.
const LEAST_COSINE: f32 = 0.999;

/// How unit embeddings differ from those of our reference.
#[derive(Clone, Copy, Serialize)]
pub struct Compared {
    /// Largest difference of a component.
    pub max_difference: f32,
    /// Least cosine.
    pub cosine: f32,
}

impl Compared {
    pub fn of(reference: &Embeddings, rows: &Embeddings) -> Self {
        let cosine = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosines = reference.rows().zip(rows.rows()).map(cosine);
        Self { max_difference: difference(reference, rows), cosine: cosines.fold(1.0, f32::min) }
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
fn difference(a: &Embeddings, b: &Embeddings) -> f32 {
    if (a.len(), a.dim()) != (b.len(), b.dim()) {
        return f32::INFINITY;
    }
    let differences = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, d| if max.is_nan() || d <= max { max } else { d })
}

impl RowReport {
    /// The fastest other engine that a precision of ours is compared with, and its time.
    fn fastest(&self, ours: &OurResult) -> Option<(&str, f64)> {
        let peers = self.peers.iter().filter(|peer| peer.is_peer_of(ours));
        peers.map(|peer| (peer.name.as_str(), median(&peer.times))).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn json(&self) -> Value {
        let of_f32 = median(&self.ours[0].times);
        let ours = self.ours.iter().map(|ours| {
            let (ms, fastest) = (median(&ours.times), self.fastest(ours));
            json!({"variant": ours.name, "ms": ms, "of_first": ms / of_f32, "compared": ours.compared, "all_ms": ours.times,
                   "fastest_peer": fastest.map(|(name, _)| name), "ratio": fastest.map(|(_, peer)| ms / peer)})
        });
        let peers = self.peers.iter().map(|peer| match &peer.not_run {
            Some(why) => json!({"name": peer.name, "not_run": why}),
            None => json!({"name": peer.name, "version": peer.version, "precision": peer.precision, "ms": median(&peer.times),
                           "all_ms": peer.times, "compared": peer.compared}),
        });
        json!({"row": self.name, "arch": self.arch, "items": self.items, "ours": ours.collect::<Vec<_>>(),
               "peers": peers.collect::<Vec<_>>()})
    }
}

/// A row for people: our times, theirs, and how they compare.
pub fn line(row: &RowReport) -> String {
    let mut line = format!("{:<28}", row.name);
    for ours in &row.ours {
        line += &format!("  xmore {} {:.1} ms", ours.name, median(&ours.times));
        if ours.name != "f32" {
            line += &format!(" (cosine {:.5})", ours.compared.cosine);
        }
    }
    for peer in row.peers.iter().filter(|peer| peer.not_run.is_none()) {
        line += &format!("  {} {:.1}", peer.name, median(&peer.times));
        match peer.compared {
            Some(compared) if peer.precision != "f32" => {
                line += &format!(" ({}, cosine {:.5})", peer.precision, compared.cosine);
            }
            Some(compared) if compared.max_difference > 1e-4 => {
                line += &format!(" (differs by {:.1e}!)", compared.max_difference);
            }
            _ => {}
        }
    }
    for ours in &row.ours {
        if let Some((name, ms)) = row.fastest(ours) {
            line += &format!("  {} {:.2} of {name}", ours.name, median(&ours.times) / ms);
        }
    }
    line
}

impl Report {
    pub fn new(threads: usize, repeats: u32) -> Self {
        Self { threads, repeats, peak: None, rows: Vec::new(), loads: Vec::new(), near_texts: Vec::new() }
    }

    pub fn json(&self) -> Value {
        let loads = self.loads.iter().map(|(name, load)| json!({"row": name, "load": load}));
        json!({"processor": processor::name(), "features": processor::features(), "threads": self.threads, "repeats": self.repeats, "peak": self.peak,
               "rows": self.rows.iter().map(RowReport::json).collect::<Vec<_>>(), "loads": loads.collect::<Vec<_>>(),
               "near_texts": self.near_texts})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", processor::name(), processor::features().join(" "))?;
        writeln!(
            f,
            "{} threads, medians of {}; ratios: our time / the fastest peer's, of f32 peers for f32 and else of those with a cosine of {LEAST_COSINE} to f32",
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
            for ours in &row.ours {
                let peak = match ours.name {
                    "f32" => Some(peak.fma_gflops),
                    "bf16" => peak.amx_gflops.or(peak.bf16_gflops),
                    _ => None,
                };
                let Some(peak) = peak else { continue };
                let rate = row.items as f64 * VIT_B_16_FLOPS / median(&ours.times) / 1e6;
                let share = 100.0 * rate / peak;
                writeln!(
                    f,
                    "{} {}: {rate:.0} GFLOP/s of what is computed, {share:.0} % of the peak",
                    row.name, ours.name
                )?;
            }
        }
        for (name, load) in &self.loads {
            writeln!(f, "{name:<28}  {load}")?;
        }
        for agreement in &self.near_texts {
            writeln!(f, "{:<28}  {agreement}", "texts")?;
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
