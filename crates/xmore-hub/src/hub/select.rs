//! Which files of a repository make a model: open_clip's, those of `lite`'s kind, or transformers'.

use std::path::{Path, PathBuf};

use serde_json::Value;
use xmore_files::read_bounded;

use super::cache::RepoCache;
use super::text_tower;
use super::{HubError, RepoId, Result};
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
    /// The files of another repository, which `get` shows in this snapshot's folder for the text tower.
    fn other(&mut self, repo: &RepoId) -> Result<Box<dyn Files + '_>>;
    /// Gets a file if there is one.
    fn optional(&mut self, file: &str) -> Result<()> {
        if self.has(file) {
            self.get(file)?;
        }
        Ok(())
    }
    /// Refuses a model that its configuration, which is there, shows to be unreadable: before its weights are fetched.
    fn check(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// A snapshot in the cache, as far as it is there.
pub(super) struct Local<'a> {
    /// Its folder.
    pub dir: PathBuf,
    /// The cache it is in.
    pub cache: &'a Path,
}

impl Files for Local<'_> {
    fn repo(&self) -> String {
        self.dir.display().to_string()
    }

    fn has(&self, file: &str) -> bool {
        self.dir.join(file).is_file()
    }

    fn get(&mut self, file: &str) -> Result<PathBuf> {
        let path = self.dir.join(file);
        match self.has(file) {
            true => Ok(path),
            false => Err(no_model(self, file)),
        }
    }

    fn other(&mut self, repo: &RepoId) -> Result<Box<dyn Files + '_>> {
        let cache = RepoCache::new(self.cache, repo);
        let snapshot = cache.commit(repo.revision()).map(|commit| cache.snapshot(&commit));
        let shown = self.dir.join(xmore_clip::TEXT_TOWER_FOLDER);
        Ok(Box::new(LocalOther { repo: repo.to_string(), cache, snapshot, shown }))
    }
}

/// Files of another repository in the cache: those that are shown already, and those that another program fetched.
struct LocalOther {
    repo: String,
    cache: RepoCache,
    snapshot: Option<PathBuf>,
    /// The folder where they are shown.
    shown: PathBuf,
}

impl LocalOther {
    fn fetched(&self, file: &str) -> Option<PathBuf> {
        self.snapshot.as_ref().map(|snapshot| snapshot.join(file)).filter(|path| path.is_file())
    }
}

impl Files for LocalOther {
    fn repo(&self) -> String {
        self.repo.clone()
    }

    fn has(&self, file: &str) -> bool {
        self.shown.join(file).is_file() || self.fetched(file).is_some()
    }

    fn get(&mut self, file: &str) -> Result<PathBuf> {
        let path = self.shown.join(file);
        if path.is_file() {
            return Ok(path);
        }
        let fetched = self.fetched(file).ok_or_else(|| no_model(self, file))?;
        self.cache.show_in(&self.shown, &fetched)
    }

    fn other(&mut self, repo: &RepoId) -> Result<Box<dyn Files + '_>> {
        Err(no_model(self, repo.name()))
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
    let json = read(&config)?;
    let named = named_files(&config, &json)?;
    if named.is_empty() {
        text_tower::config(files, &config, &json)?;
    }
    files.check(&selected.path)?;
    if named.is_empty() {
        text_tower::named_tokenizer(files, &config, &json)?;
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
    files.optional("preprocessor_config.json")?;
    files.optional("processor_config.json")?;
    files.check(&selected.path)?;
    text_tower::tokenizer(files)?;
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

/// The files that a configuration of `lite`'s kind names; none for open_clip's own.
fn named_files(config: &Path, json: &Value) -> Result<Vec<String>> {
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
        let mut local = Local { dir: dir.path().to_owned(), cache: dir.path() };
        let selected = select(&mut local, weights)?;
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
    fn a_text_tower_of_another_repository() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        let cache = tempfile::tempdir().unwrap();
        let snapshot = |repo: &str| {
            let repo = cache.path().join(format!("models--{repo}"));
            std::fs::create_dir_all(repo.join("refs")).unwrap();
            std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
            let snapshot = repo.join("snapshots").join(COMMIT);
            std::fs::create_dir_all(&snapshot).unwrap();
            snapshot
        };
        let dir = snapshot("org--model");
        let text = serde_json::json!({"hf_model_name": "xlm/base", "hf_tokenizer_name": "xlm/base"});
        let config = serde_json::json!({"model_cfg": {"text_cfg": text}}).to_string();
        std::fs::write(dir.join("open_clip_config.json"), config).unwrap();
        std::fs::write(dir.join("open_clip_model.safetensors"), "").unwrap();
        let selected = || select(&mut Local { dir: dir.clone(), cache: cache.path() }, "");
        // What makes the model whole is named in the order in which it is looked for.
        let missing = |told: &str| {
            let error = selected().unwrap_err().to_string();
            assert!(error.contains("xlm/base") && error.contains(told), "{error}");
        };
        missing("config.json");
        let other = snapshot("xlm--base");
        std::fs::write(other.join("config.json"), r#"{"model_type": "xlm-roberta"}"#).unwrap();
        missing("sentencepiece.bpe.model");
        // Half of a tokenizer is none.
        std::fs::write(other.join("vocab.json"), "{}").unwrap();
        missing("vocab.json and merges.txt");
        for file in ["sentencepiece.bpe.model", "tokenizer_config.json", "model.safetensors"] {
            std::fs::write(other.join(file), file).unwrap();
        }
        assert_eq!(selected().unwrap().path, dir);
        let shown = |dir: &Path| {
            let files = std::fs::read_dir(dir.join("hf_text")).unwrap();
            let mut names: Vec<_> =
                files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(shown(&dir), ["config.json", "sentencepiece.bpe.model", "tokenizer_config.json"]);
        // A tokenizer of the model's own is preferred, and what is shown stays.
        std::fs::remove_dir_all(cache.path().join("models--xlm--base")).unwrap();
        std::fs::write(dir.join("vocab.txt"), "").unwrap();
        std::fs::remove_file(dir.join("hf_text/sentencepiece.bpe.model")).unwrap();
        assert_eq!(selected().unwrap().path, dir);
        std::fs::remove_file(dir.join("hf_text/config.json")).unwrap();
        missing("config.json");
    }

    #[test]
    fn repositories_of_text_towers_that_lead_elsewhere_are_refused() {
        for key in ["hf_model_name", "hf_tokenizer_name"] {
            let config = serde_json::json!({"model_cfg": {"text_cfg": {key: "../../secret"}}}).to_string();
            let files = [("open_clip_config.json", config.as_str()), ("open_clip_model.safetensors", "")];
            let error = chosen(&files, "").unwrap_err();
            assert!(matches!(&error, HubError::BadFile { reason, .. } if reason.contains(key)), "{error}");
        }
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
