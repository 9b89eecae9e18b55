//! Why something of a source gives no pair, as a word that can be counted.

use serde::{Deserialize, Serialize};

use super::SkipReason;

/// A kind of reason. What is a failure may succeed when the same sources are read again, and counts against a limit; the others are
/// no pairs as the source is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SkipKind {
    /// An image without a caption, or with an empty one.
    NoCaption,
    /// A caption without an image, or with a second one.
    NoImage,
    /// Left out on purpose: files of another kind than the source's.
    LeftOut,
    /// A row or an element that makes no sense.
    Malformed,
    /// A file, a folder or a caption that cannot be read, or is damaged.
    UnreadableFile,
    /// An image whose bytes cannot be read: it is missing, or not to be reached.
    UnreadableImage,
    /// An image that cannot be decoded.
    BrokenImage,
    /// A row of embeddings that is no direction: zero, or not finite.
    BadEmbedding,
}

/// A kind's name, what it is in words for a count, and whether it is a failure.
type Row = (SkipKind, &'static str, &'static str, bool);

/// All kinds.
const KINDS: [Row; 8] = [
    (SkipKind::NoCaption, "no-caption", "without a caption", false),
    (SkipKind::NoImage, "no-image", "captions without an image of their own", false),
    (SkipKind::LeftOut, "left-out", "left out: not of this kind of source", false),
    (SkipKind::Malformed, "malformed", "malformed rows", true),
    (SkipKind::UnreadableFile, "unreadable-file", "files that could not be read", true),
    (SkipKind::UnreadableImage, "unreadable-image", "images that could not be read", true),
    (SkipKind::BrokenImage, "broken-image", "images that could not be decoded", true),
    (SkipKind::BadEmbedding, "bad-embedding", "embeddings that are zero or not finite", true),
];

impl SkipKind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = SkipKind> {
        KINDS.iter().map(|row| row.0)
    }

    /// Its name in lists and manifests.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What it is, in words that follow a count.
    pub fn describe(self) -> &'static str {
        self.row().2
    }

    /// Whether something went wrong, as opposed to there being no pair.
    pub fn is_failure(self) -> bool {
        self.row().3
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<SkipKind> {
        KINDS.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &KINDS[self as usize]
    }
}

impl SkipReason {
    /// Its kind.
    pub fn kind(&self) -> SkipKind {
        match self {
            SkipReason::NoCaption | SkipReason::EmptyCaption => SkipKind::NoCaption,
            SkipReason::Row { .. }
            | SkipReason::ParquetRow { .. }
            | SkipReason::Element { .. }
            | SkipReason::NotListed { .. } => SkipKind::Malformed,
            SkipReason::NoImage | SkipReason::SecondImage => SkipKind::NoImage,
            SkipReason::Unreadable(_)
            | SkipReason::File(_)
            | SkipReason::Damaged(_)
            | SkipReason::TooMuchListed { .. } => SkipKind::UnreadableFile,
            SkipReason::LooseImages { .. } => SkipKind::LeftOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row_and_its_name() {
        for (i, row) in KINDS.iter().enumerate() {
            assert_eq!(row.0 as usize, i, "{}", row.1);
            assert_eq!(SkipKind::parse(row.1), Some(row.0));
            assert_eq!(serde_json::to_string(&row.0).unwrap(), format!("{:?}", row.1));
        }
        assert_eq!(SkipKind::parse("other"), None);
    }
}
