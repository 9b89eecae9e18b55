//! Which files of a repository make a model: open_clip's, those of `lite`'s kind, or transformers'.

use std::path::{Path, PathBuf};

use serde_json::Value;
use xmore_files::read_bounded;

use super::{HubError, Result};
use xmore_files::is_plain_name;

/// No configuration or index is longer.
const CONFIG_LIMIT: u64 = 64 << 20;
/// No checkpoint is in more parts.
const SHARD_LIMIT: usize = 1000;
const OPEN_CLIP: &str = xmore_clip::CONFIG_FILE;
/// Weights, or the index of their parts, in the order in which they are preferred.
const OPEN_CLIP_WEIGHTS: [&str; 4] = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_model.safetensors.index.json",
];
const TRANSFORMERS: &str = "config.json";
const TRANSFORMERS_WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
const INDEX: &str = ".index.json";

/// The files of a repository at one commit.
pub(super) trait Files {
    /// For messages.
    fn repo(&self) -> String;
    /// Whether there is a file of this plain name.
    fn has(&self, file: &str) -> bool;
    /// The path of a file in the snapshot's folder, where it is now if it was not before.
    fn get(&mut self, file: &str) -> Result<PathBuf>;
    /// Refuses a model that its configuration, which is there, shows to be unreadable: before its weights are fetched.
    fn check(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// A snapshot in the cache, as far as it is there.
pub(super) struct Local(pub PathBuf);

impl Files for Local {
    fn repo(&self) -> String {
        self.0.display().to_string()
    }

    fn has(&self, file: &str) -> bool {
        self.0.join(file).is_file()
    }

    fn get(&mut self, file: &str) -> Result<PathBuf> {
        let path = self.0.join(file);
        match self.has(file) {
            true => Ok(path),
            false => Err(no_model(self, file)),
        }
    }
}

/// What was found to load.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selected {
    /// A folder, or the weights alone.
    pub path: PathBuf,
    /// Whether a configuration says how the model is built and fed.
    pub configured: bool,
}

/// Gets what is needed. Weights come last: where they are, the small files are too.
pub(super) fn select(files: &mut impl Files, weights: &str) -> Result<Selected> {
    if !weights.is_empty() {
        // As open_clip does: the same in safetensors is preferred.
        let safe = Path::new(weights).with_extension("safetensors").display().to_string();
        let configured = files.has(OPEN_CLIP);
        if configured {
            files.get(OPEN_CLIP)?;
        }
        let path = files.get(if files.has(&safe) { &safe } else { weights })?;
        return Ok(Selected { path, configured });
    }
    if files.has(OPEN_CLIP) {
        return open_clip(files);
    }
    if files.has(TRANSFORMERS) {
        return transformers(files);
    }
    let single = OPEN_CLIP_WEIGHTS.into_iter().find(|file| files.has(file) && !file.ends_with(INDEX));
    match single {
        Some(file) => Ok(Selected { path: files.get(file)?, configured: false }),
        None => Err(no_model(files, "open_clip_config.json, or transformers' config.json, with weights")),
    }
}

fn open_clip(files: &mut impl Files) -> Result<Selected> {
    let config = files.get(OPEN_CLIP)?;
    let selected = folder(&config);
    let named = named_files(&config)?;
    files.check(&selected.path)?;
    if named.is_empty() {
        optional(files, "tokenizer.json")?;
        weights(files, &OPEN_CLIP_WEIGHTS)?;
    }
    for file in named {
        files.get(&file)?;
    }
    Ok(selected)
}

fn transformers(files: &mut impl Files) -> Result<Selected> {
    let config = files.get(TRANSFORMERS)?;
    let selected = folder(&config);
    optional(files, "preprocessor_config.json")?;
    files.check(&selected.path)?;
    optional(files, "tokenizer.json")?;
    weights(files, &TRANSFORMERS_WEIGHTS)?;
    Ok(selected)
}

/// The first that is there, with all its parts.
fn weights(files: &mut impl Files, candidates: &[&str]) -> Result<()> {
    let found = candidates.iter().find(|file| files.has(file));
    let file = found.ok_or_else(|| no_model(files, &candidates.join(" or ")))?;
    let path = files.get(file)?;
    if file.ends_with(INDEX) {
        for part in shards(&path)? {
            files.get(&part)?;
        }
    }
    Ok(())
}

/// The folder of a file in it.
fn folder(file: &Path) -> Selected {
    Selected { path: file.parent().unwrap_or(Path::new(".")).to_owned(), configured: true }
}

fn optional(files: &mut impl Files, file: &str) -> Result<()> {
    if files.has(file) {
        files.get(file)?;
    }
    Ok(())
}

/// The files that a configuration of `lite`'s kind names; none for open_clip's own.
fn named_files(config: &Path) -> Result<Vec<String>> {
    let json = read(config)?;
    let model = &json["model_cfg"];
    let (vision, text) = (&model["vision_cfg"], &model["text_cfg"]);
    let named =
        [&text["config"], &text["tokenizer"], &model["head_weights"], &vision["weights"], &text["weights"]];
    named.into_iter().filter_map(Value::as_str).map(|name| checked(config, name)).collect()
}

/// The parts that an index of weights names.
fn shards(index: &Path) -> Result<Vec<String>> {
    let json = read(index)?;
    let map = json["weight_map"].as_object().into_iter().flatten();
    let parts: std::collections::BTreeSet<_> = map.filter_map(|(_, file)| file.as_str()).collect();
    if parts.is_empty() || parts.len() > SHARD_LIMIT {
        let reason = format!("its weight_map names {} files, expected 1 to {SHARD_LIMIT}", parts.len());
        return Err(HubError::BadFile { path: index.to_owned(), reason });
    }
    parts.into_iter().map(|name| checked(index, name)).collect()
}

fn checked(path: &Path, name: &str) -> Result<String> {
    match is_plain_name(name) {
        true => Ok(name.to_owned()),
        false => Err(HubError::BadFile {
            path: path.to_owned(),
            reason: format!("it names {name:?}, expected a file of the same repository"),
        }),
    }
}

fn read(path: &Path) -> Result<Value> {
    let bytes = read_bounded(path, CONFIG_LIMIT).map_err(HubError::io("read", path))?;
    let bad = |reason| HubError::BadFile { path: path.to_owned(), reason };
    serde_json::from_slice(&bytes).map_err(|e| bad(format!("it is no JSON: {e}")))
}

fn no_model(files: &impl Files, expected: &str) -> HubError {
    HubError::NoModel { repo: files.repo(), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot with these files in it; a name may be followed by its content.
    fn world(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn chosen(files: &[(&str, &str)], weights: &str) -> Result<(String, bool)> {
        let dir = world(files);
        let selected = select(&mut Local(dir.path().to_owned()), weights)?;
        let path = selected.path.strip_prefix(dir.path()).unwrap().display().to_string();
        Ok((path, selected.configured))
    }

    #[test]
    fn folders_of_every_kind() {
        let config = ("open_clip_config.json", "{}");
        let whole = Ok((String::new(), true));
        let same = |files: &[(&str, &str)]| chosen(files, "").map_err(|e| e.to_string());
        assert_eq!(same(&[config, ("open_clip_model.safetensors", "")]), whole);
        assert_eq!(same(&[config, ("open_clip_pytorch_model.bin", "")]), whole);
        assert_eq!(same(&[("config.json", "{}"), ("model.safetensors", "")]), whole);
        let index = ("model.safetensors.index.json", r#"{"weight_map": {"a": "m-1.safetensors"}}"#);
        assert_eq!(same(&[("config.json", "{}"), index, ("m-1.safetensors", "")]), whole);
        assert!(same(&[("config.json", "{}"), index]).unwrap_err().contains("m-1.safetensors"));
        assert!(same(&[config]).unwrap_err().contains("open_clip_model.safetensors"));
        assert!(same(&[]).unwrap_err().contains("open_clip_config.json"));
    }

    #[test]
    fn weights_alone_and_weights_by_name() {
        let file = chosen(&[("open_clip_pytorch_model.bin", "")], "").unwrap();
        assert_eq!(file, ("open_clip_pytorch_model.bin".to_owned(), false));
        let both = [("w.bin", ""), ("w.safetensors", ""), ("open_clip_config.json", "{}")];
        assert_eq!(chosen(&both, "w.bin").unwrap(), ("w.safetensors".to_owned(), true));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../secret", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "a\0b"] {
            let config = serde_json::json!({"model_cfg": {"vision_cfg": {"weights": name}}}).to_string();
            let error = chosen(&[("open_clip_config.json", &config)], "").unwrap_err();
            assert!(matches!(error, HubError::BadFile { .. }), "{name}: {error}");
            let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
            let files = [("config.json", "{}"), ("pytorch_model.bin.index.json", index.as_str())];
            assert!(matches!(chosen(&files, "").unwrap_err(), HubError::BadFile { .. }), "{name}");
        }
    }
}
