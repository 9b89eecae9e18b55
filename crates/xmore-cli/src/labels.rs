//! Labels as the flags give them, and what is told of them.

use std::path::Path;

use xmore::{DEFAULT_TEMPLATE, LabelFile, LabelWarning, Labels, Template};

use crate::args::ClassifyArgs;
use crate::error::{CliError, Result};
use crate::messages::tell;

/// Reads --labels or --labels-file.
pub(crate) fn read(args: &ClassifyArgs) -> Result<Labels> {
    match (&args.labels.labels, &args.labels.labels_file) {
        (Some(list), _) => Ok(Labels::parse(list)?),
        (None, Some(file)) => read_file(file, args.labels_column.as_deref()),
        (None, None) => Err(CliError::Usage("no labels: name them with --labels or --labels-file".into())),
    }
}

fn read_file(path: &Path, column: Option<&str>) -> Result<Labels> {
    let file = LabelFile::read(path, column)?;
    tell_notes(path, &file);
    Ok(file.labels()?)
}

/// Tells what was left out or guessed.
pub(crate) fn tell_notes(path: &Path, file: &LabelFile) {
    for note in file.notes() {
        tell!("{}: {note}", path.display());
    }
}

/// Tells for how many labels the templates given do not matter.
pub(crate) fn tell_own_prompts(labels: &Labels, templates: &[Template], with_templates_method: bool) {
    let own = labels.with_own_prompts();
    let by_default = matches!(templates, [only] if only.to_string() == DEFAULT_TEMPLATE);
    if own > 0 && (!by_default || with_templates_method) {
        let all = labels.names().len();
        tell!("{own} of {all} labels have prompts of their own: templates are not used for them");
    }
}

/// Tells what the model cannot make of the labels.
pub(crate) fn tell_warnings(warnings: &[LabelWarning]) {
    for warning in warnings {
        tell!("warning: {warning}");
    }
}
