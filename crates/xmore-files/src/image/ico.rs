//! ICO to RGB: the largest of an icon's images.

use std::io::Cursor;

use image::codecs::ico::IcoDecoder;
use image::metadata::Orientation as Turn;

use super::input::{Input, Picture};
use super::{ImageError, image_crate, png};

/// Decodes the largest image of an icon; among several of one size that with the most bits a pixel (Pillow takes the one with the fewest).
pub(super) fn decode(input: &Input) -> Result<Picture, ImageError> {
    let count = usize::from(u16::from_le_bytes(
        *input.bytes.get(4..).and_then(<[u8]>::first_chunk).ok_or_else(|| input.broken("no directory"))?,
    ));
    let (entries, _) = input.bytes[6..].as_chunks::<16>();
    let side = |byte: u8| if byte == 0 { 256 } else { u32::from(byte) };
    let size =
        |entry: &&[u8; 16]| (side(entry[0]) * side(entry[1]), u16::from_le_bytes([entry[6], entry[7]]));
    let best = entries.iter().take(count).max_by_key(size).ok_or_else(|| input.broken("no image"))?;
    let number = |at: usize| u32::from_le_bytes([best[at], best[at + 1], best[at + 2], best[at + 3]]);
    let (length, offset) = (number(8) as usize, number(12) as usize);
    let data = input.bytes.get(offset..).ok_or_else(|| input.broken("its image lies behind its end"))?;
    let data = &data[..length.min(data.len())];
    if data.starts_with(b"\x89PNG\r\n\x1a\n") {
        return png::decode(&Input { bytes: data, ..*input });
    }
    // The decoder chooses by other rules, so it is given a file of one image.
    let mut single = [&[0, 0, 1, 0, 1, 0][..], &best[..12], &22u32.to_le_bytes()].concat();
    single.extend_from_slice(data);
    let copied = single.len() as u64;
    let decoder = IcoDecoder::new(Cursor::new(single)).map_err(|error| input.broken(error))?;
    image_crate::decode(input, decoder, Turn::NoTransforms, false, |_| copied)
}
