//! WebP to RGB.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation as Turn;

use super::input::{Input, Picture};
use super::{ImageError, exif, image_crate};

/// What the chunks of a file say before it is decoded.
#[derive(Debug, Default, PartialEq)]
struct Chunks<'a> {
    exif: Option<&'a [u8]>,
    frames: usize,
    lossless: bool,
    alpha: bool,
    /// Pixels that the largest lossy bitstream claims: its decoder allocates for them before it compares them with the header's.
    lossy_pixels: u64,
}

/// Decodes a WebP file's bytes; of an animated one the first frame.
pub(super) fn decode(input: &Input) -> Result<Picture, ImageError> {
    let mut chunks = Chunks::default();
    chunks.walk(input.bytes.get(12..).unwrap_or_default());
    let decoder = WebPDecoder::new(Cursor::new(input.bytes)).map_err(|error| input.broken(error))?;
    let turn = input.turn(|| chunks.exif.map_or(Turn::NoTransforms, exif::turn_of));
    let working = |pixels: u64| {
        // Lossy: planes, rounded up to blocks. Alpha: RGBA, its green, and what is filtered.
        let lossy = chunks.lossy_pixels.max(if chunks.lossless { 0 } else { pixels }) * 3 / 2;
        let alpha = if chunks.alpha { 6 * pixels } else { 0 };
        // RGBA, transforms of blocks of 16 pixels and more.
        let lossless = if chunks.lossless { 5 * pixels } else { 0 };
        // A frame, and the canvas that it is drawn on.
        let animated = if chunks.frames > 0 { 8 * pixels } else { 0 };
        lossy + alpha + lossless + animated + (1 << 20)
    };
    image_crate::decode(input, decoder, turn, chunks.frames > 1, working)
}

impl<'a> Chunks<'a> {
    fn walk(&mut self, mut rest: &'a [u8]) {
        while let Some((&[a, b, c, d, l0, l1, l2, l3], body)) = rest.split_first_chunk::<8>() {
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let (data, after) = body.split_at(length.min(body.len()));
            match &[a, b, c, d] {
                b"EXIF" => self.exif = self.exif.or(Some(data)),
                b"ANMF" => {
                    self.frames += 1;
                    // Frames hold chunks of their own behind 16 bytes of place and time.
                    if self.frames == 1 {
                        self.walk(data.get(16..).unwrap_or_default());
                    }
                }
                b"VP8L" => self.lossless = true,
                b"ALPH" => self.alpha = true,
                b"VP8 " => {
                    if let Some(&[w0, w1, h0, h1]) = data.get(6..10) {
                        let side = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x3fff);
                        self.lossy_pixels = self.lossy_pixels.max(side(w0, w1) * side(h0, h1));
                    }
                }
                _ => {}
            }
            rest = after.get(length % 2..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut chunk = [&kind[..], &(body.len() as u32).to_le_bytes(), body].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    }

    #[test]
    fn chunks_are_found_at_any_place() {
        let lossy = chunk(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 100, 0, 50, 0x40]);
        let frame = chunk(b"ANMF", &[&[0; 16][..], &chunk(b"ALPH", b"odd"), &lossy].concat());
        let file = [chunk(b"VP8X", &[0; 10]), frame.clone(), frame, chunk(b"EXIF", b"MM")].concat();
        let mut chunks = Chunks::default();
        chunks.walk(&file);
        let expected =
            Chunks { exif: Some(b"MM"), frames: 2, lossless: false, alpha: true, lossy_pixels: 5000 };
        assert_eq!(chunks, expected);
        for end in 0..file.len() {
            Chunks::default().walk(&file[..end]);
        }
    }
}
