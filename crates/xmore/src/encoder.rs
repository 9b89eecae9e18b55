//! What the method asks of a dual encoder, ours or another.

use std::path::Path;

use image::RgbImage;
use xmore_clip::{DecodedFiles, Embeddings, Loaded, Pixels, TextEmbeddings, Tokens};
use xmore_files::image::{Alpha, DecodeOptions, ImageError, Orientation, decode_bytes};
use xmore_memory::Memory;
use xmore_memory::retriever::Retriever;
use xmore_memory::store::{EmbeddingSet, ModelIdentity};

use crate::error::{Result, XmoreError};
use crate::retrieve::error::RetrievalError;

/// A model that embeds images and texts into one space.
///
/// [`NamedModel`](crate::NamedModel) is one. Another needs four methods besides its scale: see `examples/custom_encoder.rs`. Embeddings are
/// unit rows; an image or text has the same embedding alone and in any batch.
pub trait Encoder: Send + Sync {
    /// Which model this is: what a memory records, and what tells whether embeddings are this model's.
    fn identity(&self) -> &ModelIdentity;

    /// exp(logit_scale): what cosines are multiplied with before the softmax.
    fn logit_scale(&self) -> f32;

    /// What is added to the scaled cosines before a sigmoid. It makes no difference to a softmax.
    fn logit_bias(&self) -> f32 {
        0.0
    }

    /// Whether the model was trained with a sigmoid of each pair of image and text, so that the sigmoid of a logit is a probability
    /// ([`Scores::Sigmoid`](crate::Scores::Sigmoid)).
    fn trained_with_sigmoid(&self) -> bool {
        self.logit_bias() != 0.0
    }

    /// A decoded image as the image tower takes it: resized, cropped, normalized.
    fn prepare(&self, image: &RgbImage) -> Pixels;

    /// Embeds prepared images: unit rows `[images, dim]`.
    ///
    /// # Errors
    /// The encoder's own; [`XmoreError::Encoder`] holds those of any type.
    fn embed_images(&self, images: &[Pixels]) -> Result<Embeddings>;

    /// Embeds texts: unit rows `[texts, dim]`, and how many texts were cut.
    ///
    /// # Errors
    /// As [`Encoder::embed_images`].
    fn embed_texts(&self, texts: &[&str]) -> Result<TextEmbeddings>;

    /// Length of the embeddings.
    fn dim(&self) -> usize {
        self.identity().dim
    }

    /// Side of the square that the image tower takes, in pixels, where it takes one.
    fn image_size(&self) -> Option<u32> {
        None
    }

    /// What it computes on, for people, where it tells: `cpu`, or a GPU's name.
    fn device(&self) -> Option<&str> {
        None
    }

    /// Which way up images are decoded.
    fn orientation(&self) -> Orientation {
        Orientation::Exif
    }

    /// What of an image's preparation the user has chosen, beside the orientation: part of the key under which embeddings are kept.
    fn preparation(&self) -> Option<&str> {
        None
    }

    /// Whether [`decode_files`](Self::decode_files) decodes any.
    fn decodes_files(&self) -> bool {
        false
    }

    /// Decodes and prepares those of a batch of image files that the encoder decodes itself, such as on a GPU; the others are
    /// [loaded](Self::load). Called only where [`decodes_files`](Self::decodes_files) says so.
    ///
    /// # Errors
    /// The encoder's own, not those of single files.
    fn decode_files(&self, _files: &[&[u8]]) -> Result<Option<DecodedFiles<'_>>> {
        Ok(None)
    }

    /// Decodes and prepares an image file's bytes, of at most `max_pixels`; `name` stands for the file in errors.
    ///
    /// # Errors
    /// Why the image cannot be read.
    fn load(&self, bytes: &[u8], name: &Path, max_pixels: u64) -> Result<Loaded> {
        let options = DecodeOptions { orientation: self.orientation(), max_pixels };
        let decoded = decode_bytes(bytes, name, Alpha::default(), &options)
            .map_err(|source: ImageError| xmore_clip::ClipError::Image { path: name.to_owned(), source })?;
        Ok(Loaded {
            pixels: self.prepare(decoded.image()),
            first_of_several: decoded.is_first_of_several(),
            far_from_square: false,
        })
    }

    /// The tokens of a text, where the encoder tells them: labels that become the same tokens are warned of.
    ///
    /// # Errors
    /// Those of the tokenizer.
    fn tokens(&self, _text: &str) -> Result<Option<Tokens>> {
        Ok(None)
    }

    /// Most tokens of a text, where the encoder tells them.
    fn context_length(&self) -> Option<usize> {
        None
    }

    /// Checks that the model is still what it was when it was fetched or first used with a memory.
    ///
    /// # Errors
    /// That it has changed.
    fn check_files(&self) -> Result<()> {
        Ok(())
    }

    /// Records the model as it is now, as a new memory is built with it.
    ///
    /// # Errors
    /// As [`Encoder::check_files`], where something else is known of it.
    fn record_files(&self) -> Result<()> {
        Ok(())
    }
}

impl dyn Encoder + '_ {
    /// Whether an identity is this model's: fingerprint and length, whatever its name.
    pub fn is(&self, identity: &ModelIdentity) -> bool {
        self.identity().is_same(identity)
    }

    /// The memory's embeddings by this very model.
    ///
    /// # Errors
    /// [`RetrievalError::EmptyMemory`], [`RetrievalError::ModelMismatch`], or those of [`Encoder::check_files`].
    pub fn embedding_set<'a>(&self, memory: &'a Memory) -> Result<&'a EmbeddingSet> {
        if memory.is_empty() {
            return Err(RetrievalError::EmptyMemory { dir: memory.dir().to_owned() }.into());
        }
        let set = memory.embedding_set(self.identity()).ok_or_else(|| {
            let models: Vec<&ModelIdentity> =
                memory.embedding_sets().iter().map(EmbeddingSet::model).collect();
            self.mismatch(memory.dir().display().to_string(), &models, false)
        })?;
        self.check_files()?;
        Ok(set)
    }

    /// Checks that a remote index's embeddings are this model's, as far as it tells.
    ///
    /// # Errors
    /// [`RetrievalError::ModelMismatch`], or those of [`Encoder::check_files`].
    pub fn check_remote(&self, index: &dyn Retriever) -> Result<()> {
        match index.identity() {
            Some(theirs) if !self.is(theirs) => {
                Err(self.mismatch(index.location().into_owned(), &[theirs], true))
            }
            _ => self.check_files(),
        }
    }

    fn mismatch(&self, location: String, theirs: &[&ModelIdentity], remote: bool) -> XmoreError {
        let describe = |model: &ModelIdentity| format!("{model} ({})", model.short_fingerprint());
        RetrievalError::ModelMismatch {
            location,
            remote,
            memory_model: theirs.iter().map(|model| describe(model)).collect::<Vec<_>>().join(", "),
            model: describe(self.identity()),
        }
        .into()
    }
}
