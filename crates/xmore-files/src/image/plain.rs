//! BMP, GIF, PNM, QOI and TGA to RGB: formats without orientation, each a call of its decoder in the `image` crate.

use std::io::{BufReader, Cursor};

use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::pnm::PnmDecoder;
use image::codecs::qoi::QoiDecoder;
use image::codecs::tga::TgaDecoder;
use image::metadata::Orientation as Turn;

use super::input::{Input, Picture};
use super::{ImageError, image_crate};

/// Decodes a Windows bitmap.
pub(super) fn bmp(input: &Input) -> Result<Picture, ImageError> {
    let decoder = BmpDecoder::new(Cursor::new(input.bytes)).map_err(|error| input.broken(error))?;
    image_crate::decode(input, decoder, Turn::NoTransforms, false, |_| 0)
}

/// Decodes a GIF's first frame. What the frame leaves of the screen is transparent black.
pub(super) fn gif(input: &Input) -> Result<Picture, ImageError> {
    let decoder = GifDecoder::new(Cursor::new(input.bytes)).map_err(|error| input.broken(error))?;
    // A frame that is not as large as the screen is decoded beside it.
    image_crate::decode(input, decoder, Turn::NoTransforms, gif_frames(input.bytes) > 1, |pixels| 4 * pixels)
}

/// Decodes a portable bitmap, graymap, pixmap or arbitrary map; of several in a file the first.
pub(super) fn pnm(input: &Input) -> Result<Picture, ImageError> {
    let decoder = PnmDecoder::new(Cursor::new(input.bytes)).map_err(|error| input.broken(error))?;
    image_crate::decode(input, decoder, Turn::NoTransforms, false, |pixels| pixels)
}

/// Decodes a QOI file.
pub(super) fn qoi(input: &Input) -> Result<Picture, ImageError> {
    // Byte by byte is how the decoder reads.
    let reader = BufReader::new(Cursor::new(input.bytes));
    let decoder = QoiDecoder::new(reader).map_err(|error| input.broken(error))?;
    image_crate::decode(input, decoder, Turn::NoTransforms, false, |_| 0)
}

/// Decodes a Targa file, whose own header says from which corner its rows go.
pub(super) fn tga(input: &Input) -> Result<Picture, ImageError> {
    let decoder = TgaDecoder::new(Cursor::new(input.bytes)).map_err(|error| input.broken(error))?;
    if decoder.dimensions() == (0, 0) {
        return Err(input.broken("it has no pixels"));
    }
    // Indices or 16-bit pixels before they are expanded.
    image_crate::decode(input, decoder, Turn::NoTransforms, false, |pixels| 2 * pixels)
}

/// Frames of a GIF, counted up to two; broken ones end the count.
fn gif_frames(bytes: &[u8]) -> usize {
    fn blocks(mut rest: &[u8]) -> Option<&[u8]> {
        loop {
            let (&length, after) = rest.split_first()?;
            rest = after.get(usize::from(length)..)?;
            if length == 0 {
                return Some(rest);
            }
        }
    }
    let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut frames = 0;
    let mut walk = || {
        let mut rest = bytes.get(13 + palette(*bytes.get(10)?)..)?;
        while frames < 2 {
            let (&kind, after) = rest.split_first()?;
            match kind {
                // An extension and its label.
                0x21 => rest = blocks(after.get(1..)?)?,
                // A frame: place and flags, palette, the size of its codes.
                0x2c => {
                    frames += 1;
                    rest = blocks(after.get(9 + palette(*after.get(8)?) + 1..)?)?;
                }
                _ => return None,
            }
        }
        Some(())
    };
    walk();
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_gif_are_counted_up_to_two() {
        let screen = b"GIF89a\x01\0\x01\0\x80\0\0aaabbb";
        let extension = b"\x21\xf9\x04\0\0\0\0\0";
        let frame = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0";
        let frames = |parts: &[&[u8]]| gif_frames(&parts.concat());
        assert_eq!(frames(&[screen, b";"]), 0);
        assert_eq!(frames(&[screen, frame, b";"]), 1);
        assert_eq!(frames(&[screen, extension, frame, b";"]), 1);
        assert_eq!(frames(&[screen, extension, frame, extension, frame, frame, b";"]), 2);
        let whole = [&screen[..], extension, frame, frame].concat();
        for end in 0..whole.len() {
            gif_frames(&whole[..end]);
        }
    }
}
