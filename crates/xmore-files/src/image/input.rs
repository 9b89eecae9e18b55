//! What a decoder is given, and what it gives.

use std::fmt::Display;

use image::RgbImage;
use image::metadata::Orientation as Turn;

use super::budget::{self, Reservation};
use super::{Alpha, DecodeOptions, ImageError, MAX_PIXELS, MAX_SIDE, Orientation};

/// One image file's bytes and what is wanted of them.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    /// The format's name, for errors.
    pub(super) format: &'static str,
    pub(super) alpha: Alpha,
    pub(super) options: DecodeOptions,
}

/// A decoded image, with the memory that is reserved for it.
pub(super) struct Picture {
    pub(super) image: RgbImage,
    /// Whether the file has more frames or pages than this one.
    pub(super) several: bool,
    pub(super) reservation: Reservation,
}

impl Input<'_> {
    /// Checks the size that a header claims, and waits until its memory is free: the file, the RGB pixels, and `working` bytes of the
    /// decoder's own. To be called before anything is allocated by that size.
    pub(super) fn admit(&self, width: u32, height: u32, working: u64) -> Result<Reservation, ImageError> {
        let (width, height) = (u64::from(width), u64::from(height));
        self.check_size(width, height)?;
        let needed = self.kept(width * height).saturating_add(working);
        budget::process().take(needed).map_err(|never| ImageError::TooMuchMemory {
            width,
            height,
            needed,
            budget: never.capacity,
        })
    }

    /// Checks the size that a header claims against the limits of all images.
    pub(super) fn check_size(&self, width: u64, height: u64) -> Result<(), ImageError> {
        let pixels = width * height;
        let limit = self.options.max_pixels.min(MAX_PIXELS);
        if pixels > limit {
            return Err(ImageError::TooManyPixels { width, height, limit });
        }
        if width.max(height) > u64::from(MAX_SIDE) {
            return Err(ImageError::SideTooLong { width, height, limit: MAX_SIDE });
        }
        if pixels == 0 {
            return Err(self.broken("it has no pixels"));
        }
        Ok(())
    }

    /// Bytes that are taken as long as the decoded image is there.
    pub(super) fn kept(&self, pixels: u64) -> u64 {
        self.bytes.len() as u64 + 3 * pixels
    }

    /// The turn to apply, where `stored` finds the one that the file tells.
    pub(super) fn turn(&self, stored: impl FnOnce() -> Turn) -> Turn {
        match self.options.orientation {
            Orientation::Exif => stored(),
            Orientation::Stored => Turn::NoTransforms,
        }
    }

    pub(super) fn broken(&self, message: impl Display) -> ImageError {
        ImageError::Broken { format: self.format, message: message.to_string() }
    }
}
