//! Rows of csv on standard output.

use std::io::{self, IsTerminal, Write};

use xmore_files::escape_for_terminal;

use super::stdout_error;
use crate::error::{CliError, Result};

/// Rows of csv on standard output: fields as they are, but control characters are shown escaped on a terminal.
pub(crate) struct CsvOutput {
    writer: csv::Writer<io::Stdout>,
    escape: bool,
}

impl CsvOutput {
    pub(crate) fn new() -> Self {
        Self { writer: csv::Writer::from_writer(io::stdout()), escape: io::stdout().is_terminal() }
    }

    /// Writes one row.
    pub(crate) fn row<S: AsRef<str>>(&mut self, fields: impl IntoIterator<Item = S>) -> Result<()> {
        for field in fields {
            let field = field.as_ref();
            let shown = if self.escape { escape_for_terminal(field) } else { field.into() };
            self.writer.write_field(&*shown).map_err(Self::error)?;
        }
        self.writer.write_record(None::<&[u8]>).map_err(Self::error)
    }

    fn error(error: csv::Error) -> CliError {
        stdout_error(match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })
    }

    /// Flushes what was written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush().and_then(|()| io::stdout().flush()).map_err(stdout_error)
    }
}
