//! Data: to standard output, and into result files.

pub(crate) mod csv;
pub(crate) mod table;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use xmore_files::{escape_json, escape_lines, is_standard_output, write_output};

use crate::error::{CliError, Result};

/// Prints text for people to standard output: what acts on terminals is shown escaped.
pub(crate) fn print(text: &str) -> Result<()> {
    print_data(&escape_lines(text))
}

/// Prints a value as JSON. What acts on terminals is escaped as JSON can, so the data are the same.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| stdout_error(e.into()))?;
    print_data(&escape_json(&text))
}

/// Prints a value as JSON on one line.
pub(crate) fn print_json_line(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| stdout_error(e.into()))?;
    print_data(&escape_json(&text))
}

/// Prints text to standard output as it is, in whole lines; on a terminal, what acts on it is shown escaped.
pub(crate) fn print_data(text: &str) -> Result<()> {
    let text = if io::stdout().is_terminal() { escape_lines(text) } else { text.into() };
    writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n')).map_err(stdout_error)
}

/// Writes a result file, see [`write_output`].
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_output(path, write).map_err(|error| output_error(path, error))
}

/// The error of an output that cannot be written.
pub(crate) fn output_error(path: &Path, reason: io::Error) -> CliError {
    if is_standard_output(path) {
        return stdout_error(reason);
    }
    CliError::Io { action: "write", path: path.to_owned(), reason }
}

/// The error of standard output that cannot be written to.
pub(crate) fn stdout_error(reason: io::Error) -> CliError {
    CliError::Stdout { reason }
}
