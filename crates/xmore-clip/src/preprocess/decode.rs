//! Image files to 8-bit RGB, with limits on what a file may make us allocate.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use serde::Deserialize;

use super::jpeg;
use crate::error::{ClipError, Result};

/// Largest file and largest decoded image, in bytes: 178 megapixels of RGB.
pub(super) const MAX_BYTES: u64 = 512 << 20;
/// The same in pixels.
const MAX_PIXELS: u64 = MAX_BYTES / 3;
/// Longest side, in pixels.
pub(super) const MAX_SIDE: u32 = 1 << 16;

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Alpha {
    /// Left out; the colours below it, which nobody sees, come out. CLIP's way, as Pillow's `convert("RGB")`.
    #[default]
    Drop,
    /// Laid on white paper.
    White,
}

/// Decodes a JPEG, PNG or WebP file, telling the format from its content.
///
/// The bytes are those of Pillow's `convert("RGB")` where `alpha` is [`Alpha::Drop`], also of a photo's orientation, which is not
/// looked at. But for 16-bit grey, which Pillow cuts at 255: here, as with colours, the high byte is taken.
///
/// # Errors
/// [`ClipError::Io`] if it cannot be read, [`ClipError::Image`] if it is no image, broken, or too large.
pub fn decode_file(path: &Path, alpha: Alpha) -> Result<RgbImage> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    decode_memory(&read().map_err(|e| ClipError::io(path, e))?, path, alpha)
}

/// Decodes an image file's bytes as [`decode_file`] does; `name` stands for the file in errors.
///
/// # Errors
/// [`ClipError::Image`].
pub fn decode_memory(bytes: &[u8], name: &Path, alpha: Alpha) -> Result<RgbImage> {
    decode_memory_within(bytes, name, alpha, MAX_PIXELS)
}

/// The same for images of at most `max_pixels`: a stranger's file of some kilobytes can claim gigabytes of pixels. The claim is checked
/// before anything is allocated for it; the work that a JPEG's scans may ask for is bounded with it.
///
/// # Errors
/// [`ClipError::TooManyPixels`], [`ClipError::Image`].
pub fn decode_memory_within(bytes: &[u8], name: &Path, alpha: Alpha, max_pixels: u64) -> Result<RgbImage> {
    let limit = max_pixels.min(MAX_PIXELS);
    decode(bytes, alpha, limit).map_err(|refusal| match refusal {
        Refusal::Pixels { width, height } => {
            ClipError::TooManyPixels { path: name.to_owned(), width, height, limit }
        }
        Refusal::Other(message) => ClipError::Image { path: name.to_owned(), message },
    })
}

/// Why an image is not decoded.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has, or claims, more pixels than are allowed.
    Pixels {
        /// In pixels.
        width: u64,
        /// In pixels.
        height: u64,
    },
    /// What is wrong with it.
    Other(String),
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

fn decode(bytes: &[u8], alpha: Alpha, max_pixels: u64) -> std::result::Result<RgbImage, Refusal> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {} MiB", MAX_BYTES >> 20).into());
    }
    let format = image::guess_format(bytes).ok();
    let kept;
    let bytes = match format {
        Some(ImageFormat::Png) => {
            kept = without_profile(bytes);
            &kept
        }
        _ => bytes,
    };
    let mut reader = match format {
        Some(ImageFormat::Jpeg) => return jpeg::decode(bytes, max_pixels),
        Some(format @ (ImageFormat::Png | ImageFormat::WebP)) => {
            ImageReader::with_format(Cursor::new(bytes), format)
        }
        _ => return Err("it is neither JPEG, PNG nor WebP".to_owned().into()),
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (u64::from(width), u64::from(height));
    if width * height > max_pixels {
        return Err(Refusal::Pixels { width, height });
    }
    if width * height == 0 {
        return Err("it has no pixels".to_owned().into());
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    Ok(flatten(narrow(image), alpha))
}

/// A PNG without colour profiles: nobody looks at them here, and the decoder would unpack half a megabyte to 512.
fn without_profile(png: &[u8]) -> Cow<'_, [u8]> {
    let mut spans = Vec::new();
    let (mut at, mut begin) = (8, 0);
    while let Some(&[a, b, c, d, ref kind @ ..]) = png.get(at..at + 8)
        && kind != b"IDAT"
    {
        let end = at.saturating_add(u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(12);
        if kind == b"iCCP" {
            spans.push(&png[begin..at]);
            begin = end.min(png.len());
        }
        at = end.min(png.len());
    }
    if spans.is_empty() {
        return Cow::Borrowed(png);
    }
    spans.push(&png[begin..]);
    Cow::Owned(spans.concat())
}

/// Of 16 bits the high byte, as Pillow takes it.
fn narrow(image: DynamicImage) -> DynamicImage {
    fn high<P: image::Pixel<Subpixel = u16>, Q: image::Pixel<Subpixel = u8>>(
        wide: image::ImageBuffer<P, Vec<u16>>,
    ) -> image::ImageBuffer<Q, Vec<u8>> {
        let (width, height) = wide.dimensions();
        let bytes = wide.into_raw().into_iter().map(|v| (v >> 8) as u8).collect();
        image::ImageBuffer::from_raw(width, height, bytes).expect("as many channels as before")
    }
    match image {
        DynamicImage::ImageLuma16(wide) => DynamicImage::ImageLuma8(high(wide)),
        DynamicImage::ImageLumaA16(wide) => DynamicImage::ImageLumaA8(high(wide)),
        DynamicImage::ImageRgb16(wide) => DynamicImage::ImageRgb8(high(wide)),
        DynamicImage::ImageRgba16(wide) => DynamicImage::ImageRgba8(high(wide)),
        narrow => narrow,
    }
}

fn flatten(image: DynamicImage, alpha: Alpha) -> RgbImage {
    if alpha == Alpha::Drop || !image.color().has_alpha() {
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
    fn transparency_is_dropped_or_laid_on_white() {
        let mut image = RgbaImage::new(3, 1);
        image.put_pixel(0, 0, Rgba([10, 20, 30, 255]));
        image.put_pixel(1, 0, Rgba([10, 20, 30, 0]));
        image.put_pixel(2, 0, Rgba([0, 0, 0, 128]));
        let decode = |alpha| decode_memory(&png(image.clone()), Path::new("a.png"), alpha).unwrap();
        assert_eq!(decode(Alpha::White).as_raw(), &[10, 20, 30, 255, 255, 255, 127, 127, 127]);
        assert_eq!(decode(Alpha::Drop).as_raw(), &[10, 20, 30, 10, 20, 30, 0, 0, 0]);
    }

    #[test]
    fn a_broken_file_is_named() {
        let mut bytes = png(RgbaImage::new(40, 40));
        bytes.truncate(bytes.len() / 2);
        let message = decode_memory(&bytes, Path::new("half.png"), Alpha::Drop).unwrap_err().to_string();
        assert!(message.starts_with("half.png: cannot decode"), "{message}");
        let message = decode_memory(b"hello", Path::new("hello.jpg"), Alpha::Drop).unwrap_err().to_string();
        assert!(message.contains("neither JPEG"), "{message}");
    }

    #[test]
    fn more_pixels_than_allowed_are_refused_by_their_header() {
        let bytes = png(RgbaImage::new(40, 30));
        let within =
            |bytes: &[u8], limit| decode_memory_within(bytes, Path::new("a.png"), Alpha::Drop, limit);
        assert!(within(&bytes, 1200).is_ok());
        let refused = within(&bytes[..60], 1199).unwrap_err();
        assert!(
            matches!(refused, ClipError::TooManyPixels { width: 40, height: 30, limit: 1199, .. }),
            "{refused}"
        );
        let jpeg = include_bytes!("../../tests/fixtures/preprocess/rgb_420.jpg");
        assert!(matches!(within(jpeg, 100), Err(ClipError::TooManyPixels { .. })));
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        // A PNG header that claims 60000 x 60000 pixels.
        let mut bytes = png(RgbaImage::new(1, 1));
        bytes[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let message = decode_memory(&bytes, Path::new("bomb.png"), Alpha::Drop).unwrap_err().to_string();
        assert!(message.contains("bomb.png"), "{message}");
    }

    #[test]
    fn profiles_are_cut_out_of_a_png_and_nothing_else() {
        let plain = png(RgbaImage::new(3, 3));
        let (head, rest) = plain.split_at(33);
        let chunk = |kind: &[u8; 4], length: u32| [&length.to_be_bytes()[..], kind, &[7; 9]].concat();
        let (profile, other) = (chunk(b"iCCP", 5), chunk(b"tEXt", 5));
        let cut = |parts: &[&[u8]]| without_profile(&parts.concat()).into_owned();
        assert_eq!(cut(&[head, &profile, rest]), plain);
        assert_eq!(cut(&[head, &profile, &other, &profile, rest]), [head, &other, rest].concat());
        // Behind the pixels it is no profile.
        assert_eq!(cut(&[&plain, &profile]), [&plain[..], &profile].concat());
        // One that claims more than there is.
        for length in [6, 1000, u32::MAX] {
            assert_eq!(cut(&[head, &chunk(b"iCCP", length)]), head, "{length}");
        }
        for end in 0..plain.len() {
            assert_eq!(cut(&[&plain[..end]]), &plain[..end]);
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
        })
    }
}
