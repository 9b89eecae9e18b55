//! `xmore model verify`: a model's bytes against what was recorded, and its numbers against what was published.

use serde::Serialize;
use xmore::{ModelName, NamedModel};
use xmore_hub::{FileVerdict, VerifiedFile};

use super::published::{self, Numbers};
use crate::error::{CliError, Result};
use crate::flags::output::ShortFormat;
use crate::output::{print, print_json};

/// A model, its files and its numbers.
#[derive(Serialize)]
struct Verified {
    model: String,
    files: Vec<VerifiedFile>,
    numbers: Numbers,
}

impl Verified {
    fn of(name: &ModelName, record: bool) -> Result<Self> {
        let files = xmore_hub::verify(name, record)?;
        let damaged = |file: &VerifiedFile| {
            matches!(file.verdict, FileVerdict::Missing | FileVerdict::Different { .. })
        };
        let numbers = match files.iter().any(damaged) {
            true => Numbers::NotCompared,
            false => published::compare(name, || Ok(NamedModel::open_cached(name)?))?,
        };
        Ok(Self { model: name.to_string(), files, numbers })
    }
}

pub(super) fn verify(names: &[ModelName], record: bool, format: ShortFormat) -> Result<()> {
    let models = names.iter().map(|name| Verified::of(name, record)).collect::<Result<Vec<_>>>()?;
    let files = || models.iter().flat_map(|model| &model.files);
    let bad = files().filter(|file| !file.verdict.is_good()).count();
    match format {
        ShortFormat::Json => print_json(&models)?,
        ShortFormat::Table => print(&text(&models))?,
    }
    if bad > 0 {
        let unknown = files().any(|file| file.verdict == FileVerdict::NotRecorded);
        let hint = if unknown { "; --record records your own files as they are now" } else { "" };
        return Err(CliError::Failed(format!(
            "{bad} of {} files are not what was recorded{hint}",
            files().count()
        )));
    }
    let other: Vec<&str> =
        models.iter().filter(|model| !model.numbers.is_good()).map(|model| model.model.as_str()).collect();
    match other.is_empty() {
        true => Ok(()),
        false => Err(CliError::Failed(format!("other numbers than were published: {}", other.join(", ")))),
    }
}

fn text(models: &[Verified]) -> String {
    let mut text = Vec::new();
    for model in models {
        text.push(format!("{}: {} files", model.model, model.files.len()));
        for VerifiedFile { path, verdict } in &model.files {
            let verdict = match verdict {
                FileVerdict::Same => "as recorded".to_owned(),
                FileVerdict::Recorded => "recorded".to_owned(),
                FileVerdict::Missing => "MISSING".to_owned(),
                FileVerdict::Different { recorded, found } => {
                    format!("DIFFERENT: {recorded} was recorded, found {found}")
                }
                _ => "NOT RECORDED".to_owned(),
            };
            text.push(format!("  {}: {verdict}", path.display()));
        }
        text.extend(model.numbers.lines().into_iter().map(|line| format!("  {line}")));
    }
    if models.is_empty() {
        text.push("no models on this machine".to_owned());
    }
    text.join("\n")
}
