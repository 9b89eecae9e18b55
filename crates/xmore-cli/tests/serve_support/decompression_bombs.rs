//! Images that claim to be, or are, far larger than their files.

use std::fs;
use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::support::fixture;

/// A file among the fixtures of the preprocessing.
pub fn sample(name: &str) -> Vec<u8> {
    fs::read(fixture("preprocess").join(name)).unwrap()
}

/// A grey PNG of one color, as small as it gets.
pub fn flat_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::NoFilter)
        .write_image(&vec![0; width as usize * height as usize], width, height, ExtendedColorType::L8)
        .unwrap();
    png.into_inner()
}

/// A PNG of 16 bits a channel with transparency, 8 bytes a pixel, as small as it gets.
pub fn flat_rgba16_png(width: u32, height: u32) -> Vec<u8> {
    // Its rows are those of a grey one that is eight times as wide.
    let mut png = flat_png(8 * width, height);
    png[24..26].copy_from_slice(&[16, 6]);
    claiming_png(&png, width, height)
}

/// A PNG whose header claims another size; its checksum is right.
pub fn claiming_png(png: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut png = png.to_vec();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

/// A small PNG with a color profile that unpacks to 100 MB.
pub fn profile_bomb(png: &[u8]) -> Vec<u8> {
    // A flat picture's pixels are a packed stream of zeros.
    let packed = chunks(&flat_png(10_000, 10_000), b"IDAT");
    let content = [b"iCCPx\0\0", &packed[..]].concat();
    let mut chunk = (content.len() as u32 - 4).to_be_bytes().to_vec();
    chunk.extend(&content);
    chunk.extend(crc(&content).to_be_bytes());
    // Behind the header.
    [&png[..33], &chunk, &png[33..]].concat()
}

/// A JPEG whose frame header (of this marker) claims another size.
pub fn claiming_jpeg(jpeg: &[u8], frame: u8, width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = jpeg.to_vec();
    let at = jpeg.windows(2).rposition(|pair| pair == [0xff, frame]).unwrap();
    jpeg[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

/// A progressive JPEG whose last scan comes many times.
pub fn many_scans(scans: usize) -> Vec<u8> {
    let jpeg = sample("progressive_420.jpg");
    let body = &jpeg[..jpeg.len() - 2];
    let last = body.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    [body, &body[last..].repeat(scans), &[0xff, 0xd9]].concat()
}

/// A lossless WebP that claims 16,383 × 16,383.
pub fn claiming_webp_lossless() -> Vec<u8> {
    let mut webp = sample("lossless.webp");
    let at = webp.windows(4).position(|four| four == b"VP8L").unwrap() + 9;
    let kept = webp[at + 3] & 0xf0;
    webp[at..at + 4].copy_from_slice(&[0xfe, 0xbf, 0xff, 0x0f | kept]);
    webp
}

/// A lossy WebP that claims 16,383 × 16,383.
pub fn claiming_webp_lossy() -> Vec<u8> {
    let mut webp = sample("lossy.webp");
    let at = webp.windows(3).position(|three| three == [0x9d, 0x01, 0x2a]).unwrap() + 3;
    webp[at..at + 4].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    webp
}

/// A WebP behind the header of an extended one, whose canvas claims a size.
pub fn on_canvas(webp: &[u8], width: u32, height: u32) -> Vec<u8> {
    let side = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    let canvas = [&b"VP8X\x0a\0\0\0\0\0\0\0"[..], &side(width), &side(height)].concat();
    let length = (webp.len() - 8 + canvas.len()) as u32;
    [b"RIFF", &length.to_le_bytes()[..], b"WEBP", &canvas, &webp[12..]].concat()
}

/// The content of all chunks of a name.
fn chunks(png: &[u8], name: &[u8; 4]) -> Vec<u8> {
    let (mut at, mut all) = (8, Vec::new());
    while at + 8 <= png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        if &png[at + 4..at + 8] == name {
            all.extend_from_slice(&png[at + 8..at + 8 + length]);
        }
        at += length + 12;
    }
    all
}

/// CRC-32 as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(
            sum ^ u32::from(byte),
            |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 },
        )
    })
}
