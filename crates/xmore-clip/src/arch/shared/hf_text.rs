//! The text towers of transformers' that open_clip's configurations name by `hf_model_name`: a row of [`TOWERS`] for each kind.
//!
//! Reference: open_clip 3.3, `HFTextEncoder` in `hf_model.py`. open_clip asks the hub for the tower's configuration. Here it is read from
//! `hf_text/config.json` of the folder where that is there; otherwise the tensors' shapes give the sizes, and a table of the published names what
//! shapes do not say. The tokenizer's files lie in the folder, or in `hf_text`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::bert::BertPool;
use crate::arch::shared::bert_config::{infer_bert, read_bert};
use crate::arch::shared::bert_text::BertText;
use crate::arch::shared::hf_head::HfHead;
use crate::arch::shared::limits::check_bert_context;
use crate::arch::shared::m2m100;
use crate::arch::shared::m2m100_config::is_m2m100;
use crate::arch::shared::open_clip::{OpenClipFolder, refuse_unknown};
use crate::arch::shared::read_json;
use crate::arch::shared::text_config::{TokenizerKwargs, cleaning};
use crate::arch::shared::transformers::TowerConfig;
use crate::arch::{TEXT_TOWER_FOLDER, TRANSFORMERS_CONFIG, TextPart, TokenizerLoader};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::tokenizer::{Cleaning, FileTokenizer, TOKENIZER_FILES, TokenizerOptions};

/// The key that names such a tower.
pub(crate) const KEY: &str = "hf_model_name";

/// The tower's configuration in the folder.
fn config_name() -> String {
    format!("{TEXT_TOWER_FOLDER}/{TRANSFORMERS_CONFIG}")
}

/// Where open_clip's checkpoints have the tower's tensors.
pub(crate) const PREFIX: &str = "text.transformer.";

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

/// A kind of such towers.
struct HfTower {
    detect: fn(&HfText<'_>) -> bool,
    read: fn(&HfText<'_>) -> Result<TextPart>,
}

/// All kinds, in the order in which `detect` is called. The last one takes what no other does; its errors say what is known.
static TOWERS: &[HfTower] = &[
    HfTower { detect: m2m100::detect, read: m2m100::read },
    HfTower { detect: |_| true, read: read_bert_text },
];

/// The tower's own configuration, where the folder has it: the file, and its `model_type`.
pub(crate) type HfConfig = (PathBuf, Option<String>);

/// Such a tower as open_clip's configuration has it, its keys checked.
pub(crate) struct HfText<'a> {
    pub(crate) folder: &'a OpenClipFolder,
    pub(crate) checkpoint: &'a Arc<Checkpoint>,
    pub(crate) context_length: usize,
    /// The name of the tower on the hub.
    pub(crate) name: String,
    pub(crate) config: Option<HfConfig>,
    pooler: Option<String>,
    projection: Option<String>,
    tokenizer: TokenizerKwargs,
}

impl HfText<'_> {
    /// The last layer's tokens become one row as one of `known` says, by open_clip's names.
    ///
    /// # Errors
    /// [`ClipError::Config`] for another name.
    pub(crate) fn pool<T: Copy>(&self, known: &[(&str, T)]) -> Result<T> {
        let name = self.pooler.as_deref();
        match known.iter().find(|(known, _)| Some(*known) == name) {
            Some(&(_, pool)) => Ok(pool),
            None => {
                let found = name.map_or_else(|| "null".to_owned(), |name| format!("{name:?}"));
                let known: Vec<_> = known.iter().map(|(known, _)| format!("{known:?}")).collect();
                let message = format!("text_cfg.hf_pooler_type is {found}, expected {}", known.join(" or "));
                Err(ClipError::config(&self.folder.path, message))
            }
        }
    }

    /// The head behind rows of this width.
    ///
    /// # Errors
    /// Those of [`HfHead::of`].
    pub(crate) fn head(&self, width: usize) -> Result<HfHead> {
        HfHead::of(&self.folder.path, self.projection.as_deref(), width, self.folder.dim)
    }

    /// That the tower's configuration is neither there nor known by its name.
    pub(crate) fn unknown(&self) -> ClipError {
        let name = &self.name;
        let message = format!(
            "text_cfg.{KEY} is {name:?}, whose configuration is not known: expected it in {}",
            config_name()
        );
        ClipError::config(&self.folder.path, message)
    }

    /// The tokenizer, what is done to a text before it, and the files that it and the tower are read from.
    ///
    /// # Errors
    /// [`ClipError::Config`] for a way of cleaning that is not known.
    pub(crate) fn tokenizer(&self) -> Result<(TokenizerLoader, Cleaning, Vec<String>)> {
        let Self { folder, tokenizer: kwargs, .. } = self;
        let options = TokenizerOptions {
            cleaning: match folder.options.cleaning {
                Some(cleaning) => cleaning,
                None => cleaning(&folder.path, true, kwargs.clean.as_deref())?,
            },
            strip_sep_token: kwargs.strip_sep_token,
            ..TokenizerOptions::new(self.context_length)
        };
        let files = tokenizer_files().into_iter().chain([config_name()]).collect();
        let cleaning = options.cleaning;
        Ok((tokenizer(folder.dir.clone(), options), cleaning, files))
    }
}

/// The keys of such a tower, and its configuration with its `model_type`, where the folder has it.
fn read_cfg(folder: &OpenClipFolder) -> Result<(TextCfg, Option<HfConfig>)> {
    /// What tells the kind.
    #[derive(Deserialize)]
    struct Kind {
        model_type: Option<String>,
    }
    let cfg: TextCfg = folder.text()?;
    refuse_unknown(&folder.path, "text_cfg", &cfg.rest, HARMLESS)?;
    let config = folder.dir.join(config_name());
    if !config.is_file() {
        return Ok((cfg, None));
    }
    let Kind { model_type } = read_json(&config)?;
    Ok((cfg, Some((config, model_type))))
}

/// Checks what can be checked of such a tower without the weights.
pub(crate) fn check(folder: &OpenClipFolder) -> Result<()> {
    let (cfg, config) = read_cfg(folder)?;
    match config {
        Some((path, model_type)) if !is_m2m100(Some(model_type.as_deref()), &cfg.hf_model_name) => {
            read_bert(&path, &read_json::<TowerConfig>(&path)?, BertPool::Mean).map(drop)
        }
        _ => Ok(()),
    }
}

/// Reads such a tower.
pub(crate) fn read(folder: &OpenClipFolder, checkpoint: &Arc<Checkpoint>) -> Result<TextPart> {
    let (cfg, config) = read_cfg(folder)?;
    let text = HfText {
        folder,
        checkpoint,
        context_length: cfg.context_length,
        name: cfg.hf_model_name,
        config,
        pooler: cfg.hf_pooler_type,
        projection: cfg.hf_proj_type,
        tokenizer: cfg.tokenizer_kwargs.unwrap_or_default(),
    };
    let kind = TOWERS.iter().find(|kind| (kind.detect)(&text));
    (kind.expect("the last one takes every tower").read)(&text)
}

/// Reads BERT or one of its successors.
fn read_bert_text(text: &HfText<'_>) -> Result<TextPart> {
    let pool =
        text.pool(&[("mean_pooler", BertPool::Mean), ("cls_last_hidden_state_pooler", BertPool::First)])?;
    let (kind, arch) = match &text.config {
        Some((path, _)) => read_bert(path, &read_json::<TowerConfig>(path)?, pool)?,
        None => infer_bert(text.checkpoint, PREFIX, &text.name, pool)?.ok_or_else(|| text.unknown())?,
    };
    check_bert_context(&text.folder.path, &arch, text.context_length)?;
    let (tokenizer, cleaning, files) = text.tokenizer()?;
    let tower = BertText {
        checkpoint: Arc::clone(text.checkpoint),
        prefix: PREFIX,
        kind,
        head: text.head(arch.sizes.width)?,
        arch,
        context_length: text.context_length,
        dim: text.folder.dim,
        precision: text.folder.options.precision,
    };
    Ok(tower.part(tokenizer, cleaning, files))
}

/// The tokenizer that `hf_tokenizer_name` names: its files are in the model's folder, or else in the part of it for other repositories' files.
pub(crate) fn tokenizer(dir: PathBuf, options: TokenizerOptions) -> TokenizerLoader {
    Box::new(move || {
        let inner = dir.join(TEXT_TOWER_FOLDER);
        let has = |dir: &Path| TOKENIZER_FILES.iter().any(|file| dir.join(file).is_file());
        let dir = if !has(&dir) && has(&inner) { &inner } else { &dir };
        Ok(Box::new(FileTokenizer::open(dir, &options)?))
    })
}

/// All files that [`tokenizer`] may read.
pub(crate) fn tokenizer_files() -> Vec<String> {
    let inner = TOKENIZER_FILES.iter().map(|file| format!("{TEXT_TOWER_FOLDER}/{file}"));
    TOKENIZER_FILES.iter().map(|&file| file.to_owned()).chain(inner).collect()
}
