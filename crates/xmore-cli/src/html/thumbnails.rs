//! Thumbnails of pictures, embedded in a page.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use maud::{Markup, html};

use crate::error::{CliError, Result};

/// Longest side of an embedded picture, in pixels.
const SIDE: u32 = 160;
const JPEG_QUALITY: u8 = 82;

/// A small JPEG copy of a picture.
pub(crate) struct Thumbnail {
    data: String,
    width: u32,
    height: u32,
}

impl Thumbnail {
    /// Makes one; `path` is the picture's name for errors.
    pub(crate) fn of(picture: &RgbImage, path: &Path) -> Result<Self> {
        let (width, height) = fitting(picture.width(), picture.height());
        let picture = resize(picture, width, height, FilterType::CatmullRom);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY).encode_image(&picture).map_err(|e| {
            CliError::Io { action: "make a thumbnail of", path: path.to_owned(), reason: io::Error::other(e) }
        })?;
        Ok(Self { data: format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)), width, height })
    }

    /// The `img`, with an alternative text.
    pub(crate) fn img(&self, alt: &str) -> Markup {
        html! { img src=(self.data) width=(self.width) height=(self.height) loading="lazy" alt=(alt); }
    }
}

/// The size inside [`SIDE`] that keeps the proportions; never larger than the picture, at least one pixel.
fn fitting(width: u32, height: u32) -> (u32, u32) {
    let scale = (f64::from(SIDE) / f64::from(width.max(height))).min(1.0);
    let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit() {
        assert_eq!(fitting(640, 480), (160, 120));
        assert_eq!(fitting(100, 50), (100, 50));
        assert_eq!(fitting(10_000, 3), (160, 1));
    }
}
