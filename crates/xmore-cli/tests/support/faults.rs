//! Runs that end, fail or find the disk full at one of their calls, by a library that is loaded before the system's (`fault.c`).
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Xmore;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// The same, and data that was not made durable is lost.
    Lose,
    /// From there on nothing can be created or written.
    Full,
    /// This one call fails.
    Fail,
}

/// A call that changes files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `rename`, `write`, `create`, …
    pub name: String,
    pub path: String,
}

impl Call {
    /// Whether it needs space on the disk.
    pub fn needs_room(&self) -> bool {
        ["create", "mkdir", "write", "link"].contains(&&*self.name)
    }
}

/// How a run ended.
pub struct Ended {
    /// `None` if it was killed.
    pub code: Option<i32>,
    pub stderr: String,
    /// The calls that it made, the one with the fault included.
    pub calls: Vec<Call>,
}

/// The library, compiled.
pub struct Faults {
    dir: tempfile::TempDir,
}

impl Faults {
    /// `None`, with a message on standard error, where there is no C compiler.
    pub fn new() -> Option<Self> {
        let faults = Self { dir: tempfile::tempdir().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fault.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(faults.library()).arg(source).arg("-ldl");
        match cc.output() {
            Ok(output) if output.status.success() => Some(faults),
            Ok(output) => panic!("cc: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                eprintln!("SKIPPED: there is no C compiler: {error}");
                None
            }
        }
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("fault.so")
    }

    /// Runs a command undisturbed, to success, and returns its calls.
    #[track_caller]
    pub fn calls(&self, command: Xmore, below: &Path) -> Vec<Call> {
        self.load(command, below).ok();
        self.logged()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("calls")
    }

    /// The calls of the last run.
    fn logged(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let call = |line: &str| {
            let (name, path) = line.split_once(' ').unwrap();
            Call { name: name.to_owned(), path: path.to_owned() }
        };
        text.lines().map(call).collect()
    }

    /// Runs a command with a fault at a call, from 1.
    pub fn run(&self, command: Xmore, below: &Path, fault: Fault, at: usize) -> Ended {
        let mode = match fault {
            Fault::Kill => "kill",
            Fault::Lose => "lose",
            Fault::Full => "full",
            Fault::Fail => "fail",
        };
        let command = self.load(command, below).env("FAULT_MODE", mode).env("FAULT_AT", at.to_string());
        let output = command.output();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!([None, Some(9)].contains(&output.status.signal()), "{:?}: {stderr}", output.status);
        Ended { code: output.status.code(), stderr, calls: self.logged() }
    }

    fn load(&self, command: Xmore, below: &Path) -> Xmore {
        let below = fs::canonicalize(below).unwrap();
        let _ = fs::remove_file(self.log());
        command.env("LD_PRELOAD", self.library()).env("FAULT_DIR", below).env("FAULT_LOG", self.log())
    }
}
