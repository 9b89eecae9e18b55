//! The command line tool, in the interpreter's process.

use std::ffi::OsString;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

/// The exit status of a program of Rust's that panicked.
const PANICKED: u8 = 101;

/// Runs `xmore` with these arguments, the program's name first; returns its exit status. To be called once, by a process that does nothing else.
#[pyfunction]
pub(crate) fn run_command_line(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| {
        let status = catch_unwind(AssertUnwindSafe(|| xmore_cli::main(arguments))).unwrap_or(PANICKED);
        // Rust's own start of a program would do it. There is no place to report a failure.
        let _ = std::io::stdout().flush();
        status
    })
}
