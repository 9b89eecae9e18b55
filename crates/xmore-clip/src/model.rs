//! A dual encoder: two towers and their heads, loaded from one folder.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::config::{BertConfig, CONFIG_FILE, ModelConfig, read_json};
use crate::embeddings::Embeddings;
use crate::error::{ClipError, Result};
use crate::fingerprint::fingerprint;
use crate::preprocess::{Pixels, Preprocess};
use crate::tokenizer::Tokenizer;
use crate::towers::bert::Bert;
use crate::towers::efficientnet::EfficientNet;
use crate::towers::head::Head;
use crate::towers::{ImageTower, TextTower};

/// Tokens that go through the text tower together: bounds memory, changes no number.
const TOKENS_PER_PASS: usize = 8192;

/// What a caller may choose about loading a model; the default is what the model's own files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// QuickGELU (true) or GELU (false) in the towers, where the files do not say: a state dict alone does not tell them apart.
    pub quick_gelu: Option<bool>,
}

/// A dual encoder on the CPU.
///
/// Loading reads the configuration only; a tower is mapped and packed when it is first used, so that a program that
/// encodes images never pays for the text tower. Encoding takes `&self` and may be called from many threads.
///
/// An image's or text's embedding does not depend on what stands beside it in a batch, nor on the number of threads: the bits are the
/// same.
pub struct Model {
    dir: PathBuf,
    config: ModelConfig,
    preprocess: Preprocess,
    fingerprint: String,
    logit_scale: f32,
    image: OnceLock<ImageEncoder>,
    text: OnceLock<TextEncoder>,
}

struct ImageEncoder {
    tower: Box<dyn ImageTower>,
    head: Head,
}

struct TextEncoder {
    tower: Box<dyn TextTower>,
    head: Head,
    tokenizer: Tokenizer,
    vocabulary: usize,
}

/// What [`Model::encode_texts`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEmbeddings {
    /// Unit rows `[texts, dim]`.
    pub embeddings: Embeddings,
    /// How many texts were longer than the model's context and were cut.
    pub truncated: usize,
}

impl Model {
    /// Opens a model folder.
    ///
    /// # Errors
    /// [`ClipError::MissingFile`] if the folder lacks a file, [`ClipError::Config`] if its configuration makes no sense.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(dir, &LoadOptions::default())
    }

    /// Opens a model folder or checkpoint file, with choices of the caller's.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load_with(dir: impl AsRef<Path>, _options: &LoadOptions) -> Result<Self> {
        let dir = dir.as_ref().to_owned();
        let config_path = dir.join(CONFIG_FILE);
        require(&dir, CONFIG_FILE)?;
        let config: ModelConfig = read_json(&config_path)?;
        check(&config, &config_path)?;
        let arch = &config.model_cfg;
        let text = &arch.text_cfg;
        let files =
            [&arch.vision_cfg.weights, &text.weights, &text.tokenizer, &text.config, &arch.head_weights];
        for file in files {
            require(&dir, file)?;
        }
        let names = files.map(String::as_str);
        let fingerprint = fingerprint(&dir, std::iter::once(CONFIG_FILE).chain(names))?;
        let heads = Checkpoint::open(dir.join(&arch.head_weights))?;
        let logit_scale = heads.tensor("logit_scale", &[])?[0].exp();
        let preprocess = Preprocess::new(arch.vision_cfg.image_size, config.preprocess_cfg.clone());
        Ok(Self {
            dir,
            preprocess,
            fingerprint,
            logit_scale,
            config,
            image: OnceLock::new(),
            text: OnceLock::new(),
        })
    }

    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        self.config.model_cfg.embed_dim
    }

    /// exp(logit_scale): the factor on cosines before the softmax.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// SHA-256 (hex) that tells this model from any other; see the `fingerprint` module for what goes in.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The folder it was loaded from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What happens to an image before the image tower.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Names of the two towers, image first.
    pub fn tower_names(&self) -> [&str; 2] {
        [&self.config.model_cfg.vision_cfg.timm_model_name, &self.config.model_cfg.text_cfg.hf_model_name]
    }

    /// Unit rows `[images, dim]`.
    ///
    /// # Errors
    /// Those of loading the image tower, at first use.
    pub fn encode_images(&self, images: &[Pixels]) -> Result<Embeddings> {
        let head = &self.image()?.head;
        let features = self.image_features(images)?;
        Ok(Embeddings::new(head.forward(features.as_slice()), self.dim()))
    }

    /// Unit rows `[texts, dim]`.
    ///
    /// # Errors
    /// Those of loading the text tower, at first use, and [`ClipError::Tokenize`].
    pub fn encode_texts<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<TextEmbeddings> {
        let head = &self.text()?.head;
        let (features, truncated) = self.text_features(texts)?;
        Ok(TextEmbeddings {
            embeddings: Embeddings::new(head.forward(features.as_slice()), self.dim()),
            truncated,
        })
    }

    /// The image tower's features before the head, `[images, width]`: what heads are trained on.
    ///
    /// # Errors
    /// Those of loading the image tower, at first use.
    pub fn image_features(&self, images: &[Pixels]) -> Result<Embeddings> {
        let tower = &self.image()?.tower;
        let rows: Vec<Vec<f32>> = images.par_iter().map(|image| tower.forward(&image.0)).collect();
        Ok(Embeddings::new(rows.concat(), tower.width()))
    }

    /// The text tower's features before the head, `[texts, width]`, and how many texts were cut.
    ///
    /// # Errors
    /// Those of loading the text tower, at first use, and [`ClipError::Tokenize`].
    pub fn text_features<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<(Embeddings, usize)> {
        let TextEncoder { tower, tokenizer, vocabulary, .. } = self.text()?;
        let tokens =
            texts.par_iter().map(|text| tokenizer.encode(text.as_ref())).collect::<Result<Vec<_>>>()?;
        if let Some(id) = tokens.iter().flat_map(|t| &t.ids).find(|&&id| id as usize >= *vocabulary) {
            let path = self.dir.join(&self.config.model_cfg.text_cfg.tokenizer);
            let message = format!("gives token {id}, but the text tower knows {vocabulary} tokens only");
            return Err(ClipError::config(&path, message));
        }
        let ids: Vec<&[u32]> = tokens.iter().map(|t| t.ids.as_slice()).collect();
        let mut rows = Vec::with_capacity(texts.len() * tower.width());
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            let mut count = 0;
            let mut total = 0;
            while count < rest.len() && (count == 0 || total + rest[count].len() <= TOKENS_PER_PASS) {
                total += rest[count].len();
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            rows.extend(tower.forward(now));
            rest = later;
        }
        let truncated = tokens.iter().filter(|t| t.truncated).count();
        Ok((Embeddings::new(rows, tower.width()), truncated))
    }

    fn image(&self) -> Result<&ImageEncoder> {
        init(&self.image, || {
            let arch = &self.config.model_cfg;
            let ckpt = Checkpoint::open(self.dir.join(&arch.vision_cfg.weights))?;
            let tower = Box::new(EfficientNet::load(&ckpt, &arch.vision_cfg)?);
            let head = self.head("visual.", tower.width())?;
            Ok(ImageEncoder { tower, head })
        })
    }

    fn text(&self) -> Result<&TextEncoder> {
        init(&self.text, || {
            let text = &self.config.model_cfg.text_cfg;
            let path = self.dir.join(&text.config);
            let bert: BertConfig = read_json(&path)?;
            check_bert(&bert, text.context_length, &path)?;
            let (tower, tokenizer) = rayon::join(
                || Bert::load(Checkpoint::open(self.dir.join(&text.weights))?, &bert),
                || Tokenizer::load(&self.dir.join(&text.tokenizer), text.context_length),
            );
            let tower = Box::new(tower?);
            let (head, vocabulary) = (self.head("text.", tower.width())?, tower.vocabulary());
            Ok(TextEncoder { tower, head, tokenizer: tokenizer?, vocabulary })
        })
    }

    fn head(&self, prefix: &str, inputs: usize) -> Result<Head> {
        let heads = Checkpoint::open(self.dir.join(&self.config.model_cfg.head_weights))?;
        Head::load(&heads, prefix, self.dim(), inputs)
    }
}

/// `OnceLock::get_or_try_init`, which is not stable yet. Two threads may both load; one result is kept.
fn init<T>(cell: &OnceLock<T>, load: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(value) => Ok(value),
        None => {
            let value = load()?;
            Ok(cell.get_or_init(|| value))
        }
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
        hint: "for the bundled model run `xmore model fetch lite`; for a folder of your own, complete it"
            .into(),
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
    if arch.vision_cfg.timm_model_name != "efficientnet_lite0" {
        return fail(format!(
            "timm_model_name is {:?}, expected \"efficientnet_lite0\"",
            arch.vision_cfg.timm_model_name
        ));
    }
    if arch.text_cfg.hf_pooler_type != "mean_pooler" {
        return fail(format!(
            "hf_pooler_type is {:?}, expected \"mean_pooler\"",
            arch.text_cfg.hf_pooler_type
        ));
    }
    let stages = arch.vision_cfg.stages.iter().flatten();
    for stage in stages {
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

fn check_bert(config: &BertConfig, context_length: usize, path: &Path) -> Result<()> {
    let fail = |message: String| Err(ClipError::config(path, message));
    if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        return fail(format!("hidden_size {} in {} heads", config.hidden_size, config.num_attention_heads));
    }
    if config.hidden_act != "gelu" {
        return fail(format!("hidden_act is {:?}, expected \"gelu\"", config.hidden_act));
    }
    if !(3..=config.max_position_embeddings).contains(&context_length) {
        return fail(format!(
            "has {} positions, but {CONFIG_FILE} asks for a context_length of {context_length}",
            config.max_position_embeddings
        ));
    }
    if config.num_hidden_layers > 256 || config.hidden_size > 1 << 16 || config.intermediate_size > 1 << 20 {
        return fail("has a size out of range".into());
    }
    Ok(())
}
