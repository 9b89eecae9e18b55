//! What can be wrong with a source of pairs.

use std::path::PathBuf;

/// A source of pairs that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A path given as a source of pairs is of no kind that can be read.
    #[error(
        "{} is not a source of image-caption pairs: expected a folder of images with .txt or .json captions, a .csv or \
         .tsv table, .parquet, a webdataset .tar, COCO captions in .json, or clip-retrieval's output; {hint}",
        path.display()
    )]
    UnknownKind {
        /// The path that was given.
        path: PathBuf,
        /// What it looks like and what to do.
        hint: String,
    },

    /// A source is not what its name or its format says.
    #[error("{}: expected {expected}, found {found}; {hint}", path.display())]
    WrongKind {
        /// The path that was given.
        path: PathBuf,
        /// What it was taken for.
        expected: &'static str,
        /// What it is.
        found: String,
        /// What to do.
        hint: String,
    },

    /// A file of a source is not what its format says: truncated, of another shape or type.
    #[error("{}: expected {expected}, found {found}; the file is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// The images that a captions file names are in none of the places where they might be.
    #[error(
        "{} names images that are not found: none of the first {looked_for} is in {}",
        path.display(), places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    ImagesNotFound {
        /// The captions file.
        path: PathBuf,
        /// Number of images that were looked for.
        looked_for: usize,
        /// Folders in which they were.
        places: Vec<PathBuf>,
    },

    /// A pattern of paths stands for nothing, or for too much.
    #[error("{pattern}: {reason}")]
    Pattern {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The parts of clip-retrieval's output do not fit each other.
    #[error("{} does not align: {reason}", path.display())]
    Misaligned {
        /// The folder.
        path: PathBuf,
        /// What should be alike, and how it differs.
        reason: String,
    },

    /// A table lacks the image column or the caption column.
    #[error("{} has {missing}{}{hint}", path.display(), if hint.is_empty() { "" } else { "; " })]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// Which column, and which there are.
        missing: Box<xmore_files::table::MissingColumn>,
        /// A guess at the cause, empty when there is none.
        hint: String,
    },

    /// The columns that could be meant hold something else.
    #[error(
        "{} has no usable {wanted} column: {}",
        path.display(), columns.iter().map(|(name, holds)| format!("{name:?} holds {holds}")).collect::<Vec<_>>().join(", ")
    )]
    UnusableColumn {
        /// The file.
        path: PathBuf,
        /// "image" or "caption".
        wanted: &'static str,
        /// Names of the columns, and what they hold.
        columns: Vec<(String, String)>,
    },

    /// A parquet file is compressed in a way that is not read.
    #[error("{} is compressed with {codec}, which is not read; write it with another codec, such as zstd", path.display())]
    Codec {
        /// The file.
        path: PathBuf,
        /// The codec's name.
        codec: &'static str,
    },
}
