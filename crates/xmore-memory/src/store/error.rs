//! What can be wrong with a memory on disk, and what can prevent one from being written.

use std::io;
use std::path::PathBuf;

use xmore_files::image::Orientation;

use super::layout::MANIFEST_FILE;

/// A memory that is not there, is damaged, or lacks what is asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory holds files, but neither a memory nor the beginnings of one.
    #[error(
        "{} is not a memory: it has no {MANIFEST_FILE}{}",
        path.display(),
        if *holds_embeddings { "; it looks like the output of clip-retrieval" } else { "" }
    )]
    NotAMemory {
        /// The directory.
        path: PathBuf,
        /// Whether it holds embeddings as clip-retrieval writes them, of which a memory can be built.
        holds_embeddings: bool,
    },

    /// The build of this memory was interrupted, so it has parts but no manifest.
    #[error("the memory in {} is incomplete: its build was interrupted or is still running", path.display())]
    Incomplete {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// The manifest cannot be understood, or contradicts itself.
    #[error("{} is damaged: {reason}", path.display())]
    Manifest {
        /// The manifest file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// The manifest was written by a later version of this crate.
    #[error(
        "{} has format version {found}, and this version of xmore reads up to {supported}; update xmore or build the memory again",
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
    #[error(
        "{}: expected {expected}, found {found}; the file is damaged or not part of this memory", path.display()
    )]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// The memory has no embeddings by a model, or not of all rows.
    #[error("the memory in {} has no {what} by model {model}{}", path.display(), lacking(*have, *len))]
    NoEmbeddings {
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
}

/// A memory that cannot be built, added to or repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Another process is building a memory in this directory.
    #[error("another process is building a memory in {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },

    /// A complete memory is already where one was to be created.
    #[error("{} already holds a complete memory", path.display())]
    AlreadyExists {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// The directory in which a memory was to be created holds something else.
    #[error("{} is not empty and is not a memory (it holds {found:?})", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Name of one thing in it.
        found: String,
    },

    /// A memory without a pair is not put in place.
    #[error("no pairs were written to {}: a memory needs at least one", path.display())]
    NoPairs {
        /// The directory of the memory.
        path: PathBuf,
    },

    /// An interrupted build is there that this one cannot continue.
    #[error("{} holds an unfinished build with model {model}", path.display())]
    OtherBuild {
        /// Its folder.
        path: PathBuf,
        /// Its model.
        model: String,
    },

    /// The files of an interrupted build have changed since, so it cannot be continued.
    #[error(
        "{} holds an unfinished build that is damaged ({}: expected {expected}, found {found})",
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
        "{} is an unfinished build whose images were decoded with orientation `{theirs}`, not `{ours}`",
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
    #[error("the memory in {} was built with model {memory}, not with {given}", path.display())]
    OtherModel {
        /// The directory of the memory.
        path: PathBuf,
        /// Its model.
        memory: String,
        /// The model that was given.
        given: String,
    },

    /// The memory has this model's embedding set already, of all rows or of the other kind.
    #[error(
        "the memory in {} has embeddings by model {model} already; an embedding set that was made of captions only cannot get \
         images later, nor the other way round",
        path.display()
    )]
    EmbeddingSetExists {
        /// The directory of the memory.
        path: PathBuf,
        /// The model.
        model: String,
    },

    /// The disk has no space for what a repair would write. The memory is as it was.
    #[error(
        "cannot repair the memory in {}: {source}; about {needed} bytes are needed there, and the memory is as it was",
        path.display()
    )]
    NoSpace {
        /// The directory of the memory.
        path: PathBuf,
        /// Bytes that the repair writes, about.
        needed: u64,
        /// The system's own error.
        source: io::Error,
    },

    /// A writer was used again after one of its writes had failed.
    #[error("the memory in {} cannot be continued after a failed write", path.display())]
    WriterFailed {
        /// The directory of the memory.
        path: PathBuf,
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

    /// A memory outgrew what the layout's part numbers can count.
    #[error("the memory in {} would need more than {max} parts; split it into several memories", path.display())]
    TooManyParts {
        /// The directory of the memory.
        path: PathBuf,
        /// Greatest number of parts.
        max: usize,
    },
}

/// How many rows lack something, where some have it.
fn lacking(have: u64, len: u64) -> String {
    if have == 0 { String::new() } else { format!(" for {} of its {len} rows", len.saturating_sub(have)) }
}
