//! `lite` and its kind: a folder whose towers were published apart from one another, and heads that join them.

mod config;
mod efficientnet;
mod head;
mod stages;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, BuildText, Device, ImageNetwork, ImageTower, Place, TextTower};
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;
use crate::options::LoadOptions;
use crate::preprocess::Preprocess;
use crate::tokenizer::{FileTokenizer, Tokenizer, TokenizerOptions};

use super::shared::bert::{Bert, BertPool};
use super::shared::bert_config::read_bert;
use super::shared::limits::check_bert_context;
use super::shared::read_json;
use super::shared::transformers::TowerConfig;
use super::{Architecture, CONFIG_FILE, ConfigForm, Facts, Head, Opened};
use config::ModelConfig;
use efficientnet::EfficientNet;
use head::load_head;

/// lite's row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "lite",
    summary: "EfficientNet-Lite and MiniLM with trained heads: a folder with a file for each tower",
    detect: |found| found.value(ConfigForm::OpenClip, "/model_cfg/head_weights").is_some(),
    open: |found, options| Lite::open(found.folder(ConfigForm::OpenClip)?, options),
};

/// The files of `lite` that are part of this crate: configuration and heads, as (name, content). Its towers are fetched; see the model
/// card in `models/lite/README.md`.
pub const LITE_FILES: &[(&str, &[u8])] = &[
    (CONFIG_FILE, include_bytes!("../../../models/lite/open_clip_config.json")),
    ("heads.safetensors", include_bytes!("../../../models/lite/heads.safetensors")),
];

/// The same of `lite2`; see `models/lite2/README.md`.
pub const LITE2_FILES: &[(&str, &[u8])] = &[
    (CONFIG_FILE, include_bytes!("../../../models/lite2/open_clip_config.json")),
    ("heads.safetensors", include_bytes!("../../../models/lite2/heads.safetensors")),
];

/// A folder with `open_clip_config.json`, one file for each tower, and the heads.
struct Lite {
    dir: PathBuf,
    config: ModelConfig,
    precision: Precision,
}

impl Lite {
    /// Reads the configuration and the logit scale.
    fn open(dir: PathBuf, options: &LoadOptions) -> Result<Opened> {
        let path = dir.join(CONFIG_FILE);
        let config: ModelConfig = read_json(&path)?;
        check(&config, &path)?;
        let arch = &config.model_cfg;
        let text = &arch.text_cfg;
        let files =
            [&arch.vision_cfg.weights, &text.weights, &text.tokenizer, &text.config, &arch.head_weights];
        for file in files {
            require(&dir, file)?;
        }
        let logit_scale =
            Checkpoint::open(dir.join(&arch.head_weights))?.tensor("logit_scale", &[])?[0].exp();
        let facts = Facts {
            dim: arch.embed_dim,
            logit_scale,
            logit_bias: 0.0,
            preprocess: Preprocess::new(arch.vision_cfg.image_size, config.preprocess_cfg.clone()),
            towers: [arch.vision_cfg.timm_model_name.clone(), text.hf_model_name.clone()],
            context_length: text.context_length,
            cleaning: None,
            files: std::iter::once(CONFIG_FILE.to_owned()).chain(files.map(String::clone)).collect(),
            beside: Vec::new(),
        };
        let precision = options.precision;
        let place = Place::open(options, &[])?;
        let lite = Arc::new(Self { dir, config, precision });
        let tokenizer = Arc::clone(&lite);
        Ok(Opened {
            facts,
            place,
            image: Box::new(LiteImage(Arc::clone(&lite))),
            text: Box::new(LiteText(lite)),
            tokenizer: Box::new(move || tokenizer.tokenizer()),
        })
    }

    fn head<D: Device>(&self, device: &D, prefix: &str, inputs: usize) -> Result<Option<Head<D>>> {
        let arch = &self.config.model_cfg;
        let heads = Checkpoint::open(self.dir.join(&arch.head_weights))?;
        Ok(Some(load_head(device, &heads, prefix, arch.embed_dim, inputs)?))
    }

    fn tokenizer(&self) -> Result<Box<dyn Tokenizer>> {
        let text = &self.config.model_cfg.text_cfg;
        Ok(Box::new(FileTokenizer::load(
            &self.dir.join(&text.tokenizer),
            &TokenizerOptions::new(text.context_length),
        )?))
    }
}

struct LiteImage(Arc<Lite>);

struct LiteText(Arc<Lite>);

impl BuildImage for LiteImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let Self(lite) = self;
        let vision = &lite.config.model_cfg.vision_cfg;
        let network = EfficientNet::load(device, &Checkpoint::open(lite.dir.join(&vision.weights))?, vision)?;
        let head = lite.head(device, "visual.", ImageNetwork::<D>::width(&network))?;
        Ok(ImageTower { network: Box::new(network), head })
    }
}

impl BuildText for LiteText {
    fn build<D: Device>(&self, device: &D) -> Result<TextTower<D>> {
        let Self(lite) = self;
        let text = &lite.config.model_cfg.text_cfg;
        let path = lite.dir.join(&text.config);
        let (_, mut bert) = read_bert(&path, &read_json::<TowerConfig>(&path)?, BertPool::UnitMean)?;
        // sentence-transformers' mask is the tokenizer's, by place and not by id.
        bert.padding = None;
        check_bert_context(&lite.dir.join(CONFIG_FILE), &bert, text.context_length)?;
        let checkpoint = Arc::new(Checkpoint::open(lite.dir.join(&text.weights))?);
        let network = Bert::load(device, &checkpoint, "", &bert, lite.precision)?;
        let head = lite.head(device, "text.", bert.sizes.width)?;
        Ok(TextTower { network: Box::new(network), head })
    }
}

fn require(dir: &Path, file: &str) -> Result<()> {
    if Path::new(file).components().count() != 1 {
        return Err(ClipError::config(
            &dir.join(CONFIG_FILE),
            format!("names {file:?}, expected a file of the folder"),
        ));
    }
    if dir.join(file).is_file() {
        return Ok(());
    }
    Err(ClipError::MissingFile {
        dir: dir.to_owned(),
        file: file.to_owned(),
        named_by: Some(dir.join(CONFIG_FILE)),
    })
}

fn check(config: &ModelConfig, path: &Path) -> Result<()> {
    let arch = &config.model_cfg;
    let fail = |message: String| Err(ClipError::config(path, message));
    if !(1..=1 << 16).contains(&arch.embed_dim) {
        return fail(format!("embed_dim is {}, expected 1 to 65536", arch.embed_dim));
    }
    if !(1..=4096).contains(&arch.vision_cfg.image_size) {
        return fail(format!("image_size is {}, expected 1 to 4096", arch.vision_cfg.image_size));
    }
    let name = &arch.vision_cfg.timm_model_name;
    if !stages::names().any(|known| known == name) {
        let known = stages::names().collect::<Vec<_>>().join(", ");
        return fail(format!("timm_model_name is {name:?}, expected one of {known}"));
    }
    if arch.text_cfg.hf_pooler_type != "mean_pooler" {
        return fail(format!(
            "hf_pooler_type is {:?}, expected \"mean_pooler\"",
            arch.text_cfg.hf_pooler_type
        ));
    }
    for stage in arch.vision_cfg.stages() {
        let limits = [
            (stage.repeats, 64),
            (stage.kernel, 15),
            (stage.stride, 4),
            (stage.expand, 16),
            (stage.channels, 8192),
        ];
        if limits.iter().any(|&(n, max)| !(1..=max).contains(&n)) {
            return fail(format!("stage {stage:?} has a number out of range"));
        }
    }
    Ok(())
}
