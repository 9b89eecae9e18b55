//! Image files: which formats there are, and decoding them to upright 8-bit RGB within limits.
//!
//! All decodes of a process share one budget of memory ([`set_decode_memory`]). An image's size is checked against it by its header, before
//! anything is allocated by that size; a decode waits while its memory is not free, and is refused where the whole budget is too small.

mod budget;
mod canvas;
mod error;
mod exif;
mod formats;
mod ico;
mod image_crate;
mod input;
mod jpeg;
mod plain;
mod png;
mod tiff;
mod webp;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::str::FromStr;

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

pub use budget::{decode_memory, set_decode_memory};
pub use canvas::{Layout, Samples, to_rgb};
pub use error::ImageError;
pub use formats::{HEAD_BYTES, IMAGE_FORMATS, ImageFormat};
pub use jpeg::JpegHeader;

use crate::read_bounded;
use budget::Reservation;
use input::{Input, Picture};

/// Largest encoded file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Longest side that is read, in pixels.
pub const MAX_SIDE: u32 = 1 << 16;
/// Most pixels that are read, whatever the budget of memory allows.
pub const MAX_PIXELS: u64 = 1 << 30;

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Alpha {
    /// Ignored: transparent pixels get the color that is stored for them. CLIP's way, as Pillow's `convert("RGB")`.
    #[default]
    Drop,
    /// Blended with white.
    White,
}

/// Which way up an image is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Hash, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    /// As its metadata says: Exif of JPEG, PNG and WebP, TIFF's own tag. What a viewer shows, and transformers' loader gives.
    #[default]
    Exif,
    /// As its pixels are stored: the reference's behavior in open_clip, and so that of published figures.
    Stored,
}

impl Orientation {
    /// [`Orientation::Stored`], which is meant where none is recorded: by files of versions that did not record it.
    pub fn stored() -> Self {
        Self::Stored
    }

    /// Whether it is [`Orientation::Stored`].
    pub fn is_stored(&self) -> bool {
        *self == Self::Stored
    }

    /// As it is written on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exif => "exif",
            Self::Stored => "stored",
        }
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Orientation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exif" => Ok(Self::Exif),
            "stored" => Ok(Self::Stored),
            _ => Err("expected `exif` or `stored`".to_owned()),
        }
    }
}

/// How images are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Which way up.
    pub orientation: Orientation,
    /// Images of more pixels are refused by their header; [`MAX_PIXELS`] at most.
    pub max_pixels: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { orientation: Orientation::default(), max_pixels: MAX_PIXELS }
    }
}

impl DecodeOptions {
    /// The default options with another orientation.
    pub fn with_orientation(orientation: Orientation) -> Self {
        Self { orientation, ..Self::default() }
    }
}

/// A decoded image. It counts against [`decode_memory`] until it is dropped.
///
/// A thread of a pool that holds one must not wait for other tasks of the pool, since it might be given one that decodes too, which
/// would wait for this one's memory forever. [`Decoded::into_image`] lifts this restriction.
pub struct Decoded {
    image: RgbImage,
    format: &'static ImageFormat,
    several: bool,
    _reservation: Reservation,
}

impl Decoded {
    /// The pixels.
    pub fn image(&self) -> &RgbImage {
        &self.image
    }

    /// The file's format.
    pub fn format(&self) -> &'static ImageFormat {
        self.format
    }

    /// Whether the file has further frames or pages, which are left out.
    pub fn is_first_of_several(&self) -> bool {
        self.several
    }

    /// The pixels alone, counted no longer.
    pub fn into_image(self) -> RgbImage {
        self.image
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded({} of {}x{})", self.format, self.image.width(), self.image.height())
    }
}

/// Decodes an image file, telling the format from its content.
///
/// The bytes are those of Pillow's `convert("RGB")` (after `exif_transpose` with [`Orientation::Exif`]) where `alpha` is [`Alpha::Drop`].
/// But for 16-bit grey, which Pillow cuts at 255: here, as with colors, the high byte is taken.
///
/// # Errors
/// [`ImageError::Io`] if it cannot be read, the others if it is not decoded.
pub fn decode_file(path: &Path, alpha: Alpha, options: &DecodeOptions) -> Result<Decoded, ImageError> {
    let bytes = read_bounded(path, MAX_FILE_BYTES)?;
    decode_bytes(&bytes, path, alpha, options)
}

/// Decodes an image file's bytes as [`decode_file`] does. `name` tells formats that have no signature (TGA).
///
/// # Errors
/// [`ImageError`], but [`ImageError::Io`].
pub fn decode_bytes(
    bytes: &[u8],
    name: &Path,
    alpha: Alpha,
    options: &DecodeOptions,
) -> Result<Decoded, ImageError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ImageError::FileTooLarge { limit: MAX_FILE_BYTES });
    }
    let format = ImageFormat::of_bytes(name, bytes).ok_or_else(unknown_format)?;
    let decode = format.decode.ok_or(ImageError::NotRead { format: format.name })?;
    let input = Input { bytes, format: format.name, alpha, options: *options };
    // libjpeg's errors unwind, past the panic hook. Other decoders should not, but they read untrusted data.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(&input)))
        .unwrap_or_else(|payload| Err(input.broken(unwound(payload.as_ref()))));
    let Picture { image, several, mut reservation } = decoded?;
    reservation.shrink(input.kept(u64::from(image.width()) * u64::from(image.height())));
    Ok(Decoded { image, format, several, _reservation: reservation })
}

/// Reads what a decoder other than this crate's has to know of a JPEG file. `None` where it is no JPEG file, or one beyond the limits of this crate, those of
/// memory aside.
pub fn inspect_jpeg(bytes: &[u8], options: &DecodeOptions) -> Option<JpegHeader> {
    let format = ImageFormat::of_bytes(Path::new(""), bytes)?;
    let is_jpeg = format.media_types.contains(&"image/jpeg");
    if !is_jpeg || bytes.len() as u64 > MAX_FILE_BYTES {
        return None;
    }
    jpeg::header(&Input { bytes, format: format.name, alpha: Alpha::default(), options: *options }).ok()
}

fn unknown_format() -> ImageError {
    let known: Vec<&str> = ImageFormat::read().map(|format| format.name).collect();
    ImageError::UnknownFormat { known: known.join(", ") }
}

fn unwound(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("the decoder failed")
}
