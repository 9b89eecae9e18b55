//! What strings a memory has already: distinct image paths counted, captions found by their text.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::npy::NpyMatrix;

/// Counts distinct strings by their 64-bit hash: 8 bytes each, and a miscount by one has a chance below 10⁻⁵
/// for ten million.
#[derive(Default)]
pub(super) struct DistinctCount {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl DistinctCount {
    pub fn add(&mut self, string: &str) {
        self.seen.insert(self.hasher.hash_one(string));
    }

    pub fn count(&self) -> u64 {
        self.seen.len() as u64
    }
}

/// The first row that has a text, by the text's 128-bit hash under keys of this process: two of a billion texts collide
/// with a chance below 10⁻²⁰.
#[derive(Default)]
pub(super) struct KnownTexts {
    hashers: [RandomState; 2],
    rows: HashMap<[u64; 2], u64>,
}

impl KnownTexts {
    /// Remembers the row, unless the text is known already.
    pub fn add(&mut self, text: &str, row: u64) {
        self.rows.entry(self.key(text)).or_insert(row);
    }

    /// The first row with this text.
    pub fn row(&self, text: &str) -> Option<u64> {
        self.rows.get(&self.key(text)).copied()
    }

    fn key(&self, text: &str) -> [u64; 2] {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(text))
    }
}

/// Which strings a writer remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remembered {
    /// Captions, to find the embedding of one that comes again, and image paths, to count them.
    All,
    /// Image paths.
    ImagePaths,
    /// None: so many distinct image paths are given.
    Nothing {
        /// Distinct image paths of all rows that will be written.
        images: u64,
    },
}

/// What a writer remembers of the strings of its rows.
pub(super) struct SeenStrings {
    remembered: Remembered,
    texts: KnownTexts,
    images: DistinctCount,
}

impl SeenStrings {
    /// No row yet.
    pub fn new(remembered: Remembered) -> SeenStrings {
        SeenStrings { remembered, texts: KnownTexts::default(), images: DistinctCount::default() }
    }

    /// Which strings are remembered.
    pub fn remembered(&self) -> Remembered {
        self.remembered
    }

    /// Whether captions are found again.
    pub fn remembers_captions(&self) -> bool {
        self.remembered == Remembered::All
    }

    /// Remembers the strings of a row.
    pub fn add(&mut self, image_path: &str, caption: &str, row: u64) {
        match self.remembered {
            Remembered::All => {
                self.images.add(image_path);
                self.texts.add(caption, row);
            }
            Remembered::ImagePaths => self.images.add(image_path),
            Remembered::Nothing { .. } => {}
        }
    }

    /// The first row with this caption.
    pub fn row_of(&self, caption: &str) -> Option<u64> {
        self.texts.row(caption)
    }

    /// Number of distinct image paths.
    pub fn images(&self) -> u64 {
        match self.remembered {
            Remembered::Nothing { images } => images,
            Remembered::All | Remembered::ImagePaths => self.images.count(),
        }
    }
}

/// Reads row `row` of closed parts that follow one another into `out`, `[dim]`; `Err` has the row's number behind them, in the open part.
pub(super) fn read_closed(closed: &[NpyMatrix], mut row: u64, out: &mut [f32]) -> Result<(), u64> {
    for part in closed {
        if row < part.rows() as u64 {
            part.read_row(row as usize, out);
            return Ok(());
        }
        row -= part.rows() as u64;
    }
    Err(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_of_a_text_is_kept() {
        let mut known = KnownTexts::default();
        for (row, text) in ["a", "b", "a", ""].iter().enumerate() {
            known.add(text, row as u64);
        }
        assert_eq!(["a", "b", "", "c"].map(|t| known.row(t)), [Some(0), Some(1), Some(3), None]);
    }

    #[test]
    fn distinct_strings_are_counted_once() {
        let mut count = DistinctCount::default();
        ["x", "y", "x"].iter().for_each(|s| count.add(s));
        assert_eq!(count.count(), 2);
    }
}
