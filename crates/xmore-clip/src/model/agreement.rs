//! How near a model in one number format is to the same model in another, on an image and texts that are made up.

use image::{Rgb, RgbImage};

use super::Model;
use crate::embeddings::Embeddings;
use crate::error::Result;

/// Of a few words and of many, so that lengths differ.
const TEXTS: [&str; 2] =
    ["a dog", "a photo of two people who sit on a bench beside a river in the evening sun"];

impl Model {
    /// The least cosine between this model's embeddings and those of `other`, of one image and, where there is a tokenizer, two texts.
    /// Loads the towers of both.
    ///
    /// # Errors
    /// Those of [`Model::encode_images`] and [`Model::encode_texts`].
    pub fn agreement(&self, other: &Self) -> Result<f32> {
        let image =
            RgbImage::from_fn(96, 80, |x, y| Rgb([x * 2, y * 3, (x * 7 + y * 13) % 256].map(|v| v as u8)));
        let pixels = [self.preprocess().prepare(&image)];
        let images = least_cosine(&self.encode_images(&pixels)?, &other.encode_images(&pixels)?);
        if self.tokenize(TEXTS[0]).is_err() {
            // Texts have no embeddings then, whatever the number format.
            return Ok(images);
        }
        let texts =
            least_cosine(&self.encode_texts(&TEXTS)?.embeddings, &other.encode_texts(&TEXTS)?.embeddings);
        Ok(images.min(texts))
    }
}

fn least_cosine(a: &Embeddings, b: &Embeddings) -> f32 {
    let cosine = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    // A NaN is the least of all: `f32::min` would pass over it.
    a.rows().zip(b.rows()).map(cosine).fold(1.0, |least, cosine| if cosine >= least { least } else { cosine })
}
