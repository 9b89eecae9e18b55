//! `xmore model`: listing, fetching and inspecting models.

mod args;
mod list;

use serde::Serialize;
use serde_json::json;
use xmore::{ModelName, NamedModel};
use xmore_files::path_to_text;
use xmore_hub::lite::{BundledModel, MODELS};
use xmore_hub::{FileVerdict, Presence, VerifiedFile, license};

use crate::error::{CliError, Result};
use crate::flags::output::ShortFormat;
use crate::output::{print, print_json};
use crate::progress::fetch_progress;
pub(crate) use args::ModelArgs;
use args::{ModelCommand, verified_names};

pub(crate) fn run(args: &ModelArgs) -> Result<()> {
    match &args.command {
        ModelCommand::Fetch(name) => fetch(&name.name()?),
        ModelCommand::Info { name, format } => info(&name.name()?, *format),
        ModelCommand::Verify { name, pretrained, record, format } => {
            verify(&verified_names(name, pretrained.as_deref())?, *record, *format)
        }
        ModelCommand::List { filter, format } => list::list(filter.as_deref().unwrap_or(""), *format),
    }
}

fn fetch(name: &ModelName) -> Result<()> {
    if let Some(path) = name.local_path() {
        let bundled: Vec<&str> = MODELS.iter().map(BundledModel::name).collect();
        let message = format!(
            "{} is a path of yours; what is fetched are {} and models of the hub",
            path.display(),
            bundled.join(", ")
        );
        return Err(CliError::Usage(message));
    }
    let path = xmore_hub::fetch(name, &fetch_progress())?;
    // Opening it shows that what was fetched is what this program reads.
    NamedModel::open_cached(name)?;
    print(&format!("{name} is ready in {}", path.display()))
}

fn info(name: &ModelName, format: ShortFormat) -> Result<()> {
    let model = NamedModel::open_cached(name)?;
    let (Presence::Ready(place) | Presence::ToBeFetched(place) | Presence::Missing(place)) =
        xmore_hub::presence(name)?;
    let [image_tower, text_tower] = model.tower_names();
    let value = json!({
        "name": model.name(),
        "folder": path_to_text(&place),
        "image_tower": image_tower,
        "text_tower": text_tower,
        "image_size": model.preprocess().size(),
        "embed_dim": model.dim(),
        "logit_scale": model.logit_scale(),
        "license": license(name).map_or_else(|| "unknown".to_owned(), |license| license.to_string()),
        "fingerprint": model.fingerprint(),
    });
    if format == ShortFormat::Json {
        return print_json(&value);
    }
    let lines = value.as_object().into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{:<13}{value}", key.replace('_', " "))
    });
    print(&lines.collect::<Vec<_>>().join("\n"))
}

/// A model and its files.
#[derive(Serialize)]
struct Verified {
    model: String,
    files: Vec<VerifiedFile>,
}

fn verify(names: &[ModelName], record: bool, format: ShortFormat) -> Result<()> {
    let mut models = Vec::new();
    for name in names {
        models.push(Verified { model: name.to_string(), files: xmore_hub::verify(name, record)? });
    }
    let files = || models.iter().flat_map(|model| &model.files);
    let bad = files().filter(|file| !file.verdict.is_good()).count();
    match format {
        ShortFormat::Json => print_json(&models)?,
        ShortFormat::Table => print(&verified_text(&models))?,
    }
    if bad > 0 {
        let unknown = files().any(|file| file.verdict == FileVerdict::NotRecorded);
        let hint = if unknown { "; --record records your own files as they are now" } else { "" };
        return Err(CliError::Failed(format!(
            "{bad} of {} files are not what was recorded{hint}",
            files().count()
        )));
    }
    Ok(())
}

fn verified_text(models: &[Verified]) -> String {
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
    }
    if models.is_empty() {
        text.push("no models on this machine".to_owned());
    }
    text.join("\n")
}
