//! `xmore model`: fetching and inspecting models.

use serde_json::json;
use xmore::fetch::lite;
use xmore::{LITE, Location, NamedModel, locate};
use xmore_clip::LITE_FILES;

use crate::args::{ModelArgs, ModelCommand, ShortFormat};
use crate::error::{CliError, Result};
use crate::files::{print, print_json};
use crate::progress::fetch_progress;

pub(crate) fn run(args: &ModelArgs) -> Result<()> {
    match &args.command {
        ModelCommand::Fetch { name } => fetch(name),
        ModelCommand::Info { name, format } => info(name, *format),
        ModelCommand::List => list(),
    }
}

fn fetch(name: &str) -> Result<()> {
    if let Location::Folder(dir) = locate(name)? {
        let message = format!("{} is a folder of yours; only `{LITE}` is fetched", dir.display());
        return Err(CliError::Usage(message));
    }
    let dir = lite::fetch(LITE_FILES, &fetch_progress())?;
    // Opening it shows that what was fetched is what this program reads.
    NamedModel::open(LITE)?;
    print(&format!("{LITE} is ready in {}", dir.display()))
}

fn info(name: &str, format: ShortFormat) -> Result<()> {
    let model = NamedModel::open(name)?;
    let [image_tower, text_tower] = model.tower_names();
    let value = json!({
        "name": model.name(),
        "folder": model.dir(),
        "image_tower": image_tower,
        "text_tower": text_tower,
        "image_size": model.preprocess().size(),
        "embed_dim": model.dim(),
        "logit_scale": model.logit_scale(),
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

fn list() -> Result<()> {
    let location = locate(LITE)?;
    let state = if lite::status(location.dir()).is_complete() { "ready" } else { "to be fetched" };
    print(&format!(
        "{LITE}  EfficientNet-Lite0 and MiniLM-L6 with heads trained by this project, {state} ({})\n\
         local-dir:PATH  a model folder of yours",
        location.dir().display()
    ))
}
