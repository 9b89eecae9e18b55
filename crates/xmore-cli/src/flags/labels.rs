//! The labels that photos are classified with.

use std::path::PathBuf;

use clap::Args;
use xmore::{LabelFile, Labels};

use crate::error::{CliError, Result};
use crate::messages::labels::tell_notes;

/// A list of labels, or a file of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct LabelArgs {
    /// Labels, separated by commas: 'cat,dog,"church, with a tower"'
    #[arg(long, value_name = "LIST")]
    labels: Option<String>,
    /// File of labels: lines, a csv or tsv column, or JSON; an object gives labels prompts of their own
    ///
    /// Lines: blank ones and those that begin with `# ` or `// ` are left out. A table: the column named label, class, name or the like.
    /// JSON: a list, or {"church": ["a photo of a church.", "a chapel with a steeple"]}, whose prompts are used as they are, averaged, and
    /// instead of --template. Synonyms, by which a memory's captions may call a label, stand in a table's column `synonyms`, with | or ;
    /// between them, or in JSON: [{"label": "church", "synonyms": ["chapel"]}]. UTF-8, UTF-16, else Windows-1252.
    #[arg(long, value_name = "FILE")]
    labels_file: Option<PathBuf>,
}

impl LabelArgs {
    /// The labels; those of a table are in `column`, if it is given.
    pub(crate) fn read(&self, column: Option<&str>) -> Result<Labels> {
        match (&self.labels, &self.labels_file) {
            (Some(list), _) => Ok(Labels::parse(list)?),
            (None, Some(path)) => {
                let file = LabelFile::read(path, column)?;
                tell_notes(path, &file);
                Ok(file.labels()?)
            }
            (None, None) => {
                Err(CliError::Usage("no labels: name them with --labels or --labels-file".to_owned()))
            }
        }
    }
}
