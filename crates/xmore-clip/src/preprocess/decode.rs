//! Image files to 8-bit RGB, with limits on what a file may make us allocate.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{DynamicImage, ImageReader, Limits, RgbImage};

use crate::error::{ClipError, Result};

/// Largest decoded image, in bytes: 170 megapixels of RGB.
const MAX_BYTES: u64 = 512 << 20;
/// Longest side, in pixels.
const MAX_SIDE: u32 = 1 << 16;

/// Decodes a JPEG, PNG or WebP file, telling the format from its content. Transparency is laid on white.
///
/// # Errors
/// [`ClipError::Io`] if it cannot be read, [`ClipError::Image`] if it is no image, broken, or too large.
pub fn decode_file(path: &Path) -> Result<RgbImage> {
    let file = File::open(path).map_err(|e| ClipError::io(path, e))?;
    decode(BufReader::with_capacity(1 << 16, file), path)
}

/// Decodes an image file's bytes; `name` stands for the file in errors.
///
/// # Errors
/// [`ClipError::Image`].
pub fn decode_memory(bytes: &[u8], name: &Path) -> Result<RgbImage> {
    decode(Cursor::new(bytes), name)
}

fn decode(reader: impl BufRead + Seek, path: &Path) -> Result<RgbImage> {
    let fail = |message: String| ClipError::Image { path: path.to_owned(), message };
    let mut reader = ImageReader::new(reader).with_guessed_format().map_err(|e| ClipError::io(path, e))?;
    if reader.format().is_none() {
        return Err(fail("it is neither JPEG, PNG nor WebP".into()));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| fail(e.to_string()))?;
    if image.width() == 0 || image.height() == 0 {
        return Err(fail("it has no pixels".into()));
    }
    Ok(flatten(image))
}

/// To RGB; transparent pixels as they look on white paper.
fn flatten(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
        image::Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgba, RgbaImage};

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.into().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn transparency_is_laid_on_white() {
        let mut image = RgbaImage::new(3, 1);
        image.put_pixel(0, 0, Rgba([10, 20, 30, 255]));
        image.put_pixel(1, 0, Rgba([10, 20, 30, 0]));
        image.put_pixel(2, 0, Rgba([0, 0, 0, 128]));
        let rgb = decode_memory(&png(image), Path::new("a.png")).unwrap();
        assert_eq!(rgb.as_raw(), &[10, 20, 30, 255, 255, 255, 127, 127, 127]);
    }

    #[test]
    fn a_broken_file_is_named() {
        let mut bytes = png(RgbaImage::new(40, 40));
        bytes.truncate(bytes.len() / 2);
        let message = decode_memory(&bytes, Path::new("half.png")).unwrap_err().to_string();
        assert!(message.starts_with("half.png: cannot decode"), "{message}");
        let message = decode_memory(b"hello", Path::new("hello.jpg")).unwrap_err().to_string();
        assert!(message.contains("neither JPEG"), "{message}");
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        // A PNG header that claims 60000 x 60000 pixels.
        let mut bytes = png(RgbaImage::new(1, 1));
        bytes[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let message = decode_memory(&bytes, Path::new("bomb.png")).unwrap_err().to_string();
        assert!(message.contains("bomb.png"), "{message}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
        })
    }
}
