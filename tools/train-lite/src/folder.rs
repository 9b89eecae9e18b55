//! The model folder that brings the towers, and a copy of it with the trained heads.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xmore::NamedModel;
use xmore_clip::CONFIG_FILE;

/// The checkpoint of the image tower.
pub fn image_tower(model: &NamedModel) -> Result<PathBuf, Box<dyn Error>> {
    Ok(model.path().join(named(&config(model)?, "/model_cfg/vision_cfg/weights")?))
}

/// Copies the model to the folder `to`, with the heads of the file `heads`, whose embeddings have `dim` values, in place of its own.
pub fn copy_with_heads(
    model: &NamedModel,
    heads: &Path,
    dim: usize,
    to: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut config = config(model)?;
    let head_file = named(&config, "/model_cfg/head_weights")?;
    config["model_cfg"]["embed_dim"] = json!(dim);
    fs::create_dir_all(to)?;
    for file in model.files() {
        let name = file.file_name().ok_or("a file of the model has no name")?;
        if name != CONFIG_FILE && name != head_file.as_str() {
            fs::copy(&file, to.join(name))?;
        }
    }
    fs::copy(heads, to.join(head_file))?;
    Ok(fs::write(to.join(CONFIG_FILE), format!("{config:#}\n"))?)
}

fn config(model: &NamedModel) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&fs::read(model.path().join(CONFIG_FILE))?)?)
}

fn named(config: &Value, pointer: &str) -> Result<String, Box<dyn Error>> {
    let name = config.pointer(pointer).and_then(Value::as_str);
    Ok(name.ok_or_else(|| format!("{CONFIG_FILE} has no file name at {pointer}"))?.to_owned())
}
