//! An opened model with its name.

mod auto;
#[cfg(feature = "hub")]
mod by_name;

use std::ops::Deref;
use std::path::Path;
#[cfg(feature = "hub")]
use std::sync::atomic::{AtomicBool, Ordering};

use image::RgbImage;
use xmore_clip::{
    Cleaning, DecodedFiles, Decoding, Embeddings, Loaded, Model, Pixels, Precision, ResizeMode,
    TextEmbeddings, Tokens,
};
use xmore_files::image::Orientation;
use xmore_memory::store::ModelIdentity;

use crate::encoder::Encoder;
use crate::error::Result;

pub use auto::AutoPrecision;

/// A model that knows the name it was asked for by.
pub struct NamedModel {
    identity: ModelIdentity,
    /// The identity in words.
    shown: String,
    model: Model,
    /// The choices of an image's preparation.
    preparation: Option<String>,
    /// Whether every byte of its files was found to be what was recorded, in this process.
    #[cfg(feature = "hub")]
    checked: AtomicBool,
}

impl NamedModel {
    /// A model that is open already, by a name for reports and for what is built with it.
    pub fn new(name: impl Into<String>, model: Model) -> Self {
        let identity = ModelIdentity::new(name, model.fingerprint(), model.dim());
        Self {
            shown: identity.to_string(),
            identity,
            preparation: preparation(&model),
            model,
            #[cfg(feature = "hub")]
            checked: AtomicBool::new(false),
        }
    }

    /// The same, known to have been opened in this number format.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.identity.precision = (precision != Precision::F32).then(|| precision.name().to_owned());
        self.shown = self.identity.to_string();
        self
    }

    /// The canonical name, such as `ViT-B-16,openai` where `ViT-B/16` was asked for, and the precision behind it if it is not float32.
    pub fn name(&self) -> &str {
        &self.shown
    }

    /// What is done to a text before the tokenizer; none where the tokenizer does all of it.
    pub fn text_cleaning(&self) -> Option<Cleaning> {
        self.model.text_cleaning()
    }

    /// The model, decoding images this way up.
    #[must_use]
    pub fn with_orientation(mut self, orientation: Orientation) -> Self {
        self.model.set_orientation(orientation);
        self
    }

    /// The model, making squares of images this way; that of its configuration if `None`.
    #[must_use]
    pub fn with_resize_mode(mut self, mode: Option<ResizeMode>) -> Self {
        if let Some(mode) = mode {
            self.model.set_resize_mode(mode);
            self.preparation = preparation(&self.model);
        }
        self
    }
}

/// What of an image's preparation was chosen, beside the orientation.
fn preparation(model: &Model) -> Option<String> {
    let mode = model.preprocess().other_resize_mode().map(ResizeMode::name);
    let decoder = (model.decoding() == Decoding::Gpu).then_some("decoded on the GPU");
    let chosen: Vec<&str> = mode.into_iter().chain(decoder).collect();
    (!chosen.is_empty()).then(|| chosen.join(", "))
}

impl Encoder for NamedModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn logit_scale(&self) -> f32 {
        self.model.logit_scale()
    }

    fn logit_bias(&self) -> f32 {
        self.model.logit_bias()
    }

    fn trained_with_sigmoid(&self) -> bool {
        self.model.trained_with_sigmoid()
    }

    fn prepare(&self, image: &RgbImage) -> Pixels {
        self.model.preprocess().prepare(image)
    }

    fn embed_images(&self, images: &[Pixels]) -> Result<Embeddings> {
        Ok(self.model.encode_images(images)?)
    }

    fn embed_texts(&self, texts: &[&str]) -> Result<TextEmbeddings> {
        Ok(self.model.encode_texts(texts)?)
    }

    fn image_size(&self) -> Option<u32> {
        Some(self.model.preprocess().size())
    }

    fn device(&self) -> Option<&str> {
        Some(self.model.device())
    }

    fn orientation(&self) -> Orientation {
        self.model.preprocess().orientation()
    }

    fn preparation(&self) -> Option<&str> {
        self.preparation.as_deref()
    }

    fn decodes_files(&self) -> bool {
        self.model.decoding() == Decoding::Gpu
    }

    fn decode_files(&self, files: &[&[u8]]) -> Result<Option<DecodedFiles<'_>>> {
        Ok(self.model.decode_files(files)?)
    }

    fn load(&self, bytes: &[u8], name: &Path, max_pixels: u64) -> Result<Loaded> {
        Ok(self.model.preprocess().load_bytes_within(bytes, name, max_pixels)?)
    }

    fn tokens(&self, text: &str) -> Result<Option<Tokens>> {
        Ok(Some(self.model.tokenize(text)?))
    }

    fn context_length(&self) -> Option<usize> {
        Some(self.model.context_length())
    }

    /// Every byte is compared with what was recorded; files that have not been touched since are not read.
    #[cfg(feature = "hub")]
    fn check_files(&self) -> Result<()> {
        if !self.checked.load(Ordering::Relaxed) {
            by_name::check_files(&self.model)?;
            self.checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    #[cfg(feature = "hub")]
    fn record_files(&self) -> Result<()> {
        by_name::record_files(&self.model)?;
        self.checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Deref for NamedModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}
