//! The one error type of this crate: what was expected, what was found, in which file, and the way out.

use std::io;
use std::path::{Path, PathBuf};

use xmore_files::image::Orientation;

/// Everything that can go wrong in ingesting, storing, opening or searching a memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The operating system refused to read or write a file or directory.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was attempted: "open", "read", "rename", …
        action: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },

    /// A path given as a source of pairs is of no kind that can be read.
    #[error(
        "{} is not a source of image-caption pairs: expected a folder of images with .txt or .json captions, a .csv or \
         .tsv table, .parquet, a webdataset .tar, COCO captions in .json, or clip-retrieval's output; {hint}",
        path.display()
    )]
    UnknownSource {
        /// The path that was given.
        path: PathBuf,
        /// What it looks like and what to do.
        hint: String,
    },

    /// A source is not what its name or its format says.
    #[error("{}: expected {expected}, found {found}; {hint}", path.display())]
    WrongSource {
        /// The path that was given.
        path: PathBuf,
        /// What it was taken for.
        expected: &'static str,
        /// What it is.
        found: String,
        /// What to do.
        hint: String,
    },

    /// The images that a captions file names are in none of the places where they might be.
    #[error(
        "{} names images that are not found: none of the first {looked_for} is in {}; say where they are with --image-root",
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

    /// The bytes of an image cannot be read.
    #[error("cannot read the image {image}: {reason}")]
    Image {
        /// Where it should be.
        image: String,
        /// Why not.
        reason: String,
        /// The same as what it counts as where images are left out.
        why: xmore_files::Reason,
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

    /// The directory holds files, but neither a memory nor the beginnings of one.
    #[error("{} is not a memory: it has no {}; {hint}", path.display(), crate::store::MANIFEST_FILE)]
    NotAMemory {
        /// The directory.
        path: PathBuf,
        /// What it looks like and what to do.
        hint: &'static str,
    },

    /// The build of this memory was interrupted, so it has parts but no manifest.
    #[error(
        "the memory in {} is incomplete: its build was interrupted or is still running; \
         run the command that builds it again: it goes on where it stopped",
        path.display()
    )]
    Incomplete {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// A complete memory is already where one was to be created.
    #[error(
        "{} already holds a complete memory; choose another directory, add to it with `xmore memory append`, \
         or replace it with --overwrite",
        path.display()
    )]
    AlreadyExists {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// A memory without a pair is not put in place.
    #[error("no pairs were written to {}: a memory needs at least one", path.display())]
    NoPairs {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// The directory in which a memory was to be created holds something else.
    #[error(
        "{} is not empty and is not a memory (it holds {found:?}); choose an empty or a new directory",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Name of one thing in it.
        found: String,
    },

    /// What an interrupted build left cannot be gone on from by this command.
    #[error(
        "{} holds an unfinished build with model {model}: finish it with the command that began it, or discard it with \
         --overwrite or by removing that folder",
        path.display()
    )]
    OtherBuild {
        /// Its folder.
        path: PathBuf,
        /// Its model.
        model: String,
    },

    /// What an interrupted build left has changed since, so it cannot be gone on from.
    #[error(
        "{} holds an unfinished build that is damaged ({}: expected {expected}, found {found}): discard it by removing that folder",
        path.display(), file.display()
    )]
    DamagedBuild {
        /// Its folder.
        path: PathBuf,
        /// The file that is damaged.
        file: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// An unfinished build or append decoded its images the other way up.
    #[error(
        "{} is an unfinished build whose images were decoded with orientation `{theirs}`, not `{ours}`: finish it with that one, or \
         remove this folder",
        path.display()
    )]
    OtherOrientation {
        /// Its folder.
        path: PathBuf,
        /// Its orientation.
        theirs: Orientation,
        /// The one asked for.
        ours: Orientation,
    },

    /// Pairs are to be added by another model than the memory's.
    #[error(
        "the memory in {} was built with model {memory}, not with {given}: add pairs with its own model, and embeddings by \
         another one with `xmore memory embed`",
        path.display()
    )]
    OtherModel {
        /// The directory of the memory.
        path: PathBuf,
        /// Its model.
        memory: String,
        /// The model that was given.
        given: String,
    },

    /// The memory has no embeddings by a model, or not of all rows.
    #[error(
        "the memory in {} has no {what} by model {model}{}: add them with `xmore memory embed {} --model {model}`",
        path.display(), lacking(*have, *len), path.display()
    )]
    NoColumn {
        /// The directory of the memory.
        path: PathBuf,
        /// "image embeddings" or "text embeddings".
        what: &'static str,
        /// The model.
        model: String,
        /// Rows that have one.
        have: u64,
        /// Rows in all.
        len: u64,
    },

    /// A column is there already.
    #[error(
        "the memory in {} has embeddings by model {model} already; a column that was made of captions only cannot get images \
         later, nor the other way round",
        path.display()
    )]
    EmbeddingSetExists {
        /// The directory of the memory.
        path: PathBuf,
        /// The model.
        model: String,
    },

    /// Another process is building a memory in this directory.
    #[error("another process is building a memory in {}; wait for it or choose another directory", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },

    /// There is no room for what a repair would write. The memory is as it was.
    #[error(
        "cannot repair the memory in {}: {source}; about {needed} bytes are needed there, and the memory is as it was",
        path.display()
    )]
    NoRoom {
        /// The directory of the memory.
        path: PathBuf,
        /// Bytes that the repair writes, about.
        needed: u64,
        /// The system's own error.
        source: io::Error,
    },

    /// A writer was used again after one of its writes had failed.
    #[error("the memory in {} cannot be continued after a failed write; run the command again", path.display())]
    WriterFailed {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// The manifest cannot be understood, or contradicts itself.
    #[error(
        "{} is damaged: {reason}; a repair takes its copy where there is a sound one, else build the memory again",
        path.display()
    )]
    Manifest {
        /// The manifest file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// The manifest was written by a later version of this crate.
    #[error(
        "{} has format version {found}, and this version of xmore reads up to {supported}; \
         update xmore or build the memory again",
        path.display()
    )]
    Version {
        /// The manifest file.
        path: PathBuf,
        /// Version found in it.
        found: u64,
        /// Latest version that can be read.
        supported: u64,
    },

    /// A data file is not what the layout and the manifest say it is: truncated, of another shape or type.
    #[error("{}: expected {expected}, found {found}; the file is damaged or not part of this memory (`xmore memory verify` checks them all)", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// A parquet file could not be read or written.
    #[error("{} cannot be read or written as parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The parquet reader's own error.
        source: parquet::errors::ParquetError,
    },

    /// A model cannot be recorded: its embedding length is zero or absurd.
    #[error("embedding length {found} of model {model:?} is not in 1..={max}")]
    Dim {
        /// Name of the model.
        model: String,
        /// Its embedding length.
        found: usize,
        /// Greatest length that is stored.
        max: usize,
    },

    /// An embedding (or a buffer for one) has another length than the memory's.
    #[error("{what} has {found} values, expected {expected}; was it made by another model?")]
    Length {
        /// What was measured: "image embedding", "text embedding", "output buffer".
        what: &'static str,
        /// The memory's embedding length.
        expected: usize,
        /// Length found.
        found: usize,
    },

    /// A batch of queries does not divide into rows of the memory's embedding length.
    #[error(
        "{found} query values do not make whole queries of {dim}, the embedding length of {model:?}; \
         was the query made by another model?"
    )]
    QueryLength {
        /// The memory's embedding length.
        dim: usize,
        /// Number of values in the batch.
        found: usize,
        /// Name of the memory's model.
        model: String,
    },

    /// An embedding holds a NaN, an infinity, or a value too large for float16.
    #[error("{what} {row} holds {value} at position {position}; embeddings must be finite unit vectors")]
    NotFinite {
        /// What was checked: "image embedding", "text embedding", "query".
        what: &'static str,
        /// Its row.
        row: u64,
        /// Index within the row.
        position: usize,
        /// The value.
        value: f32,
    },

    /// An id beyond the end of the memory.
    #[error("there is no pair {id}: the memory in {} has {len}", path.display())]
    NoSuchPair {
        /// The id asked for.
        id: u64,
        /// Number of pairs.
        len: u64,
        /// The directory of the memory.
        path: PathBuf,
    },

    /// A memory outgrew what the layout's part numbers can count.
    #[error("the memory in {} would need more than {max} parts; split it into several memories", path.display())]
    TooManyParts {
        /// The directory of the memory.
        path: PathBuf,
        /// Greatest number of parts.
        max: usize,
    },

    /// Where pairs are was given in a form that cannot be understood.
    #[error("{text:?} is no place of pairs: expected {expected}")]
    Location {
        /// What was given, without a password.
        text: String,
        /// The form expected.
        expected: &'static str,
    },

    /// A remote index does not answer, or is not up yet, even after retries.
    #[error(
        "cannot reach {location} ({attempts} attempt{} made): {reason}",
        if *attempts == 1 { "" } else { "s" }
    )]
    Unreachable {
        /// The remote index as the user named it.
        location: String,
        /// How often the request was sent.
        attempts: u32,
        /// What went wrong last, and the way out.
        reason: String,
    },

    /// A remote index answers, but refuses, or what it says makes no sense.
    #[error("{location}: {reason}")]
    Remote {
        /// The remote index as the user named it.
        location: String,
        /// What it said, what was expected, and the way out.
        reason: String,
    },
}

/// Result with [`MemoryError`].
pub type Result<T, E = MemoryError> = std::result::Result<T, E>;

/// Names a file in an I/O result, so that no bare "No such file or directory" reaches anyone.
pub(crate) trait AtPath<T> {
    /// Turns the error into [`MemoryError::Io`] with the action and the path.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| MemoryError::Io { action, path: path.to_owned(), source })
    }
}

/// The same for parquet results.
pub(crate) trait InParquet<T> {
    /// Turns the error into [`MemoryError::Parquet`] with the path.
    fn in_parquet(self, path: &Path) -> Result<T>;
}

impl<T> InParquet<T> for parquet::errors::Result<T> {
    fn in_parquet(self, path: &Path) -> Result<T> {
        use parquet::errors::ParquetError;
        let path = path.to_owned();
        self.map_err(|source| match source {
            // What the operating system refused says nothing about the file.
            ParquetError::External(error) => match error.downcast::<io::Error>() {
                Ok(source) => MemoryError::Io { action: "read or write", path, source: *source },
                Err(error) => MemoryError::Parquet { path, source: ParquetError::External(error) },
            },
            source => MemoryError::Parquet { path, source },
        })
    }
}

/// What to do about an error of the operating system, where that is known.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; make room and run the same command again: it goes on where it stopped"
        }
        _ => "",
    }
}

/// How many rows lack something, where some have it.
fn lacking(have: u64, len: u64) -> String {
    if have == 0 { String::new() } else { format!(" for {} of its {len} rows", len.saturating_sub(have)) }
}
