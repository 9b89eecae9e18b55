//! The text towers that open_clip's configurations name: a row of [`TEXT_TOWERS`] each, and open_clip's own transformer.
//!
//! Reference: open_clip 3.3, `CLIPTextCfg` in `model.py` and `TextTransformer` in `transformer.py`.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::class_text::ClassText;
use crate::arch::shared::hf_text;
use crate::arch::shared::limits::check_text;
use crate::arch::shared::names::projection;
use crate::arch::shared::open_clip::{NormKwargs, OpenClipFolder, epsilon, mlp_width, refuse_unknown};
use crate::arch::shared::text::{OPEN_CLIP_TEXT, TextArch, TextNames, TextPool, TextTransformer};
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::{TextPart, TokenizerLoader};
use crate::checkpoint::Checkpoint;
use crate::device::{BuildText, Device, TextNetwork, TextTower};
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::nn::precision::Precision;
use crate::tokenizer::{Cleaning, ClipTokenizer, Padding, TokenizerOptions};

/// A kind of text tower in open_clip's configurations.
struct TextTowerKind {
    /// Whether the configuration names such a tower.
    detect: fn(&OpenClipFolder) -> bool,
    /// Checks what can be checked without the weights.
    check: fn(&OpenClipFolder) -> Result<()>,
    read: fn(&OpenClipFolder, &Arc<Checkpoint>) -> Result<TextPart>,
}

/// All kinds, in the order in which `detect` is called. The last one takes what no other does.
static TEXT_TOWERS: &[TextTowerKind] = &[
    TextTowerKind {
        detect: |folder| folder.text_has(hf_text::KEY),
        check: hf_text::check,
        read: hf_text::read,
    },
    TextTowerKind { detect: |_| true, check: |folder| read_own_cfg(folder).map(drop), read: read_own },
];

/// The row of the text tower that the configuration names.
fn kind_of(folder: &OpenClipFolder) -> &'static TextTowerKind {
    let kind = TEXT_TOWERS.iter().find(|kind| (kind.detect)(folder));
    kind.expect("the last one takes every tower")
}

/// Checks what can be checked of the text tower without the weights, which may be large and yet to be fetched.
///
/// # Errors
/// [`ClipError::Config`] for what is not known of it.
pub(crate) fn check_open_clip_text(folder: &OpenClipFolder) -> Result<()> {
    (kind_of(folder).check)(folder)
}

/// The text tower that the configuration names.
///
/// # Errors
/// [`ClipError::Config`] for what is not known of it.
pub(crate) fn read_open_clip_text(folder: &OpenClipFolder, checkpoint: &Arc<Checkpoint>) -> Result<TextPart> {
    (kind_of(folder).read)(folder, checkpoint)
}

#[derive(Deserialize)]
struct TextCfg {
    #[serde(default = "default_context_length")]
    context_length: usize,
    #[serde(default = "default_vocabulary")]
    vocab_size: usize,
    #[serde(default = "default_width")]
    width: usize,
    #[serde(default = "default_heads")]
    heads: usize,
    #[serde(default = "default_layers")]
    layers: usize,
    #[serde(default = "default_mlp_ratio")]
    mlp_ratio: f64,
    norm_kwargs: Option<NormKwargs>,
    act_kwargs: Option<ActKwargs>,
    #[serde(default)]
    no_causal_mask: bool,
    #[serde(default)]
    embed_cls: bool,
    pad_id: Option<u32>,
    #[serde(default)]
    pool_type: PoolType,
    #[serde(default = "default_eos_id")]
    eos_id: u32,
    #[serde(default)]
    proj_type: ProjectionType,
    hf_tokenizer_name: Option<String>,
    tokenizer_kwargs: Option<TokenizerKwargs>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PoolType {
    First,
    Last,
    #[default]
    Argmax,
    Eos,
}

#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ProjectionType {
    #[default]
    Linear,
    None,
}

/// The activation's only key that is known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActKwargs {
    approximate: Option<String>,
}

fn default_context_length() -> usize {
    77
}
fn default_vocabulary() -> usize {
    ClipTokenizer::VOCABULARY
}
fn default_width() -> usize {
    512
}
fn default_heads() -> usize {
    8
}
fn default_layers() -> usize {
    12
}
fn default_mlp_ratio() -> f64 {
    4.0
}
fn default_eos_id() -> u32 {
    2
}

/// Keys that change nothing, or that are read elsewhere.
const HARMLESS: &[&str] = &[
    "block_type",
    "output_tokens",
    "proj_bias",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "tokenizer_mode",
];

/// What the tokenizer does beside its file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TokenizerKwargs {
    pub(crate) clean: Option<String>,
    pub(crate) strip_sep_token: bool,
}

/// open_clip's names of what is done to a text first.
const CLEANING: [(&str, Cleaning); 3] =
    [("whitespace", Cleaning::Whitespace), ("lower", Cleaning::Lower), ("canonicalize", Cleaning::Canonical)];

/// The keys of open_clip's own transformer.
fn read_own_cfg(folder: &OpenClipFolder) -> Result<TextCfg> {
    let cfg: TextCfg = folder.text()?;
    refuse_unknown(&folder.path, "text_cfg", &cfg.rest, HARMLESS)?;
    Ok(cfg)
}

/// Reads open_clip's own transformer.
fn read_own(folder: &OpenClipFolder, checkpoint: &Arc<Checkpoint>) -> Result<TextPart> {
    let cfg = read_own_cfg(folder)?;
    let path = &folder.path;
    if let Some(block) = cfg.rest.get("block_type").filter(|block| **block != "default" && !block.is_null()) {
        return Err(ClipError::config(
            path,
            format!("text_cfg asks for `block_type` = {block}, expected \"default\""),
        ));
    }
    if cfg.embed_cls && cfg.no_causal_mask {
        let message = "text_cfg asks for `embed_cls` with `no_causal_mask`, which is not supported";
        return Err(ClipError::config(path, message));
    }
    let arch = TextArch {
        context_length: cfg.context_length,
        vocabulary: cfg.vocab_size,
        sizes: TransformerSizes {
            width: cfg.width,
            heads: cfg.heads,
            layers: cfg.layers,
            mlp_width: mlp_width(cfg.width, cfg.mlp_ratio),
        },
        activation: activation(path, folder.activation, cfg.act_kwargs.as_ref())?,
        epsilon: epsilon(cfg.norm_kwargs),
        causal: !cfg.no_causal_mask,
        pool: match cfg.pool_type {
            PoolType::First => TextPool::First,
            PoolType::Last => TextPool::Last,
            PoolType::Argmax => TextPool::Largest,
            PoolType::Eos => TextPool::Id(cfg.eos_id),
        },
        class_padding: cfg.embed_cls.then(|| cfg.pad_id.unwrap_or(0)),
    };
    check_text(path, &arch)?;
    let prefix = if checkpoint.contains("text.token_embedding.weight") { "text." } else { "" };
    let projection = match cfg.proj_type {
        ProjectionType::Linear => Some(format!("{prefix}text_projection")),
        ProjectionType::None if cfg.width == folder.dim => None,
        ProjectionType::None => {
            let message = format!(
                "text_cfg has `proj_type` \"none\", but its width is {} and `embed_dim` {}",
                cfg.width, folder.dim
            );
            return Err(ClipError::config(path, message));
        }
    };
    let own = OwnText {
        checkpoint: Arc::clone(checkpoint),
        prefix: prefix.to_owned(),
        names: &OPEN_CLIP_TEXT,
        arch,
        projection,
        dim: folder.dim,
        precision: folder.options.precision,
    };
    let padding = cfg.no_causal_mask.then_some(Padding::Token);
    let kwargs = cfg.tokenizer_kwargs.unwrap_or_default();
    let named = cfg.hf_tokenizer_name.is_some();
    let options = TokenizerOptions {
        cleaning: folder.options.cleaning.unwrap_or(cleaning(path, named, kwargs.clean.as_deref())?),
        padding,
        strip_sep_token: kwargs.strip_sep_token,
        ..TokenizerOptions::new(cfg.context_length)
    };
    let of_folder = named || cfg.vocab_size != ClipTokenizer::VOCABULARY;
    let cleaning = of_folder.then_some(options.cleaning);
    let tokenizer = match of_folder {
        true => hf_text::tokenizer(folder.dir.clone(), options),
        false => clip_tokenizer(options),
    };
    Ok(own.part(tokenizer, cleaning, hf_text::tokenizer_files()))
}

/// What is done to a text before the tokenizer; open_clip's tokenizers of the hub tidy whitespace where nothing else is asked for.
pub(crate) fn cleaning(path: &Path, named: bool, clean: Option<&str>) -> Result<Cleaning> {
    match clean {
        None if named => Ok(Cleaning::Whitespace),
        None => Ok(Cleaning::None),
        Some(name) => match CLEANING.iter().find(|(known, _)| *known == name) {
            Some(&(_, cleaning)) => Ok(cleaning),
            None => {
                let known = CLEANING.map(|(known, _)| format!("{known:?}")).join(", ");
                let message = format!("text_cfg.tokenizer_kwargs.clean is {name:?}, expected one of {known}");
                Err(ClipError::config(path, message))
            }
        },
    }
}

/// GELU, by its tanh approximation where the keys ask for that.
fn activation(path: &Path, activation: Activation, kwargs: Option<&ActKwargs>) -> Result<Activation> {
    match kwargs.and_then(|kwargs| kwargs.approximate.as_deref()) {
        None | Some("none") => Ok(activation),
        Some("tanh") => Ok(Activation::GeluTanh),
        Some(other) => {
            let message =
                format!("text_cfg.act_kwargs.approximate is {other:?}, expected \"none\" or \"tanh\"");
            Err(ClipError::config(path, message))
        }
    }
}

/// CLIP's own tokenizer.
fn clip_tokenizer(options: TokenizerOptions) -> TokenizerLoader {
    Box::new(move || {
        let tokenizer = ClipTokenizer::new(options.context_length);
        Ok(Box::new(if options.padding.is_some() { tokenizer.padded() } else { tokenizer }))
    })
}

/// A text transformer in a checkpoint, with its projection.
pub(crate) struct OwnText {
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) prefix: String,
    pub(crate) names: &'static TextNames,
    pub(crate) arch: TextArch,
    /// The projection's name; none where features are of the joint space already.
    pub(crate) projection: Option<String>,
    pub(crate) dim: usize,
    pub(crate) precision: Precision,
}

impl OwnText {
    /// The part of a model; `beside` are the tokenizer's files.
    pub(crate) fn part(
        self,
        tokenizer: TokenizerLoader,
        cleaning: Option<Cleaning>,
        beside: Vec<String>,
    ) -> TextPart {
        let TransformerSizes { width, layers, .. } = self.arch.sizes;
        TextPart {
            description: format!("CLIP text, {layers} layers of {width}, {}", self.arch.activation.name()),
            context_length: self.arch.context_length,
            operations: self.arch.operations(),
            tokenizer,
            cleaning,
            beside,
            loader: Box::new(self),
        }
    }
}

impl BuildText for OwnText {
    fn build<D: Device>(&self, device: &D) -> Result<TextTower<D>> {
        let Self { checkpoint, prefix, names, arch, projection: name, dim, precision } = self;
        let network: Box<dyn TextNetwork<D>> = match arch.class_padding {
            Some(id) => Box::new(ClassText::load(device, checkpoint, prefix, names, arch, id, *precision)?),
            None => Box::new(TextTransformer::load(device, checkpoint, prefix, names, arch, *precision)?),
        };
        let head = match name {
            Some(name) => Some(projection(device, checkpoint, name, arch.sizes.width, *dim)?),
            None => None,
        };
        Ok(TextTower { network, head })
    }
}
