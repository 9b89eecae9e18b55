//! Small copies of the pictures, as the report embeds them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use maud::{Markup, html};
use xmore_clip::{Alpha, decode_file};

use super::super::findings::Findings;
use super::super::io_error;
use crate::error::Result;

/// Longest side of an embedded picture, in pixels.
const SIDE: u32 = 160;
const JPEG_QUALITY: u8 = 82;

/// Makes each picture's small copy once.
pub(super) struct Pictures<'a> {
    findings: &'a Findings,
    made: RefCell<HashMap<usize, Small>>,
}

#[derive(Clone)]
struct Small {
    data: String,
    width: u32,
    height: u32,
}

impl<'a> Pictures<'a> {
    pub fn of(findings: &'a Findings) -> Self {
        Self { findings, made: RefCell::default() }
    }

    /// An `img` of a pair's picture, with the caption as its alternative text.
    pub fn img(&self, pair: usize) -> Result<Markup> {
        let small = self.small(pair)?;
        Ok(html! {
            img src=(small.data) width=(small.width) height=(small.height) loading="lazy"
                alt=(self.findings.set.pairs[pair].caption);
        })
    }

    fn small(&self, pair: usize) -> Result<Small> {
        if let Some(small) = self.made.borrow().get(&pair) {
            return Ok(small.clone());
        }
        let path = &self.findings.set.pairs[pair].image;
        // As the model sees it: transparency on white.
        let picture = decode_file(path, Alpha::White)?;
        let (width, height) = fitting(picture.width(), picture.height());
        let picture = resize(&picture, width, height, FilterType::CatmullRom);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
            .encode_image(&picture)
            .map_err(|e| io_error("make a small copy of", path, io::Error::other(e)))?;
        let small =
            Small { data: format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)), width, height };
        self.made.borrow_mut().insert(pair, small.clone());
        Ok(small)
    }
}

/// The size inside [`SIDE`] that keeps the proportions; never larger than the picture, never nothing.
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
