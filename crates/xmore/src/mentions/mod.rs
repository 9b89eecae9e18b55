//! Which images of a memory have a caption that names a label.
//!
//! A caption names a label if it has the label's name or one of its synonyms in it: its words one after another, with anything that is no
//! word between them, the last one in singular or plural. [`words`] says what words are, [`names`] what a label is called, [`plural`] what
//! singular and plural are, [`finder`] what counts where names overlap, [`scan`] reads the memory.
//!
//! - Scripts without spaces between words: the name anywhere in the text.
//! - A name within a longer name of another label does not count: a `hot dog` is no `dog`. Where `dog` is a label and `hot dog` is none, it
//!   does: the words are there, and whether the images are of use is to be measured on the images.
//! - What one label is called is not taken for the singular or plural of another: of `glass` and `glasses`, captions with `glasses` name the
//!   second.
//! - A name that several labels have names all of them, up to a bound: the image shows one of them, and is no evidence between them.
//! - Labels of signs only, such as an emoji, are named by no caption.

mod finder;
mod names;
mod plural;
mod scan;
#[cfg(test)]
mod tests;
mod words;

use xmore_memory::Memory;

use crate::error::Result;
use crate::labels::Labels;
use crate::retrieve::PairFilter;
use finder::Finder;

/// Images of a memory whose captions name labels. An image counts once, however many of its captions do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// For each label, how many images have a caption that names it.
    pub images: Vec<u64>,
    /// For each label some of these images, as many as were asked for at most: the image's first row that may be looked at, ascending. Of
    /// more images, those of the smallest SHA-256 of the decimal number of that row.
    pub rows: Vec<Vec<u64>>,
    /// For each label, how many images have a caption with its last word, in singular or plural, but none that names it. 0 for labels of one
    /// word, and where no spaces stand between words. Of a label with alternatives it is the first one's.
    pub head_only: Vec<u64>,
}

/// Finds the images that name labels: one pass over the captions of the rows that may be looked at, with all cores. At most `limit` rows
/// are kept for each label.
///
/// # Errors
/// Those of reading the memory; [`LabelError::List`](crate::LabelError::List) for labels of more text than can be looked for.
pub(crate) fn find_mentions(
    memory: &Memory,
    filter: &PairFilter,
    labels: &Labels,
    limit: usize,
) -> Result<Mentions> {
    scan::scan(memory, filter, &Finder::new(labels)?, limit)
}
