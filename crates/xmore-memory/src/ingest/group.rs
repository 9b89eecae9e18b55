//! Rows that name one image become one pair, so that it is encoded once.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{ImageRef, Pair};

/// Pairs of image files in the order in which the images first appear.
#[derive(Default)]
pub(super) struct Grouping {
    pub pairs: Vec<Pair>,
    index_of: HashMap<PathBuf, usize>,
}

impl Grouping {
    /// Adds captions, at least one, to an image's.
    pub fn add(&mut self, image: PathBuf, captions: impl IntoIterator<Item = String>) {
        let index = *self.index_of.entry(image).or_insert_with_key(|image| {
            self.pairs.push(Pair { image: ImageRef::File(image.clone()), captions: Vec::new() });
            self.pairs.len() - 1
        });
        self.pairs[index].captions.extend(captions);
    }
}
