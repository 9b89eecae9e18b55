//! A worker process of another library.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;

/// A running worker; it ends when this is dropped.
pub struct Peer {
    name: String,
    child: Child,
    /// Closed on drop, which tells the worker to end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

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
        let mut child = Command::new(python)
            .arg(script)
            .args([name, "--threads", &threads])
            .env("OMP_NUM_THREADS", &threads)
            .env("OPENBLAS_NUM_THREADS", &threads)
            // A core type or cache size set for some other machine makes a peer slow.
            .env_remove("OPENBLAS_CORETYPE")
            .env_remove("OPENBLAS_L2_SIZE")
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

    /// Loads the rows and warms up.
    pub fn prepare(&mut self, data: &Value) -> Result<Answer> {
        self.ask(&json!({"op": "prepare", "data": data}))
    }

    /// Searches some of the queries.
    pub fn run(&mut self, first: usize, count: usize) -> Result<Answer> {
        self.ask(&json!({"op": "run", "first": first, "count": count}))
    }

    fn ask(&mut self, request: &Value) -> Result<Answer> {
        let stdin = self.stdin.as_mut().expect("open until dropped");
        writeln!(stdin, "{request}").map_err(|e| format!("{}: {e}", self.name))?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            return Err(format!("{}: the worker ended without an answer", self.name).into());
        }
        Ok(serde_json::from_str(&line).map_err(|e| format!("{}: {e} in {line}", self.name))?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself at the end of its input; whether it does well no longer matters.
        let _ = self.child.wait();
    }
}
