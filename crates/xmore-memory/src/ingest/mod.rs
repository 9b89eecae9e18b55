//! Sources of image–caption pairs: what kind a path is, and what is read from it.
//!
//! [`expand()`] turns arguments into paths, [`Source::detect`] finds each one's kind, [`Source::read`] lists its pairs as light
//! references, and an [`ImageReader`] reads the images' bytes. [`EmbeddingsFolder`] has embeddings instead of images.
//!
//! | source | made by | images | captions |
//! |---|---|---|---|
//! | folder | anyone; img2dataset's "files"; Hugging Face's ImageFolder | images below it | `metadata.csv`, `.jsonl` or `.parquet`; `.txt` (first line), `.caption` or `.json` beside the image |
//! | `.csv`, `.tsv`, `.jsonl`, `.json` (a list) | anyone; open_clip, Flickr, LLaVA | a column of one of [`Role`]'s names | the same |
//! | `.parquet` | Hugging Face, img2dataset | as a table's; or bytes in `image`, `jpg`, `png`, `webp` | as a table's; also lists |
//! | `.tar` | img2dataset, webdataset | `KEY.jpg` … | `KEY.txt` or `.caption`, else `KEY.json` |
//! | `.json` | COCO | `images` | `annotations` |
//! | `img_emb`, `metadata` | clip-retrieval, LAION | none: embeddings | in the metadata |
//!
//! [`Role`]: xmore_files::table::Role
//!
//! A new kind of source is a new module with a `read(&Path) -> Result<Ingested>` and a new [`Source`] variant.

mod caption;
mod coco;
mod column_names;
mod embeddings;
pub(crate) mod error;
mod expand;
mod folder;
mod group;
mod image_folder;
mod image_reader;
mod image_ref;
mod note;
mod parquet;
mod sidecar;
mod skip_kind;
mod skips;
mod source;
mod table;
mod tar_members;
mod webdataset;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use xmore_files::image::ImageFormat;
use xmore_files::{LeftOut, path_to_text};

use crate::error::MemoryError;

pub use column_names::ColumnNames;
pub use embeddings::{Batches, EmbeddingsBatch, EmbeddingsFolder, EmbeddingsPart, SkippedRows};
pub use error::SourceError;
pub use expand::expand;
pub use image_reader::{ImageReader, MAX_IMAGE_BYTES};
pub use image_ref::{ImageRef, Span};
pub use note::{Note, NoteKind};
pub use parquet::catches_panics;
pub use skip_kind::SkipKind;
pub use source::{InputFormat, Source, SourceOptions};
pub use tar_members::{Member as TarMember, walk as walk_tar};

/// One distinct image with all its captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Where the image is. It is not opened while ingesting, so it may turn out not to exist.
    pub image: ImageRef,
    /// Its captions in the order of the source; never empty, and no caption is blank.
    pub captions: Vec<String>,
}

/// Everything read from a source, and everything that was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Pairs, one per distinct image, in the order of the source.
    pub pairs: Vec<Pair>,
    /// What was skipped, in the order of the source.
    pub skipped: Vec<Skip>,
    /// Files of a folder that were not looked at, and folders that could not be listed; these are among the skipped too.
    pub left_out: LeftOut,
    /// What is worth knowing of how it was read.
    pub notes: Vec<Note>,
}

/// One thing of a source that gives no pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The image or the file that holds the bad row, as the text of an [`ImageRef`].
    pub path: String,
    /// Why it was skipped.
    pub reason: SkipReason,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl Skip {
    /// A file or folder that gives no pair.
    fn of(path: &Path, reason: SkipReason) -> Skip {
        Skip { path: path_to_text(path).into_owned(), reason }
    }

    /// One of several files that is of no use as a whole.
    fn file(path: &Path, error: &MemoryError) -> Skip {
        // Most messages begin with the path, which a skip names anyway.
        let message = error.to_string();
        let rest = message.strip_prefix(&path.display().to_string());
        let reason = rest.map_or(&*message, |rest| rest.trim_start_matches(':').trim_start());
        Skip::of(path, SkipReason::File(reason.to_owned()))
    }
}

/// Why something was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The image has neither a `.txt` of the same name beside it nor a `.json` with a caption.
    NoCaption,
    /// The caption is blank (for a `.txt`: its first line is).
    EmptyCaption,
    /// A file or directory could not be read; holds the system's message.
    Unreadable(String),
    /// A row of a table is malformed.
    Row {
        /// Line of the table on which the row starts, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A row of a parquet file gives no pair.
    ParquetRow {
        /// Row of the file, counted from 0.
        row: u64,
        /// What is wrong with it.
        what: String,
    },
    /// An element of COCO's lists gives no pair.
    Element {
        /// Which, and what is wrong with it.
        what: String,
    },
    /// A caption in a tar has no image of the same key.
    NoImage,
    /// A second image in a tar under one key.
    SecondImage,
    /// One of several files is of no use as a whole; holds the error's message.
    File(String),
    /// The file is damaged or cut off from some point on; what came before was read.
    Damaged(String),
    /// More things of the same file were skipped than are listed.
    NotListed {
        /// How many more.
        count: u64,
    },
    /// The pairs of a compressed file take more memory than is allowed for; those before this row were read.
    TooMuchListed {
        /// The first row that was not read, counted from 0.
        row: u64,
        /// Bytes that are allowed for.
        limit: u64,
        /// Bytes of the file, with those of the files before it.
        stored: u64,
    },
    /// Images that lie beside the tars of a folder taken for a webdataset.
    LooseImages {
        /// How many.
        count: u64,
    },
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkipReason::NoCaption => f.write_str(
                "no caption: neither a .txt or .caption of the same name, nor a .json with a caption",
            ),
            SkipReason::EmptyCaption => f.write_str("its caption is empty"),
            SkipReason::Unreadable(message) => write!(f, "cannot be read: {message}"),
            SkipReason::Row { line, what } => write!(f, "line {line}: {what}"),
            SkipReason::ParquetRow { row, what } => write!(f, "row {row}: {what}"),
            SkipReason::Element { what } | SkipReason::File(what) | SkipReason::Damaged(what) => {
                f.write_str(what)
            }
            SkipReason::NoImage => f.write_str("no image of the same name"),
            SkipReason::SecondImage => f.write_str("a second image of the same name; the first is taken"),
            SkipReason::NotListed { count } => write!(f, "{count} more, which are not listed"),
            SkipReason::TooMuchListed { row, limit, stored } => write!(
                f,
                "the rows from {row} on are left out: what {stored} bytes of parquet hold takes more than {limit} bytes \
                 of memory"
            ),
            SkipReason::LooseImages { count } => write!(
                f,
                "{count} loose image{} left out: a folder of tars is taken for a webdataset",
                if *count == 1 { "" } else { "s" }
            ),
        }
    }
}

/// Whether a file's name is that of an image, in a format that is read or only known: what is not read is refused with its name.
pub fn is_image_name(path: &Path) -> bool {
    ImageFormat::of_name(path).is_some()
}

/// Extension in lower case, empty when there is none.
fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}
