//! TIFF to RGB.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::tiff::TiffDecoder;
use image::metadata::Orientation as Turn;

use super::input::{Input, Picture};
use super::{ImageError, image_crate};

/// Most memory that the decoder takes for the values of a directory, in bytes; about 32 for each byte of the file.
const DIRECTORY_BYTES: u64 = 256 << 20;

/// Decodes a TIFF file's first page: grey, RGB with or without alpha, CMYK, of 1, 8, 16 bits or float.
///
/// Of 16 bits the high byte is taken, also of grey, which Pillow cuts at 255; CMYK differs from Pillow's by rounding.
pub(super) fn decode(input: &Input) -> Result<Picture, ImageError> {
    let file = input.bytes.len() as u64;
    let mut decoder = TiffDecoder::new(Cursor::new(input.bytes)).map_err(|error| input.broken(error))?;
    let turn = input.turn(|| decoder.orientation().unwrap_or(Turn::NoTransforms));
    let sample = u64::from(decoder.color_type().bytes_per_pixel() / decoder.color_type().channel_count());
    // All samples once more before they are those of the image, of CMYK four; and one strip or tile as it is packed.
    let working = |pixels: u64| {
        let channels = 4.max(u64::from(decoder.color_type().channel_count()));
        pixels
            .saturating_mul(channels * sample)
            .saturating_add(file)
            .saturating_add((32 * file).min(DIRECTORY_BYTES))
    };
    let working = working(u64::from(decoder.dimensions().0) * u64::from(decoder.dimensions().1));
    image_crate::decode(input, decoder, turn, has_second_page(input.bytes), move |_| working)
}

/// Whether the first directory names another one.
fn has_second_page(bytes: &[u8]) -> bool {
    let little = bytes.starts_with(b"II");
    let number = |at: u64, size: usize| {
        let at = usize::try_from(at).ok()?;
        let field = bytes.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    };
    let next = || {
        let big = number(2, 2)? == 43;
        let (first, count, entry, offset) =
            if big { (number(8, 8)?, 8, 20, 8) } else { (number(4, 4)?, 2, 12, 4) };
        let entries = number(first, count)?.checked_mul(entry)?;
        number(first.checked_add(count as u64)?.checked_add(entries)?, offset)
    };
    next().is_some_and(|next| next != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_page_is_seen_in_both_byte_orders_and_sizes() {
        let entry = [0; 12];
        let little = |next: u32| [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &next.to_le_bytes()].concat();
        let big = |next: u32| [&b"MM\0*\0\0\0\x08\0\x01"[..], &entry, &next.to_be_bytes()].concat();
        let large = |next: u64| {
            [&b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..], &[0; 20], &next.to_le_bytes()]
                .concat()
        };
        for (one, two) in [(little(0), little(9)), (big(0), big(9)), (large(0), large(9))] {
            assert!(!has_second_page(&one) && has_second_page(&two));
            for end in 0..two.len() {
                assert!(!has_second_page(&two[..end]));
            }
        }
        assert!(!has_second_page(b"II*\0\xff\xff\xff\xff"));
        assert!(!has_second_page(&[b"II+\0\x08\0\0\0", &[0xff; 8][..]].concat()));
    }
}
