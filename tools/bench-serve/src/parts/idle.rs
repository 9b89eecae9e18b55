//! What the server adds to one image when nothing else is asked of it: it and the library in turn, on the same photo.

use std::fmt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Bar, count};
use crate::Result;
use crate::http::Client;
use crate::library::Library;
use crate::server::Server;
use crate::stats::{Spread, median};
use crate::tally::Tally;
use crate::workload::Workload;

/// Before each call, so that the threads of both sides sleep, as they do at idle.
const PAUSE: Duration = Duration::from_millis(5);
/// Photos before the first that counts.
const WARM_UP: usize = 10;

/// What was measured; times in milliseconds, one for each photo.
#[derive(Serialize)]
pub struct Idle {
    pub library: Vec<f64>,
    /// Over one kept connection.
    pub kept: Vec<f64>,
    /// With a new connection for each, which is counted.
    pub fresh: Vec<f64>,
    pub tally: Tally,
}

/// One photo after the other.
pub fn run(
    library: &Library,
    server: &Server,
    workload: &Workload,
    photos: &[PathBuf],
    images: usize,
) -> Result<Idle> {
    let mut clients = [Client::keep_alive(server.address()), Client::fresh(server.address())];
    let mut idle = Idle { library: Vec::new(), kept: Vec::new(), fresh: Vec::new(), tally: Tally::default() };
    for turn in 0..WARM_UP + images {
        let photo = turn % photos.len();
        let mut times = [0.0; 3];
        // Whoever comes first finds the photo in no cache of the processor; so they take turns.
        for who in (0..3).map(|i| (i + turn) % 3) {
            sleep(PAUSE);
            let start = Instant::now();
            if let Some(client) = clients.get_mut(who) {
                let result = client.send(workload.request(photo));
                times[who] = start.elapsed().as_secs_f64() * 1e3;
                workload.count(photo, &result, &mut idle.tally);
            } else {
                let scores = library.classify_one(&photos[photo])?;
                times[who] = start.elapsed().as_secs_f64() * 1e3;
                if !workload.is_expected(photo, &library.predictions(&scores)) {
                    return Err(format!(
                        "{}: alone it has other scores than in a batch",
                        photos[photo].display()
                    )
                    .into());
                }
            }
        }
        if turn >= WARM_UP {
            let [kept, fresh, alone] = times;
            idle.kept.push(kept);
            idle.fresh.push(fresh);
            idle.library.push(alone);
        }
    }
    Ok(idle)
}

impl Idle {
    /// Milliseconds that the server adds, of medians.
    pub fn added(&self, server: &[f64]) -> f64 {
        median(server) - median(&self.library)
    }

    pub fn bars(&self) -> Vec<Bar> {
        vec![
            Bar::at_most("idle, added ms", self.added(&self.kept), 5.0),
            Bar::at_most("idle, added ms with a new connection for each", self.added(&self.fresh), 5.0),
            Bar::at_most(
                "idle, requests not answered",
                count(self.tally.total() - self.tally.accepted()),
                0.0,
            ),
            Bar::at_most("idle, wrong answers", count(self.tally.wrong), 0.0),
        ]
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "idle: {} photos, one at a time, in turn", self.library.len())?;
        let lines =
            [("library", &self.library), ("server", &self.kept), ("server, new connection", &self.fresh)];
        for (name, times) in lines {
            if let Some(Spread { p50, p90, max, .. }) = Spread::of(times) {
                writeln!(f, "  {name:<24}{p50:>8.2} ms p50 {p90:>8.2} p90 {max:>8.2} max")?;
            }
        }
        writeln!(
            f,
            "  added {:.2} ms, with a new connection for each {:.2} ms (difference of medians)",
            self.added(&self.kept),
            self.added(&self.fresh)
        )?;
        writeln!(f, "  requests: {}", self.tally)
    }
}
