//! `xmore model list`: every model that has a name, with its size, its license, and whether it is read and here.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use xmore::ModelName;
use xmore_clip::CONFIG_FILE;
use xmore_hub::lite::{BundledModel, MODELS};
use xmore_hub::{License, Presence, Pretrained, families, license};

use crate::error::{CliError, Result};
use crate::flags::output::ShortFormat;
use crate::output::table::{add_row, table, trimmed};
use crate::output::{print, print_json};

/// A line of the list.
struct Row {
    /// As it is listed: open_clip has two names for some weights.
    name: String,
    model: ModelName,
    family: &'static str,
    /// Why it is not read.
    refused: Option<&'static str>,
    embed_dim: Value,
    image_size: Value,
    license: Option<License>,
    ready: bool,
}

impl Row {
    fn bundled(model: &'static BundledModel) -> Result<Self> {
        let config = model.file(CONFIG_FILE).unwrap_or_default();
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        let arch = &config["model_cfg"];
        let (embed_dim, image_size) = (arch["embed_dim"].clone(), arch["vision_cfg"]["image_size"].clone());
        let name = ModelName::Bundled(model);
        let (license, ready) = (license(&name), is_ready(&name)?);
        let (name, model) = (name.to_string(), name);
        Ok(Self { name, model, family: "lite", refused: None, embed_dim, image_size, license, ready })
    }

    /// The rows of open_clip's names for these weights.
    fn pretrained(entry: &'static Pretrained) -> Result<impl Iterator<Item = Self>> {
        let arch = entry.architecture;
        let model = ModelName::Pretrained(entry);
        let refused = arch.family.refused();
        let ready = refused.is_none() && is_ready(&model)?;
        let names = [Some(entry.name()), entry.second_name()].into_iter().flatten();
        Ok(names.map(move |name| Self {
            name,
            model: model.clone(),
            family: arch.family.name,
            refused,
            embed_dim: arch.embed_dim.into(),
            image_size: arch.image_size.into(),
            license: entry.license.clone(),
            ready,
        }))
    }

    fn license(&self) -> &str {
        self.license.as_ref().map_or("unknown", License::id)
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "name": self.name,
            "family": self.family,
            "embed_dim": self.embed_dim,
            "image_size": self.image_size,
            "license": self.license.as_ref().map(License::id),
            "commercial_use_forbidden": self.license.as_ref().map(License::forbids_commercial_use),
            "read": self.refused.is_none(),
            "cached": self.ready,
        });
        if let Some(reason) = self.refused {
            value["reason"] = reason.into();
        }
        if let ModelName::Pretrained(entry) = &self.model {
            value["model"] = entry.architecture.name.into();
            value["pretrained"] = entry.tag.into();
            value["quick_gelu"] = entry.quick_gelu.into();
            value["repository"] = entry.repo.into();
        }
        value
    }
}

fn is_ready(name: &ModelName) -> Result<bool> {
    Ok(matches!(xmore_hub::presence(name)?, Presence::Ready(_)))
}

pub(super) fn list(filter: &str, format: ShortFormat) -> Result<()> {
    let mut rows = Vec::new();
    for model in &MODELS {
        rows.push(Row::bundled(model)?);
    }
    for entry in xmore_hub::pretrained() {
        rows.extend(Row::pretrained(entry)?);
    }
    // OpenAI's spelling finds its model too.
    let wanted = filter.to_lowercase().replace('/', "-").replace("@336px", "-336");
    rows.retain(|row| row.name.to_lowercase().contains(&wanted) || row.family == wanted);
    if format == ShortFormat::Json {
        return print_json(&rows.iter().map(Row::json).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        let message = format!("no model has {filter:?} in its name; `xmore model list` shows all of them");
        return Err(CliError::Failed(message));
    }
    let mut text = rows_text(&rows);
    if filter.is_empty() {
        text.push_str(
            "\n\nAlso: hf-hub:ORG/NAME, a model of the hub in the form of open_clip or transformers; \
             local-dir:PATH, a folder or checkpoint of yours.",
        );
    }
    print(&text)
}

/// The table, and what its words mean.
fn rows_text(rows: &[Row]) -> String {
    let mut lines = table(&["model", "family", "dim", "px", "license", "here"], &["dim", "px"]);
    for row in rows {
        let here = match (row.refused, row.ready) {
            (Some(_), _) => "not read",
            (None, true) => "ready",
            (None, false) => "no",
        };
        let (dim, px) = (row.embed_dim.to_string(), row.image_size.to_string());
        add_row(&mut lines, [row.name.as_str(), row.family, &dim, &px, row.license(), here]);
    }
    let mut text = trimmed(&lines);
    let licenses: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.license.as_ref().is_some_and(License::forbids_commercial_use))
        .map(Row::license)
        .collect();
    if !licenses.is_empty() {
        let licenses = Vec::from_iter(licenses).join(", ");
        text.push_str(&format!("\n\nNo commercial use: models under {licenses}."));
    }
    let refused: Vec<String> = families()
        .iter()
        .filter(|family| rows.iter().any(|row| row.family == family.name))
        .filter_map(|family| Some(format!("  {}: {}", family.name, family.refused()?)))
        .collect();
    if !refused.is_empty() {
        text.push_str(&format!("\n\nFamilies that are not read:\n{}", refused.join("\n")));
    }
    text
}
