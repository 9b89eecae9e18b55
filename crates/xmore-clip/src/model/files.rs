//! Image files through the image tower, decoded on its device.

use super::Model;
use crate::device::{DecodedFile, DecodedImages, Decoding, FileEncoder};
use crate::embeddings::Embeddings;
use crate::error::Result;

/// Image files that were decoded on the device of the image tower, where they wait to be encoded.
pub struct DecodedFiles<'m> {
    tower: &'m dyn FileEncoder,
    dim: usize,
    images: DecodedImages,
}

impl Model {
    /// Decodes and prepares those of a batch of image files that the device decodes; `None` if files are decoded by the processor
    /// ([`Decoding::Cpu`], or a model whose filter is not bicubic, which is what a GPU's resize was compared with). Files that are missing in the result are to be [loaded](crate::Preprocess::load_bytes) and encoded as ever: they may
    /// be of another format than JPEG, of a kind that is not decoded, too large, or broken.
    ///
    /// To be called for the next batch while this one is encoded: both then run at the same time.
    ///
    /// # Errors
    /// Those of loading the image tower, at first use; [`crate::ClipError::Device`] if the GPU fails, or has no nvJPEG.
    pub fn decode_files(&self, files: &[&[u8]]) -> Result<Option<DecodedFiles<'_>>> {
        if self.decoding == Decoding::Cpu || !self.preprocess().may_run_on_gpu() {
            return Ok(None);
        }
        let Some(tower) = self.image()?.files() else { return Ok(None) };
        let images = tower.decode(files, self.preprocess())?;
        Ok(Some(DecodedFiles { tower, dim: self.dim(), images }))
    }
}

impl DecodedFiles<'_> {
    /// The file of each row of [`encode`](Self::encode)'s result, in no particular order.
    pub fn files(&self) -> &[DecodedFile] {
        self.images.files()
    }

    /// Unit rows `[files, dim]`.
    ///
    /// # Errors
    /// [`crate::ClipError::Device`] if the GPU fails.
    pub fn encode(&self) -> Result<Embeddings> {
        Ok(Embeddings::new(self.tower.embeddings(&self.images, self.dim)?, self.dim))
    }
}
