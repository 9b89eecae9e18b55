//! Errors of commands that grow a memory and were stopped before their end: how to go on.

use std::path::Path;

use xmore::XmoreError;
use xmore_memory::store::{BUILDING_DIR, Mode};

use crate::error::{CliError, Result};

/// The result, with how to go on if the command was interrupted or the sources have changed since it was.
pub(super) fn or_interrupted<T>(result: Result<T, XmoreError>, dir: &Path) -> Result<T> {
    match result {
        Err(XmoreError::Interrupted) => {
            let message =
                format!("stopped; {} is unfinished, and the same command goes on with it", dir.display());
            Err(CliError::Interrupted(message))
        }
        Err(error @ XmoreError::SourcesChanged { mode, .. }) => {
            let anew = match mode {
                // Overwriting would take what an append is to be added to.
                Mode::Append => format!("by removing {}", dir.join(BUILDING_DIR).display()),
                _ => "with --overwrite".to_owned(),
            };
            Err(CliError::Failed(format!("{error}; restore them, or start again {anew}")))
        }
        other => Ok(other?),
    }
}
