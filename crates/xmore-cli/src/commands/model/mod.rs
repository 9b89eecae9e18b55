//! `xmore model`: listing, fetching and inspecting models.

mod args;
mod list;
mod published;
mod verify;

use serde_json::json;
use xmore::{ModelName, NamedModel};
use xmore_clip::Cleaning;
use xmore_files::path_to_text;
use xmore_hub::lite::{BundledModel, MODELS};
use xmore_hub::{Presence, license};

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
            verify::verify(&verified_names(name, pretrained.as_deref())?, *record, *format)
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
        "logit_bias": model.logit_bias(),
        "texts": model.text_cleaning().map_or("as its tokenizer has it", Cleaning::name),
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
