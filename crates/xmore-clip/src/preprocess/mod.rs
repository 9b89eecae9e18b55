//! From an image file to the numbers that an image tower takes.

mod decode;
mod jpeg;
mod resize;
mod spare;

use std::path::Path;

use image::RgbImage;
use serde::Deserialize;

pub use decode::{Alpha, decode_file, decode_memory, decode_memory_within};
pub use resize::{Region, resize_bicubic};

use crate::error::Result;

/// `preprocess_cfg`, with open_clip's keys and `alpha`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct PreprocessConfig {
    /// Per channel, of pixels in [0, 1].
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
    pub(crate) interpolation: Interpolation,
    pub(crate) resize_mode: ResizeMode,
    pub(crate) alpha: Alpha,
}

/// OpenAI's, which most CLIP models share.
impl Default for PreprocessConfig {
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            interpolation: Interpolation::default(),
            resize_mode: ResizeMode::default(),
            alpha: Alpha::default(),
        }
    }
}

/// The resampling filter; the one that CLIP models are trained with.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Interpolation {
    /// Pillow's BICUBIC: a = −0.5, antialiased.
    ///
    /// open_clip's `random` is a training augmentation; it too reads images bicubically.
    #[default]
    #[serde(alias = "random")]
    Bicubic,
}

/// How a photo of any shape becomes a square.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// The short side becomes the square's, the middle is cut out: CLIP's way.
    #[default]
    Shortest,
    /// Both sides become the square's, whatever the shape was.
    Squash,
}

/// One image as a tower takes it: `[size, size, 3]`, normalised, channels last.
///
/// Its memory is used for another one when it is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels(pub(crate) Vec<f32>);

impl Drop for Pixels {
    fn drop(&mut self) {
        spare::keep(std::mem::take(&mut self.0));
    }
}

impl Pixels {
    /// Values that were prepared elsewhere: `[size, size, 3]`, normalised, channels last. [`crate::Model::encode_images`] refuses another
    /// length than its tower's.
    pub fn new(values: Vec<f32>) -> Self {
        Self(values)
    }

    /// The values, `[size, size, 3]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

/// A model's preprocessing.
#[derive(Clone, Debug)]
pub struct Preprocess {
    size: u32,
    config: PreprocessConfig,
}

impl Preprocess {
    pub(crate) fn new(size: usize, config: PreprocessConfig) -> Self {
        let size = u32::try_from(size).expect("checked with the model's configuration");
        Self { size, config }
    }

    /// Side of the square that the tower sees, in pixels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// What becomes of a picture's transparency.
    pub fn alpha(&self) -> Alpha {
        self.config.alpha
    }

    /// Decodes and prepares an image file.
    ///
    /// # Errors
    /// [`crate::ClipError::Io`] or [`crate::ClipError::Image`].
    pub fn load(&self, path: &Path) -> Result<Pixels> {
        Ok(self.prepare(&decode_file(path, self.config.alpha)?))
    }

    /// Decodes and prepares an image file's bytes as [`Preprocess::load`] does; `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`crate::ClipError::Image`].
    pub fn load_bytes(&self, bytes: &[u8], name: &Path) -> Result<Pixels> {
        Ok(self.prepare(&decode_memory(bytes, name, self.config.alpha)?))
    }

    /// The same for images of at most `max_pixels`.
    ///
    /// # Errors
    /// [`crate::ClipError::TooManyPixels`], [`crate::ClipError::Image`].
    pub fn load_bytes_within(&self, bytes: &[u8], name: &Path, max_pixels: u64) -> Result<Pixels> {
        Ok(self.prepare(&decode_memory_within(bytes, name, self.config.alpha, max_pixels)?))
    }

    /// Resizes, crops and normalises a decoded image.
    pub fn prepare(&self, image: &RgbImage) -> Pixels {
        self.normalize(&self.resize(image))
    }

    /// Resizes and crops to the square, as bytes: what Pillow and torchvision give, to the bit.
    pub fn resize(&self, image: &RgbImage) -> RgbImage {
        let (width, height) = image.dimensions();
        let side = self.size;
        let (to_width, to_height) = match self.config.resize_mode {
            ResizeMode::Squash => (side, side),
            ResizeMode::Shortest => {
                // torchvision: int(size * long / short)
                let long = |l: u32, s: u32| (f64::from(side) * f64::from(l) / f64::from(s)) as u32;
                if width <= height { (side, long(height, width)) } else { (long(width, height), side) }
            }
        };
        // torchvision's CenterCrop rounds half to even, as Python does.
        let offset = |length: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
        let region = Region { x: offset(to_width), y: offset(to_height), width: side, height: side };
        match self.config.interpolation {
            Interpolation::Bicubic => resize_bicubic(image, to_width, to_height, region),
        }
    }

    fn normalize(&self, image: &RgbImage) -> Pixels {
        // A byte has 256 values: torchvision's arithmetic, (value / 255 − mean) / std in f32, once for each.
        let tables: [[f32; 256]; 3] = std::array::from_fn(|c| {
            std::array::from_fn(|v| (v as f32 / 255.0 - self.config.mean[c]) / self.config.std[c])
        });
        let mut values = spare::take(image.as_raw().len());
        for pixel in image.as_raw().as_chunks::<3>().0 {
            values.extend([0, 1, 2].map(|c| tables[c][usize::from(pixel[c])]));
        }
        Pixels(values)
    }
}
