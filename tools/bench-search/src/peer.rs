//! A worker process of another library.

use std::path::Path;
use std::process::Command;

use bench_worker::Worker;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;

/// A running worker; it ends when this is dropped.
pub struct Peer(Worker);

/// What a worker answers.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub version: Option<String>,
    pub ms: f64,
    pub ids: Vec<Vec<u64>>,
    pub not_run: Option<String>,
}

impl Peer {
    pub fn start(python: &Path, script: &Path, name: &str, threads: usize) -> Result<Self> {
        let threads = threads.to_string();
        let mut command = Command::new(python);
        command
            .arg(script)
            .args([name, "--threads", &threads])
            .env("OMP_NUM_THREADS", &threads)
            .env("OPENBLAS_NUM_THREADS", &threads)
            // A core type or cache size set for some other machine makes a peer slow.
            .env_remove("OPENBLAS_CORETYPE")
            .env_remove("OPENBLAS_L2_SIZE");
        Ok(Self(Worker::start(name, &mut command)?))
    }

    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Loads the rows and warms up.
    pub fn prepare(&mut self, data: &Value) -> Result<Answer> {
        self.0.ask(&json!({"op": "prepare", "data": data}))
    }

    /// Searches some of the queries.
    pub fn run(&mut self, first: usize, count: usize) -> Result<Answer> {
        self.0.ask(&json!({"op": "run", "first": first, "count": count}))
    }
}
