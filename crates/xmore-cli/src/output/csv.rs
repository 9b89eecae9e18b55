//! Rows of csv on standard output.

use std::io::{self, IsTerminal, Write};

use xmore_files::escape_for_terminal;

use super::stdout_error;
use crate::error::Result;

/// Rows of csv on standard output: fields as they are, but on a terminal what acts on it is shown escaped.
pub(crate) struct CsvOutput {
    writer: csv::Writer<io::Stdout>,
    escape: bool,
}

impl CsvOutput {
    pub(crate) fn new() -> Self {
        Self { writer: csv::Writer::from_writer(io::stdout()), escape: io::stdout().is_terminal() }
    }

    /// Writes one row.
    pub(crate) fn row<const N: usize>(&mut self, fields: [&str; N]) -> Result<()> {
        let written = if self.escape {
            self.writer.write_record(fields.map(|field| escape_for_terminal(field).into_owned()))
        } else {
            self.writer.write_record(fields)
        };
        written.map_err(|error| {
            stdout_error(match error.into_kind() {
                csv::ErrorKind::Io(error) => error,
                other => io::Error::other(format!("{other:?}")),
            })
        })
    }

    /// Hands what was written to the reader.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush().and_then(|()| io::stdout().flush()).map_err(stdout_error)
    }
}
