//! A dual encoder of any architecture, loaded from a folder or a checkpoint file.

mod agreement;
mod encode;
mod files;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use xmore_files::image::Orientation;

use crate::arch::{self, Architecture, Facts, Opened, TokenizerLoader};
use crate::device::{Decoding, ImageEncoder, ImageLoader, Place, TextEncoder, TextLoader};
use crate::error::{ClipError, Result};
use crate::fingerprint::fingerprint;
use crate::options::LoadOptions;
use crate::preprocess::{Preprocess, ResizeMode};
use crate::tokenizer::{Cleaning, Tokenizer, Tokens};

pub use encode::TextEmbeddings;
pub use files::DecodedFiles;

/// A dual encoder, on the processor or on a GPU.
///
/// Loading reads configuration and headers only; a tower is mapped and packed when it is first used, so that a program that
/// encodes images never pays for the text tower. Encoding takes `&self` and may be called from many threads.
///
/// On the processor an image's or text's embedding does not depend on the rest of its batch, nor on the number of threads: the bits are the
/// same. On a GPU its last bits may.
pub struct Model {
    path: PathBuf,
    /// The folder of its files.
    dir: PathBuf,
    architecture: &'static Architecture,
    facts: Facts,
    /// Name of the GPU that the towers compute on, if they do.
    gpu: Option<String>,
    place: Place,
    decoding: Decoding,
    fingerprint: String,
    image_loader: Box<dyn ImageLoader>,
    text_loader: Box<dyn TextLoader>,
    tokenizer_loader: TokenizerLoader,
    image: OnceLock<Box<dyn ImageEncoder>>,
    text: OnceLock<Box<dyn TextEncoder>>,
    tokenizer: OnceLock<Box<dyn Tokenizer>>,
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
        let (architecture, opened) = arch::open(path, options)?;
        let Opened { facts, place, image, text, tokenizer } = opened;
        let dir = if path.is_file() { path.parent().unwrap_or(Path::new("")) } else { path };
        let mut fingerprint = fingerprint(dir, facts.files.iter().map(String::as_str))?;
        // Other numbers, so another model to a memory.
        fingerprint.push_str(options.precision.fingerprint_suffix());
        if let Some(cleaning) = options.cleaning {
            if facts.cleaning.is_none() {
                return Err(ClipError::Cleaning { path: path.to_owned() });
            }
            fingerprint.push_str("-texts-");
            fingerprint.push_str(cleaning.name());
        }
        Ok(Self {
            path: path.to_owned(),
            dir: dir.to_owned(),
            architecture,
            facts,
            gpu: place.gpu_name(),
            place,
            decoding: options.decoding,
            fingerprint,
            image_loader: image,
            text_loader: text,
            tokenizer_loader: tokenizer,
            image: OnceLock::new(),
            text: OnceLock::new(),
            tokenizer: OnceLock::new(),
        })
    }

    /// What kind of model it is.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        self.facts.dim
    }

    /// exp(logit_scale): the factor on cosines before the softmax.
    pub fn logit_scale(&self) -> f32 {
        self.facts.logit_scale
    }

    /// What is added to scaled cosines before a sigmoid, in models that were trained with one; 0 in others. A softmax does not depend on it.
    pub fn logit_bias(&self) -> f32 {
        self.facts.logit_bias
    }

    /// Whether it was trained with a sigmoid of each pair of image and text, as SigLIP was: only then is the sigmoid of a logit a probability.
    pub fn trained_with_sigmoid(&self) -> bool {
        self.facts.logit_bias != 0.0
    }

    /// SHA-256 (hex) that identifies this model; see the `fingerprint` module for what goes in.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The folder or file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it computes on: `cpu`, or a GPU's name.
    pub fn device(&self) -> &str {
        self.gpu().unwrap_or("cpu")
    }

    /// Name of the GPU that it computes on, if it does.
    pub fn gpu(&self) -> Option<&str> {
        self.gpu.as_deref()
    }

    /// What decodes image files that are encoded.
    pub fn decoding(&self) -> Decoding {
        self.decoding
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

    /// What is done to a text before the tokenizer; none where the tokenizer does all of it.
    pub fn text_cleaning(&self) -> Option<Cleaning> {
        self.facts.cleaning
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

    fn image(&self) -> Result<&dyn ImageEncoder> {
        init(&self.image, || self.image_loader.load(&self.place)).map(Box::as_ref)
    }

    fn text(&self) -> Result<&dyn TextEncoder> {
        init(&self.text, || self.text_loader.load(&self.place)).map(Box::as_ref)
    }

    fn tokenizer(&self) -> Result<&dyn Tokenizer> {
        init(&self.tokenizer, || (self.tokenizer_loader)()).map(Box::as_ref)
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
