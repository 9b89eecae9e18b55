//! A worker process of another engine.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use xmore_clip::Embeddings;

use crate::Result;

/// A running worker; it ends when this is dropped.
pub struct Peer {
    name: String,
    child: Child,
    /// Closed on drop, which tells the worker to end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    version: Option<String>,
    ms: Option<f64>,
    rows: Option<Vec<Vec<f32>>>,
    not_run: Option<String>,
}

impl Peer {
    pub fn start(python: &Path, script: &Path, name: &str, cache: &Path, threads: usize) -> Result<Self> {
        let threads = threads.to_string();
        let mut child = Command::new(python)
            .arg(script)
            .arg(name)
            .arg("--cache")
            .arg(cache)
            .args(["--threads", &threads])
            .env("OMP_NUM_THREADS", &threads)
            .env("HF_HUB_OFFLINE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", python.display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Ok(Self { name: name.to_owned(), child, stdin, stdout })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it ready for a row, warmed up: its version, or why it cannot.
    pub fn prepare(&mut self, row: &Value) -> Result<std::result::Result<String, String>> {
        let answer = self.ask(&json!({"op": "prepare", "row": row}))?;
        Ok(answer.version.ok_or(answer.not_run.unwrap_or_default()))
    }

    /// Milliseconds of one run.
    pub fn run(&mut self) -> Result<std::result::Result<f64, String>> {
        let answer = self.ask(&json!({"op": "run"}))?;
        Ok(answer.ms.ok_or(answer.not_run.unwrap_or_default()))
    }

    /// What it computes, unless it cannot be compared.
    pub fn output(&mut self) -> Result<Option<Embeddings>> {
        let rows = self.ask(&json!({"op": "output"}))?.rows;
        Ok(rows.filter(|rows| !rows.is_empty()).map(|rows| Embeddings::new(rows.concat(), rows[0].len())))
    }

    fn ask(&mut self, request: &Value) -> Result<Answer> {
        let stdin = self.stdin.as_mut().expect("open until dropped");
        writeln!(stdin, "{request}").map_err(|e| format!("{}: {e}", self.name))?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            return Err(
                format!("{}: the worker ended without an answer to {}", self.name, request["op"]).into()
            );
        }
        Ok(serde_json::from_str(&line).map_err(|e| format!("{}: {e} in {line}", self.name))?)
    }

    /// Processor time so far, in the kernel's ticks. `None` where there is no /proc.
    fn ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // After the name, which is in parentheses: state is field 3, utime 14, stime 15.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself at the end of its input; whether it does well no longer matters.
        let _ = self.child.wait();
    }
}

/// Waits until no worker uses the processor: thread pools spin for a while after a run. At most a second.
pub fn settle(peers: &[Peer]) {
    let ticks = || peers.iter().map(Peer::ticks).collect::<Vec<_>>();
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
