//! A dual encoder: two towers and their heads, loaded from a folder or a checkpoint file.

mod clip;
mod encode;
mod lite;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use xmore_files::image::Orientation;

use crate::config::CONFIG_FILE;
use crate::error::Result;
use crate::fingerprint::fingerprint;
use crate::nn::linear::Precision;
use crate::preprocess::{Preprocess, ResizeMode};
use crate::tokenizer::{Tokenizer, Tokens};
use crate::towers::head::Head;
use crate::towers::{ImageTower, TextTower};

pub use encode::TextEmbeddings;

/// What a caller may choose about loading a model; the default is what the model's own files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// QuickGELU (true) or GELU (false) in the towers, where the files do not say: a state dict alone does not tell them apart.
    pub quick_gelu: Option<bool>,
    /// How the transformers' weights are kept and multiplied.
    pub precision: Precision,
}

/// A dual encoder on the CPU.
///
/// Loading reads configuration and headers only; a tower is mapped and packed when it is first used, so that a program that
/// encodes images never pays for the text tower. Encoding takes `&self` and may be called from many threads.
///
/// An image's or text's embedding does not depend on what stands beside it in a batch, nor on the number of threads: the bits are the
/// same.
pub struct Model {
    path: PathBuf,
    /// The folder of its files.
    dir: PathBuf,
    facts: Facts,
    fingerprint: String,
    source: Box<dyn Source>,
    image: OnceLock<ImageEncoder>,
    text: OnceLock<TextEncoder>,
    tokenizer: OnceLock<Tokenizer>,
}

/// What is known of a model before its towers are loaded.
struct Facts {
    dim: usize,
    logit_scale: f32,
    preprocess: Preprocess,
    /// Image, then text.
    towers: [String; 2],
    context_length: usize,
    /// The files that the fingerprint is made of, in order.
    files: Vec<String>,
    /// Other files that are read, where they are there.
    beside: Vec<String>,
}

/// Where a model's towers come from.
trait Source: Send + Sync {
    fn image(&self) -> Result<ImageEncoder>;
    fn text(&self) -> Result<TextEncoder>;
    fn tokenizer(&self) -> Result<Tokenizer>;
}

struct ImageEncoder {
    tower: Box<dyn ImageTower>,
    /// None where the tower ends in the joint space itself.
    head: Option<Head>,
}

struct TextEncoder {
    tower: Box<dyn TextTower>,
    head: Head,
    vocabulary: usize,
}

impl Model {
    /// Opens a model folder (open_clip's, transformers', or the bundled model's) or a checkpoint file (OpenAI's `.pt`, open_clip's
    /// training checkpoints).
    ///
    /// # Errors
    /// [`crate::ClipError::MissingFile`] if the folder lacks a file, [`crate::ClipError::Config`] if its configuration makes no sense or asks for what is
    /// not supported, those of [`crate::Checkpoint::open`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(path, &LoadOptions::default())
    }

    /// Opens a model folder or checkpoint file, with choices of the caller's.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let path = path.as_ref();
        let (source, facts, dir): (Box<dyn Source>, _, _) = if path.is_file() {
            let (source, facts) = clip::ClipSource::open_file(path, options)?;
            (Box::new(source), facts, path.parent().unwrap_or(Path::new("")))
        } else if is_lite(path)? {
            let (source, facts) = lite::LiteSource::open(path, options)?;
            (Box::new(source), facts, path)
        } else {
            let (source, facts) = clip::ClipSource::open_folder(path, options)?;
            (Box::new(source), facts, path)
        };
        let mut fingerprint = fingerprint(dir, facts.files.iter().map(String::as_str))?;
        if options.precision == Precision::Int8 {
            // Other numbers, so another model to a memory.
            fingerprint.push_str("-int8");
        }
        Ok(Self {
            path: path.to_owned(),
            dir: dir.to_owned(),
            facts,
            fingerprint,
            source,
            image: OnceLock::new(),
            text: OnceLock::new(),
            tokenizer: OnceLock::new(),
        })
    }

    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        self.facts.dim
    }

    /// exp(logit_scale): the factor on cosines before the softmax.
    pub fn logit_scale(&self) -> f32 {
        self.facts.logit_scale
    }

    /// SHA-256 (hex) that tells this model from any other; see the `fingerprint` module for what goes in.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The folder or file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All files that its numbers come from.
    pub fn files(&self) -> Vec<PathBuf> {
        let beside = self.facts.beside.iter().map(|name| self.dir.join(name)).filter(|path| path.is_file());
        let mut files: Vec<PathBuf> =
            self.facts.files.iter().map(|name| self.dir.join(name)).chain(beside).collect();
        files.sort();
        files.dedup();
        files
    }

    /// What happens to an image before the image tower.
    pub fn preprocess(&self) -> &Preprocess {
        &self.facts.preprocess
    }

    /// Chooses which way up images are decoded; [`Orientation::Exif`] without a choice.
    pub fn set_orientation(&mut self, orientation: Orientation) {
        self.facts.preprocess.set_orientation(orientation);
    }

    /// Chooses how images become squares; that of the model's configuration without a choice.
    pub fn set_resize_mode(&mut self, mode: ResizeMode) {
        self.facts.preprocess.set_resize_mode(mode);
    }

    /// Most tokens of a text, start and end included; longer ones are cut.
    pub fn context_length(&self) -> usize {
        self.facts.context_length
    }

    /// The tokens of a text as the text tower reads it. Texts with the same ids have the same embedding.
    ///
    /// # Errors
    /// Those of loading the tokenizer, at first use, and [`crate::ClipError::Tokenize`].
    pub fn tokenize(&self, text: &str) -> Result<Tokens> {
        self.tokenizer()?.encode(text)
    }

    /// What the two towers are, image first.
    pub fn tower_names(&self) -> [&str; 2] {
        self.facts.towers.each_ref().map(String::as_str)
    }

    fn image(&self) -> Result<&ImageEncoder> {
        init(&self.image, || self.source.image())
    }

    fn text(&self) -> Result<&TextEncoder> {
        init(&self.text, || self.source.text())
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        init(&self.tokenizer, || self.source.tokenizer())
    }
}

/// Whether a folder's configuration names a file for each tower, as ours do.
fn is_lite(dir: &Path) -> Result<bool> {
    let path = dir.join(CONFIG_FILE);
    if !path.is_file() {
        return Ok(false);
    }
    let config: serde_json::Value = crate::config::read_json(&path)?;
    Ok(config.pointer("/model_cfg/head_weights").is_some())
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
