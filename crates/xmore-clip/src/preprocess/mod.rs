//! From a decoded image to the numbers that an image tower takes.

mod buffer_pool;
mod config;
mod interpolation;
mod naflex;
mod resize;

use std::path::Path;

use image::RgbImage;
use serde::Deserialize;
use xmore_files::image::{
    Alpha, DecodeOptions, Decoded, ImageError, MAX_PIXELS, Orientation, decode_bytes, decode_file,
};

pub(crate) use config::{Keys, PreprocessConfig};
pub use interpolation::Interpolation;
pub use naflex::{NaFlex, PatchGrid};
pub use resize::{Region, resize};

use crate::error::{ClipError, Result};
use resize::{Threads, resize_by};

/// How a photo of any shape becomes a square; the names are open_clip's.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// The short side becomes the square's, the middle is cut out: CLIP's way.
    #[default]
    Shortest,
    /// The long side becomes the square's, what is free is filled: nothing is cut off.
    Longest,
    /// Both sides become the square's, whatever the shape was: nothing is cut off.
    Squash,
}

impl ResizeMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Shortest, Self::Longest, Self::Squash];

    /// open_clip's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shortest => "shortest",
            Self::Longest => "longest",
            Self::Squash => "squash",
        }
    }
}

/// One image as a tower takes it: `[size, size, 3]`, normalized, channels last.
///
/// Its memory is used again for another image when it is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    values: Vec<f32>,
    /// How patches lie in the picture, where the values are those of patches.
    grid: Option<PatchGrid>,
}

impl Drop for Pixels {
    fn drop(&mut self) {
        buffer_pool::keep(std::mem::take(&mut self.values));
    }
}

impl Pixels {
    /// Values that were prepared elsewhere: `[size, size, 3]`, normalized, channels last. [`crate::Model::encode_images`] refuses another
    /// length than its tower's.
    pub fn new(values: Vec<f32>) -> Self {
        Self { values, grid: None }
    }

    /// Patches that were prepared elsewhere, `[rows * columns, patch * patch * 3]`, for a tower that takes pictures of any aspect.
    pub fn of_patches(values: Vec<f32>, grid: PatchGrid) -> Self {
        Self { values, grid: Some(grid) }
    }

    /// The values, `[size, size, 3]`, or `[rows * columns, patch * patch * 3]` where there is a [grid](Self::grid).
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// How patches lie in the picture, where the values are those of patches.
    pub fn grid(&self) -> Option<PatchGrid> {
        self.grid
    }
}

/// An image file that was decoded and prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// As the tower takes it.
    pub pixels: Pixels,
    /// Whether the file has further frames or pages, which are left out.
    pub first_of_several: bool,
    /// Whether it is more than twice as long one way as the other, and so mostly cut off or much distorted by the
    /// [resize mode](Preprocess::resize_mode).
    pub far_from_square: bool,
}

/// How an image becomes a square: the size it is resized to, the region of that which is wanted, and where that stands in the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) region: Region,
    pub(crate) x: u32,
    pub(crate) y: u32,
}

impl Placement {
    /// The middle of an image that was resized to at least the square.
    fn cut(width: u32, height: u32, side: u32) -> Self {
        // torchvision's CenterCrop, which open_clip uses, rounds half to even, as Python does. transformers' rounds half down: a model has
        // the same embeddings in either's layout, so one of them is taken for both.
        let offset = |length: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
        let region = Region { x: offset(width), y: offset(height), width: side, height: side };
        Self { width, height, region, x: 0, y: 0 }
    }
}

/// A model's preprocessing.
#[derive(Clone, Debug)]
pub struct Preprocess {
    size: u32,
    config: PreprocessConfig,
    orientation: Orientation,
    /// Instead of the configuration's.
    other_resize_mode: Option<ResizeMode>,
}

impl Preprocess {
    pub(crate) fn new(size: usize, config: PreprocessConfig) -> Self {
        let size = u32::try_from(size).expect("checked with the model's configuration");
        Self { size, config, orientation: Orientation::default(), other_resize_mode: None }
    }

    /// Side of the square that the tower sees, in pixels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Which way up images are decoded.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// How images become squares.
    pub fn resize_mode(&self) -> ResizeMode {
        self.other_resize_mode.unwrap_or(self.config.resize_mode)
    }

    /// The resize mode that was chosen, if it is another than that of the model's configuration.
    pub fn other_resize_mode(&self) -> Option<ResizeMode> {
        self.other_resize_mode
    }

    pub(crate) fn set_resize_mode(&mut self, mode: ResizeMode) {
        let other = mode != self.config.resize_mode || self.config.patches.is_some();
        self.other_resize_mode = other.then_some(mode);
    }

    pub(crate) fn set_orientation(&mut self, orientation: Orientation) {
        self.orientation = orientation;
    }

    /// The filter that images are resized with.
    pub fn interpolation(&self) -> Interpolation {
        self.config.interpolation
    }

    /// Whether a GPU may resize this model's images: its resize was compared with Pillow's for bicubic models alone.
    pub(crate) fn may_run_on_gpu(&self) -> bool {
        self.config.interpolation == Interpolation::Bicubic && self.config.patches.is_none()
    }

    /// The patches of a tower that takes pictures of any aspect, unless a resize mode was chosen.
    pub fn any_aspect(&self) -> Option<NaFlex> {
        self.config.patches.filter(|_| self.other_resize_mode.is_none())
    }

    /// Whether an image has as many values as the tower takes.
    pub(crate) fn expects(&self, pixels: &Pixels) -> bool {
        let (side, found) = (self.size as usize, pixels.values.len());
        match (self.config.patches, pixels.grid) {
            (Some(patches), Some(grid)) => patches.holds(grid) && found == patches.values(grid),
            (None, None) => found == side * side * 3,
            _ => false,
        }
    }

    /// What becomes of a picture's transparency.
    pub fn alpha(&self) -> Alpha {
        self.config.alpha
    }

    /// Decodes and prepares an image file.
    ///
    /// # Errors
    /// [`ClipError::Io`] or [`ClipError::Image`].
    pub fn load(&self, path: &Path) -> Result<Pixels> {
        match decode_file(path, self.config.alpha, &self.options(MAX_PIXELS)) {
            Ok(decoded) => Ok(self.prepare_decoded(decoded).pixels),
            Err(ImageError::Io(source)) => Err(ClipError::io(path, source)),
            Err(source) => Err(ClipError::Image { path: path.to_owned(), source }),
        }
    }

    /// Decodes and prepares an image file's bytes; `name` stands for the file in errors.
    ///
    /// May wait for [memory](xmore_files::image::decode_memory) that other decodes have, but for nothing else: it runs in the calling
    /// thread alone.
    ///
    /// # Errors
    /// [`ClipError::Image`].
    pub fn load_bytes(&self, bytes: &[u8], name: &Path) -> Result<Loaded> {
        self.load_bytes_within(bytes, name, MAX_PIXELS)
    }

    /// The same for images of at most `max_pixels`.
    ///
    /// # Errors
    /// [`ClipError::Image`].
    pub fn load_bytes_within(&self, bytes: &[u8], name: &Path, max_pixels: u64) -> Result<Loaded> {
        match decode_bytes(bytes, name, self.config.alpha, &self.options(max_pixels)) {
            Ok(decoded) => Ok(self.prepare_decoded(decoded)),
            Err(source) => Err(ClipError::Image { path: name.to_owned(), source }),
        }
    }

    pub(crate) fn options(&self, max_pixels: u64) -> DecodeOptions {
        DecodeOptions { orientation: self.orientation, max_pixels }
    }

    fn prepare_decoded(&self, decoded: Decoded) -> Loaded {
        let (width, height) = decoded.image().dimensions();
        Loaded {
            far_from_square: self.is_far_from_square(width, height),
            // A thread that holds a part of the memory for decoding must not wait for the pool's threads: they may wait for that memory.
            pixels: self.prepare_by(decoded.image(), Threads::Own),
            first_of_several: decoded.is_first_of_several(),
        }
    }

    /// Resizes, crops and normalizes a decoded image.
    pub fn prepare(&self, image: &RgbImage) -> Pixels {
        self.prepare_by(image, Threads::Pool)
    }

    fn prepare_by(&self, image: &RgbImage, threads: Threads) -> Pixels {
        let Some(patches) = self.config.patches else {
            return self.normalize(&self.resize_by(image, threads));
        };
        let square = self.other_resize_mode.is_some().then(|| self.resize_by(image, threads));
        let (grid, laid_out) =
            patches.patches_by(square.as_ref().unwrap_or(image), self.config.interpolation, threads);
        let mut pixels = self.normalize(&laid_out);
        pixels.grid = Some(grid);
        pixels
    }

    /// Resizes and crops to the square, as bytes: what Pillow and torchvision give, to the bit. A tower that takes pictures of any aspect is given
    /// that only where a resize mode was chosen.
    pub fn resize(&self, image: &RgbImage) -> RgbImage {
        self.resize_by(image, Threads::Pool)
    }

    fn resize_by(&self, image: &RgbImage, threads: Threads) -> RgbImage {
        let Placement { width, height, region, x, y } = self.placement(image.width(), image.height());
        let resized = resize_by(image, width, height, self.config.interpolation, region, threads);
        if resized.dimensions() == (self.size, self.size) {
            return resized;
        }
        let fill = image::Rgb([self.config.fill_color; 3]);
        let mut square = RgbImage::from_pixel(self.size, self.size, fill);
        image::imageops::replace(&mut square, &resized, x.into(), y.into());
        square
    }

    /// How an image of this size becomes a square.
    pub(crate) fn placement(&self, width: u32, height: u32) -> Placement {
        let side = self.size;
        match self.resize_mode() {
            ResizeMode::Squash => Placement::cut(side, side, side),
            ResizeMode::Shortest => {
                // torchvision: int(size * long / short)
                let long = |l: u32, s: u32| (f64::from(side) * f64::from(l) / f64::from(s)) as u32;
                if width <= height {
                    Placement::cut(side, long(height, width), side)
                } else {
                    Placement::cut(long(width, height), side, side)
                }
            }
            ResizeMode::Longest => {
                // Sizes and places are those of open_clip's `ResizeKeepRatio(longest=1)` and `CenterCropOrPad`.
                let ratio = f64::from(width.max(height)) / f64::from(side);
                // Nothing is left of the short side of a very long image in open_clip's formula, which then fails: one row stays here.
                let scaled =
                    |length: u32| ((f64::from(length) / ratio).round_ties_even() as u32).clamp(1, side);
                let (width, height) = (scaled(width), scaled(height));
                let region = Region { x: 0, y: 0, width, height };
                Placement { width, height, region, x: (side - width) / 2, y: (side - height) / 2 }
            }
        }
    }

    /// Value of the bytes of a square beside the image.
    pub(crate) fn fill_color(&self) -> u8 {
        self.config.fill_color
    }

    /// Whether an image of this size is mostly cut off or much distorted.
    pub(crate) fn is_far_from_square(&self, width: u32, height: u32) -> bool {
        let (short, long) = (u64::from(width.min(height)), u64::from(width.max(height)));
        let cut_or_distorted = match self.any_aspect() {
            Some(_) => false,
            None => self.resize_mode() != ResizeMode::Longest,
        };
        cut_or_distorted && 2 * short < long
    }

    /// What each value of a byte becomes in each channel: torchvision's arithmetic, (value / 255 − mean) / std in f32.
    pub(crate) fn normalized_bytes(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| {
            std::array::from_fn(|v| (v as f32 / 255.0 - self.config.mean[c]) / self.config.std[c])
        })
    }

    fn normalize(&self, image: &RgbImage) -> Pixels {
        let tables = self.normalized_bytes();
        let mut values = buffer_pool::take(image.as_raw().len());
        for pixel in image.as_raw().as_chunks::<3>().0 {
            values.extend([0, 1, 2].map(|c| tables[c][usize::from(pixel[c])]));
        }
        Pixels::new(values)
    }
}
