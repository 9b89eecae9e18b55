//! Thumbnails of the pictures, as the report embeds them.

use std::cell::RefCell;
use std::collections::HashMap;

use maud::Markup;
use xmore_clip::ClipError;
use xmore_files::image::{Alpha, DecodeOptions, decode_file};

use super::super::findings::Findings;
use crate::error::Result;
use crate::html::thumbnails::Thumbnail;

/// Makes each picture's thumbnail once.
pub(super) struct Pictures<'a> {
    findings: &'a Findings,
    made: RefCell<HashMap<usize, Thumbnail>>,
}

impl<'a> Pictures<'a> {
    pub fn of(findings: &'a Findings) -> Self {
        Self { findings, made: RefCell::default() }
    }

    /// An `img` of a pair's picture, with the caption as its alternative text.
    pub fn img(&self, pair: usize) -> Result<Markup> {
        let alt = &self.findings.set.pairs[pair].caption;
        if let Some(thumbnail) = self.made.borrow().get(&pair) {
            return Ok(thumbnail.img(alt));
        }
        let path = &self.findings.set.pairs[pair].image;
        // As the model sees it: transparency on white.
        let picture = decode_file(path, Alpha::White, &DecodeOptions::default())
            .map_err(|source| ClipError::Image { path: path.clone(), source })?;
        let thumbnail = Thumbnail::of(picture.image(), path)?;
        let img = thumbnail.img(alt);
        self.made.borrow_mut().insert(pair, thumbnail);
        Ok(img)
    }
}
