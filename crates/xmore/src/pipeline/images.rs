//! Query images in the forms that callers have, on their way to embeddings.

use std::path::{Path, PathBuf};

use image::RgbImage;
use xmore_clip::Pixels;
use xmore_files::image::MAX_PIXELS;
use xmore_files::read_bounded;
use xmore_memory::ingest::MAX_IMAGE_BYTES;

use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};

/// An image to be classified.
#[derive(Clone, Debug)]
pub enum QueryImage {
    /// A file.
    Path(PathBuf),
    /// A file's bytes.
    Bytes(Vec<u8>),
    /// Decoded pixels, upright.
    Pixels(RgbImage),
    /// Unit embeddings by each of [`Pipeline::encoders`](crate::Pipeline::encoders).
    Embeddings(Vec<Vec<f32>>),
}

/// An image on its way to its embeddings.
pub(super) enum Prepared<'a> {
    /// As each of the encoders takes it, until it is taken.
    Pixels(Vec<Option<Pixels>>),
    /// Embedded already, by each of the encoders.
    Embedded(&'a [Vec<f32>]),
}

impl Prepared<'_> {
    pub(super) fn take(&mut self, encoder: usize) -> Option<Pixels> {
        match self {
            Self::Pixels(each) => each[encoder].take(),
            Self::Embedded(_) => None,
        }
    }

    pub(super) fn row(&self, encoder: usize) -> Option<&[f32]> {
        match self {
            Self::Pixels(_) => None,
            Self::Embedded(rows) => Some(&rows[encoder]),
        }
    }
}

impl QueryImage {
    pub(super) fn prepare(&self, encoders: &[&dyn Encoder]) -> Result<Prepared<'_>> {
        let decode = |bytes: &[u8], name: &Path| {
            let pixels = |encoder: &&dyn Encoder| Ok(Some(encoder.load(bytes, name, MAX_PIXELS)?.pixels));
            Ok(Prepared::Pixels(encoders.iter().map(pixels).collect::<Result<_>>()?))
        };
        match self {
            Self::Path(path) => {
                let bytes =
                    read_bounded(path, MAX_IMAGE_BYTES).map_err(|e| XmoreError::io("read", path, e))?;
                decode(&bytes, path)
            }
            Self::Bytes(bytes) => decode(bytes, Path::new("image")),
            Self::Pixels(image) => {
                Ok(Prepared::Pixels(encoders.iter().map(|encoder| Some(encoder.prepare(image))).collect()))
            }
            Self::Embeddings(rows) => {
                let expected: Vec<usize> = encoders.iter().map(|encoder| encoder.dim()).collect();
                let found: Vec<usize> = rows.iter().map(Vec::len).collect();
                if expected != found {
                    return Err(XmoreError::EmbeddingLengths { expected, found });
                }
                Ok(Prepared::Embedded(rows))
            }
        }
    }
}
