//! Messages about labels: what was left out or guessed, and what the model does not use.

use std::path::Path;

use xmore::{DEFAULT_TEMPLATE, LabelFile, LabelWarning, Labels, Template};

use super::tell;

/// Tells what was left out or guessed when a file of labels was read.
pub(crate) fn tell_notes(path: &Path, file: &LabelFile) {
    for note in file.notes() {
        tell!("{}: {note}", path.display());
    }
}

/// Tells for how many labels the templates given are not used.
pub(crate) fn tell_own_prompts(labels: &Labels, templates: &[Template], with_templates_method: bool) {
    let own = labels.with_own_prompts();
    let by_default = matches!(templates, [only] if only.to_string() == DEFAULT_TEMPLATE);
    if own > 0 && (!by_default || with_templates_method) {
        let all = labels.names().len();
        tell!("{own} of {all} labels have prompts of their own: templates are not used for them");
    }
}

/// Tells of labels that the model reads only in part or cannot tell apart.
pub(crate) fn tell_warnings(warnings: &[LabelWarning]) {
    for warning in warnings {
        tell!("warning: {warning}");
    }
}
