//! What a configuration of open_clip's takes from other repositories: the configuration of transformers' text tower
//! (`text_cfg.hf_model_name`) and the tokenizer (`text_cfg.hf_tokenizer_name`), as open_clip's `HFTextEncoder` and `HFTokenizer` do.
//! The text tower's weights are in the model's own checkpoint.
//!
//! Where the files are, relative to the model's folder, in a snapshot of the hub's cache and in a folder of the user's alike:
//!
//! | file | what | of the repository |
//! |---|---|---|
//! | `hf_text/config.json` | transformers' configuration of the text tower | `hf_model_name` |
//! | `hf_text/tokenizer.json`, or a vocabulary (`VOCABULARIES`) | the tokenizer, where the model's own folder has none | `hf_tokenizer_name` |
//! | `hf_text/tokenizer_config.json`, `hf_text/special_tokens_map.json` | its settings, where there are any | the same |

use std::path::Path;

use serde_json::Value;

use super::select::Files;
use super::{HubError, RepoId, Result};

const CONFIG: &str = "config.json";
/// What makes a tokenizer, in the order in which it is preferred: of each, all files.
const VOCABULARIES: [&[&str]; 6] = [
    &["tokenizer.json"],
    &["spiece.model"],
    &["sentencepiece.bpe.model"],
    &["tokenizer.model"],
    &["vocab.txt"],
    &["vocab.json", "merges.txt"],
];
const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// Gets the configuration of the text tower, if open_clip's configuration `json` (the file `path`) names one.
pub(super) fn config(files: &mut impl Files, path: &Path, json: &Value) -> Result<()> {
    if let Some(repo) = repository(path, json, "hf_model_name")? {
        files.other(&repo)?.get(CONFIG)?;
    }
    Ok(())
}

/// Gets the tokenizer that the configuration names: the model's own, or else that of the repository named.
pub(super) fn named_tokenizer(files: &mut impl Files, path: &Path, json: &Value) -> Result<()> {
    let Some(repo) = repository(path, json, "hf_tokenizer_name")? else {
        // CLIP's own is built in.
        return files.optional("tokenizer.json");
    };
    if tokenizer(files)? {
        return Ok(());
    }
    let mut other = files.other(&repo)?;
    match tokenizer(other.as_mut())? {
        true => Ok(()),
        false => Err(HubError::NoModel {
            repo: repo.to_string(),
            expected: format!("a tokenizer: {}", VOCABULARIES.map(|files| files.join(" and ")).join(", or ")),
        }),
    }
}

/// Gets a tokenizer and its settings; says whether there is one.
pub(super) fn tokenizer(files: &mut (impl Files + ?Sized)) -> Result<bool> {
    let whole = |vocabulary: &&&[&str]| vocabulary.iter().all(|file| files.has(file));
    let Some(vocabulary) = VOCABULARIES.iter().find(whole) else { return Ok(false) };
    for file in *vocabulary {
        files.get(file)?;
    }
    for file in SETTINGS {
        files.optional(file)?;
    }
    Ok(true)
}

/// The repository that a key of `text_cfg` names.
fn repository(path: &Path, json: &Value, key: &str) -> Result<Option<RepoId>> {
    let Some(name) = json["model_cfg"]["text_cfg"][key].as_str().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let bad = |e: HubError| HubError::BadFile { path: path.to_owned(), reason: format!("{key}: {e}") };
    name.parse().map(Some).map_err(bad)
}
