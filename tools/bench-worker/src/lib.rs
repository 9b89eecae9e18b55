//! A worker process of another library, as the benchmarks start and ask it: a line of JSON in, a line of JSON out.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Result of asking a worker.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A running worker; it ends when this is dropped.
pub struct Worker {
    name: String,
    child: Child,
    /// Closed on drop, which tells the worker to end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `command`, whose input and output become the worker's; `name` is for messages.
    ///
    /// # Errors
    /// That the program cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("a worker without output")?;
        Ok(Self { name: name.to_owned(), child, stdin, stdout: BufReader::new(stdout) })
    }

    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// That the worker has ended, or answers something else.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        let stdin = self.stdin.as_mut().ok_or("a worker without input")?;
        writeln!(stdin, "{request}").map_err(|e| format!("{}: {e}", self.name))?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            let message = format!("{}: the worker ended without an answer to {}", self.name, request["op"]);
            return Err(message.into());
        }
        Ok(serde_json::from_str(&line).map_err(|e| format!("{}: {e} in {line}", self.name))?)
    }

    /// Processor time so far, in the kernel's ticks. `None` where there is no /proc.
    pub fn ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // After the name, which is in parentheses: state is field 3, utime 14, stime 15.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself at the end of its input; its exit status does not matter any more.
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use serde_json::json;

    use super::*;

    fn sh(script: &str) -> Worker {
        Worker::start("sh", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn each_request_gets_its_answer() {
        let mut echo = sh("while read line; do echo \"$line\"; done");
        for op in ["prepare", "run"] {
            assert_eq!(echo.ask::<Value>(&json!({"op": op})).unwrap(), json!({"op": op}));
        }
    }

    #[test]
    fn a_worker_that_ends_is_an_error() {
        let error = sh("read line").ask::<Value>(&json!({"op": "run"})).unwrap_err().to_string();
        assert_eq!(error, "sh: the worker ended without an answer to \"run\"");
        assert!(Worker::start("none", &mut Command::new("/nonexistent/program")).is_err());
    }
}
