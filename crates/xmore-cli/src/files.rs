//! Writing result files, and to standard output.

use std::io::{self, Write};
use std::path::Path;

use crate::error::{CliError, Result};

/// Prints a line to standard output; a reader that has gone away ends the program quietly.
pub(crate) fn print(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n')).map_err(stdout_error)
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| stdout_error(e.into()))?;
    print(&text)
}

/// Writes a file by way of another beside it, so that an interrupted run leaves no half of it. Folders on the way are made.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let io = |source| CliError::Io { action: "write", path: path.to_owned(), source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(io)?;
    let mut builder = tempfile::Builder::new();
    // Results are for whoever may read the folder; a temporary file would be for its owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(dir).map_err(io)?;
    let mut file = io::BufWriter::new(temporary.as_file_mut());
    write(&mut file).and_then(|()| file.flush()).map_err(io)?;
    drop(file);
    temporary.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

pub(crate) fn stdout_error(source: io::Error) -> CliError {
    CliError::Io { action: "write to", path: "standard output".into(), source }
}
