//! A worker process of another engine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bench_worker::Worker;
use serde::Deserialize;
use serde_json::{Value, json};
use xmore_clip::Embeddings;

use crate::Result;

/// What a worker says of itself when it is ready.
#[derive(Default)]
pub struct Ready {
    pub version: String,
    /// What it computes in, `f32` or less.
    pub precision: String,
}

/// A running worker; it ends when this is dropped.
pub struct Peer(Worker);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    version: Option<String>,
    precision: Option<String>,
    ms: Option<f64>,
    rows: Option<Vec<Vec<f32>>>,
    not_run: Option<String>,
}

impl Peer {
    pub fn start(python: &Path, script: &Path, name: &str, cache: &Path, threads: usize) -> Result<Self> {
        let threads = threads.to_string();
        let mut command = Command::new(python);
        command
            .arg(script)
            .arg(name)
            .arg("--cache")
            .arg(cache)
            .args(["--threads", &threads])
            .env("OMP_NUM_THREADS", &threads)
            .env("HF_HUB_OFFLINE", "1")
            .env("PYTHONWARNINGS", "ignore");
        Ok(Self(Worker::start(name, &mut command)?))
    }

    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Makes it ready for a row, warmed up, or says why it cannot.
    pub fn prepare(&mut self, row: &Value) -> Result<std::result::Result<Ready, String>> {
        let answer: Answer = self.0.ask(&json!({"op": "prepare", "row": row}))?;
        Ok(match answer.version {
            Some(version) => {
                Ok(Ready { version, precision: answer.precision.unwrap_or_else(|| "f32".into()) })
            }
            None => Err(answer.not_run.unwrap_or_default()),
        })
    }

    /// Milliseconds of one run.
    pub fn run(&mut self) -> Result<std::result::Result<f64, String>> {
        let answer: Answer = self.0.ask(&json!({"op": "run"}))?;
        Ok(answer.ms.ok_or(answer.not_run.unwrap_or_default()))
    }

    /// What it computes, unless it cannot be compared.
    pub fn output(&mut self) -> Result<Option<Embeddings>> {
        let rows = self.0.ask::<Answer>(&json!({"op": "output"}))?.rows;
        Ok(rows.filter(|rows| !rows.is_empty()).map(|rows| Embeddings::new(rows.concat(), rows[0].len())))
    }
}

/// Waits until no worker uses the processor: thread pools spin for a while after a run. At most a second.
pub fn settle(peers: &[Peer]) {
    let ticks = || peers.iter().map(|peer| peer.0.ticks()).collect::<Vec<_>>();
    let mut last = ticks();
    for _ in 0..25 {
        // Four ticks of the usual clock.
        std::thread::sleep(Duration::from_millis(40));
        let now = ticks();
        if now == last {
            return;
        }
        last = now;
    }
}
