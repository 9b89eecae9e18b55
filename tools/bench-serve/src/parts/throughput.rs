//! Throughput at saturation against the library's, interleaved: the same photos, labels, memory and method.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::{Bar, count};
use crate::Result;
use crate::library::Library;
use crate::load::{closed_loop, connected};
use crate::server::Server;
use crate::stats::median;
use crate::tally::Tally;
use crate::workload::Workload;

/// What was measured.
#[derive(Serialize)]
pub struct Throughput {
    pub connections: usize,
    pub photos: usize,
    /// Photos a second, of each round.
    pub library: Vec<f64>,
    pub server: Vec<f64>,
    pub tally: Tally,
    /// Processors that the generator kept busy while it loaded the server, of each round.
    pub generator_cpus: Vec<f64>,
}

/// Rounds of the library and of the server in turn; one of the server before that warms it up.
pub fn run(
    library: &Library,
    server: &Server,
    workload: &Workload,
    photos: &[PathBuf],
    connections: usize,
    rounds: usize,
) -> Result<Throughput> {
    let mut clients = connected(server.address(), connections)?;
    closed_loop(workload, &mut clients, photos.len())?;
    let mut measured = Throughput {
        connections,
        photos: photos.len(),
        library: Vec::new(),
        server: Vec::new(),
        tally: Tally::default(),
        generator_cpus: Vec::new(),
    };
    for round in 1..=rounds {
        let start = Instant::now();
        library.classify_files(photos)?;
        measured.library.push(photos.len() as f64 / start.elapsed().as_secs_f64());
        // The library's threads go to sleep by themselves as soon as nothing is left.
        let loaded = closed_loop(workload, &mut clients, photos.len())?;
        measured.generator_cpus.push(loaded.processors);
        measured.server.push(loaded.rate());
        measured.tally += &loaded.tally;
        eprintln!(
            "  round {round}: library {:.1}, server {:.1} photos/s",
            measured.library[round - 1],
            measured.server[round - 1]
        );
    }
    Ok(measured)
}

impl Throughput {
    /// Server by library, of the medians.
    pub fn ratio(&self) -> f64 {
        median(&self.server) / median(&self.library)
    }

    /// Median of the rounds' own ratios, which a machine that grows slower meanwhile does not move.
    fn paired(&self) -> f64 {
        let each: Vec<f64> =
            self.server.iter().zip(&self.library).map(|(server, library)| server / library).collect();
        median(&each)
    }

    /// Accepted requests a second: the server's capacity.
    pub fn capacity(&self) -> f64 {
        median(&self.server)
    }

    pub fn bars(&self) -> Vec<Bar> {
        vec![
            Bar::at_least("throughput, server by library", self.ratio(), 0.9),
            Bar::at_most(
                "throughput, requests not answered",
                count(self.tally.total() - self.tally.accepted()),
                0.0,
            ),
            Bar::at_most("throughput, wrong answers", count(self.tally.wrong), 0.0),
        ]
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "throughput: {} photos, {} connections, closed loop", self.photos, self.connections)?;
        for (name, rates) in [("library", &self.library), ("server", &self.server)] {
            let each: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
            writeln!(f, "  {name:<9}{:>8.1} photos/s, median of {}", median(rates), each.join(" "))?;
        }
        writeln!(f, "  ratio    {:>8.3} of the medians, {:.3} by rounds", self.ratio(), self.paired())?;
        writeln!(f, "  requests: {}", self.tally)?;
        writeln!(f, "  the generator took {:.2} processors meanwhile", median(&self.generator_cpus))
    }
}
