//! The text towers of transformers' that open_clip's configurations name by `hf_model_name`: BERT, RoBERTa, XLM-RoBERTa.
//!
//! Reference: open_clip 3.3, `HFTextEncoder` in `hf_model.py`. open_clip asks the hub for the tower's configuration. Here it is read from
//! `hf_text/config.json` of the folder where that is there; otherwise the tensors' shapes give the sizes, and a table of the published names what
//! shapes do not say. The tokenizer's files lie in the folder, or in `hf_text`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::bert::{BertArch, BertPool};
use crate::arch::shared::bert_config::{BertKind, infer_bert, read_bert};
use crate::arch::shared::bert_text::{BertHead, BertText};
use crate::arch::shared::limits::check_bert_context;
use crate::arch::shared::open_clip::{OpenClipFolder, refuse_unknown};
use crate::arch::shared::read_json;
use crate::arch::shared::text_config::{TokenizerKwargs, cleaning};
use crate::arch::shared::transformers::TowerConfig;
use crate::arch::{TextPart, TokenizerLoader};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::tokenizer::{FileTokenizer, TOKENIZER_FILES, TokenizerOptions};

/// The key that names such a tower.
pub(crate) const KEY: &str = "hf_model_name";

/// The part of a model's folder for the files that a configuration of open_clip's takes from other repositories.
const DIR: &str = "hf_text";
const CONFIG: &str = "hf_text/config.json";

/// Where open_clip's checkpoints have the tower's tensors, and its projection.
const PREFIX: &str = "text.transformer.";
const PROJECTION: &str = "text.proj";

#[derive(Deserialize)]
struct TextCfg {
    hf_model_name: String,
    #[serde(default = "default_projection")]
    hf_proj_type: Option<String>,
    #[serde(default = "default_pooler")]
    hf_pooler_type: Option<String>,
    #[serde(default = "default_context_length")]
    context_length: usize,
    tokenizer_kwargs: Option<TokenizerKwargs>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn default_projection() -> Option<String> {
    Some("mlp".to_owned())
}
fn default_pooler() -> Option<String> {
    Some("mean_pooler".to_owned())
}
fn default_context_length() -> usize {
    77
}

/// Keys of open_clip's own transformer, which such a tower does not use, and keys that change nothing.
const HARMLESS: &[&str] = &[
    "hf_tokenizer_name",
    "hf_model_pretrained",
    "output_tokens",
    "vocab_size",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
    "pool_type",
    "proj_type",
    "proj_bias",
    "pad_id",
    "eos_id",
];

/// Reads such a tower.
pub(crate) fn read(folder: &OpenClipFolder, checkpoint: &Arc<Checkpoint>) -> Result<TextPart> {
    let cfg: TextCfg = folder.text()?;
    let path = &folder.path;
    refuse_unknown(path, "text_cfg", &cfg.rest, HARMLESS)?;
    let pool = pool(path, cfg.hf_pooler_type.as_deref())?;
    let (kind, arch) = arch(folder, checkpoint, &cfg.hf_model_name, pool)?;
    check_bert_context(path, &arch, cfg.context_length)?;
    let text = BertText {
        checkpoint: Arc::clone(checkpoint),
        prefix: PREFIX,
        kind,
        head: head(path, cfg.hf_proj_type.as_deref(), arch.sizes.width, folder.dim)?,
        arch,
        context_length: cfg.context_length,
        dim: folder.dim,
        precision: folder.options.precision,
    };
    let kwargs = cfg.tokenizer_kwargs.unwrap_or_default();
    let options = TokenizerOptions {
        cleaning: folder.options.cleaning.unwrap_or(cleaning(path, true, kwargs.clean.as_deref())?),
        strip_sep_token: kwargs.strip_sep_token,
        ..TokenizerOptions::new(cfg.context_length)
    };
    let files = tokenizer_files().into_iter().chain([CONFIG.to_owned()]).collect();
    let cleaning = options.cleaning;
    Ok(text.part(tokenizer(folder.dir.clone(), options), cleaning, files))
}

/// The tokenizer that `hf_tokenizer_name` names: its files are in the model's folder, or else in the part of it for other repositories' files.
pub(crate) fn tokenizer(dir: PathBuf, options: TokenizerOptions) -> TokenizerLoader {
    Box::new(move || {
        let inner = dir.join(DIR);
        let has = |dir: &Path| TOKENIZER_FILES.iter().any(|file| dir.join(file).is_file());
        let dir = if !has(&dir) && has(&inner) { &inner } else { &dir };
        Ok(Box::new(FileTokenizer::open(dir, &options)?))
    })
}

/// All files that [`tokenizer`] may read.
pub(crate) fn tokenizer_files() -> Vec<String> {
    let inner = TOKENIZER_FILES.iter().map(|file| format!("{DIR}/{file}"));
    TOKENIZER_FILES.iter().map(|&file| file.to_owned()).chain(inner).collect()
}

/// The network's sizes.
fn arch(
    folder: &OpenClipFolder,
    checkpoint: &Checkpoint,
    name: &str,
    pool: BertPool,
) -> Result<(&'static BertKind, BertArch)> {
    let config = folder.dir.join(CONFIG);
    if config.is_file() {
        return read_bert(&config, &read_json::<TowerConfig>(&config)?, pool);
    }
    infer_bert(checkpoint, PREFIX, name, pool)?.ok_or_else(|| {
        let message =
            format!("text_cfg.{KEY} is {name:?}, whose configuration is not known: expected it in {CONFIG}");
        ClipError::config(&folder.path, message)
    })
}

/// open_clip's names of poolers.
fn pool(path: &Path, name: Option<&str>) -> Result<BertPool> {
    match name {
        Some("mean_pooler") => Ok(BertPool::Mean),
        Some("cls_last_hidden_state_pooler") => Ok(BertPool::First),
        other => {
            let found = other.map_or_else(|| "null".to_owned(), |name| format!("{name:?}"));
            let message = format!(
                "text_cfg.hf_pooler_type is {found}, expected \"mean_pooler\" or \"cls_last_hidden_state_pooler\""
            );
            Err(ClipError::config(path, message))
        }
    }
}

/// By open_clip's name.
fn head(path: &Path, name: Option<&str>, width: usize, dim: usize) -> Result<BertHead> {
    match name {
        None if width == dim => Ok(BertHead::None),
        None => {
            let message = format!(
                "text_cfg.hf_proj_type is null, but the tower's width is {width} and `embed_dim` {dim}"
            );
            Err(ClipError::config(path, message))
        }
        Some("linear") => Ok(BertHead::Linear(PROJECTION)),
        Some("mlp") => Ok(BertHead::Perceptron(PROJECTION)),
        Some(other) => {
            let message = format!("text_cfg.hf_proj_type is {other:?}, expected \"linear\", \"mlp\" or null");
            Err(ClipError::config(path, message))
        }
    }
}
