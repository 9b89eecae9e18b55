//! The memory on disk: clip-retrieval's layout plus a manifest. Layout and names are fixed here.
//!
//! ```text
//! memory/
//!   img_emb/img_emb_0000.npy          float16 [rows, dim], C order: image embeddings
//!   text_emb/text_emb_0000.npy        float16 [rows, dim], C order: caption embeddings
//!   metadata/metadata_0000.parquet    columns image_path, caption
//!   lookup/lookup_0000.bin            the same strings, mapped: derived, for looking one up without reading a part
//!   img_codes/, text_codes/           8-bit copies of the embeddings: derived, for searching them faster
//!   skipped/skipped_0000.csv          what gave no pair, and why; numbered as the manifest's sources
//!   columns/NAME/img_emb/ …           embeddings of the same rows by another model
//!   xmore_memory.json                 manifest with the checksum of every file and of itself, written last
//!   .xmore-memory.json                the same, for repairs
//! ```
//! Rows are aligned across all of them; row i of the concatenation of the parts is pair id i. An image with five
//! captions is five rows with the same image embedding.
//!
//! While a memory is built or grows, new parts are in `.xmore-building/` with a checkpoint that says how far they are
//! good (`staging`): a build that was killed continues from there and ends with the bytes of an undisturbed one. Parts
//! are put in place by renames that are finished by whoever comes next (`publish`); the manifest goes last.

mod checksum;
mod embedding_set;
mod lock;
mod lookup;
mod manifest;
pub(crate) mod metadata;
pub(crate) mod npy;
mod open_part;
mod pairs;
mod publish;
mod reader;
mod repair;
mod sealed;
mod skip_list;
mod staging;
mod texts;
mod verify;
mod writer;

use std::fs::File;
use std::path::Path;

pub use embedding_set::EmbeddingSetWriter;
pub use manifest::{EmbeddingSetInfo, Manifest, ModelIdentity, PartInfo, SetAside, SourceInfo};
pub use pairs::{KnownBy, KnownPairs, PairKey, PairKeys};
pub use publish::finish_interrupted;
pub use reader::{EmbeddingSet, Memory};
pub use repair::{RepairReport, repair};
pub use skip_list::{SkipCounts, SkipEntry, failures, read_skip_list};
pub use staging::{Cursor, Mode};
pub use verify::{Finding, VerifyReport, verify};
pub use writer::MemoryWriter;

use crate::error::{AtPath, Result};

/// File name of the manifest. A directory with it holds a complete memory.
pub const MANIFEST_FILE: &str = "xmore_memory.json";

/// A second manifest, the same to the byte: a repair takes it where the first is damaged or gone.
pub(crate) const MANIFEST_COPY: &str = ".xmore-memory.json";

/// Directory inside a memory's in which new parts are built; removing it discards an unfinished build or append.
pub const BUILDING_DIR: &str = ".xmore-building";

/// Directory of the further embedding sets.
pub(crate) const COLUMNS_DIR: &str = "columns";

/// Directory of the lists of what was skipped.
pub(crate) const SKIPPED_DIR: &str = "skipped";

/// Greatest embedding length; the largest published dual encoders have 1,280 to 4,096.
pub const MAX_DIM: usize = 65_536;

/// Part numbers have four digits.
const MAX_PARTS: usize = 10_000;

/// Rows of a full part.
pub(crate) const PART_ROWS: u64 = 65_536;

/// Which of a pair's two embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// The image's.
    Image,
    /// The caption's.
    Text,
}

/// One of the aligned series of part files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Series {
    /// Directory, and file name prefix before the underscore.
    pub name: &'static str,
    /// Extension with its dot.
    pub extension: &'static str,
}

/// Image embeddings.
pub(crate) const IMAGES: Series = Series { name: "img_emb", extension: ".npy" };
/// Text embeddings.
pub(crate) const TEXTS: Series = Series { name: "text_emb", extension: ".npy" };
/// Image paths and captions.
pub(crate) const METADATA: Series = Series { name: "metadata", extension: ".parquet" };
/// Image paths and captions to look up, derived.
pub(crate) const LOOKUP: Series = Series { name: "lookup", extension: ".bin" };
/// 8-bit image embeddings, derived.
pub(crate) const IMAGE_CODES: Series = Series { name: "img_codes", extension: ".bin" };
/// 8-bit text embeddings, derived.
pub(crate) const TEXT_CODES: Series = Series { name: "text_codes", extension: ".bin" };
/// What a memory consists of; all that follows from it.
pub(crate) const PRIMARY: [Series; 3] = [IMAGES, TEXTS, METADATA];
/// What can be made again from the rest.
pub(crate) const DERIVED: [Series; 3] = [LOOKUP, IMAGE_CODES, TEXT_CODES];
/// All of them.
pub(crate) const ALL_SERIES: [Series; 6] = [IMAGES, TEXTS, METADATA, LOOKUP, IMAGE_CODES, TEXT_CODES];
/// Those of a further embedding set.
pub(crate) const COLUMN_SERIES: [Series; 4] = [IMAGES, TEXTS, IMAGE_CODES, TEXT_CODES];
/// Those of a column of captions only.
pub(crate) const TEXT_SERIES: [Series; 2] = [TEXTS, TEXT_CODES];

/// The list of what source `number` of a memory, or of what is built for it in `dir`, skipped.
fn skipped_path(dir: &Path, number: usize) -> std::path::PathBuf {
    dir.join(SKIPPED_DIR).join(format!("skipped_{number:04}.csv"))
}

impl Series {
    /// File name of part `number`, in four digits so that names sort as numbers do.
    pub(crate) fn file_name(&self, number: usize) -> String {
        format!("{}_{number:04}{}", self.name, self.extension)
    }

    /// Whether it is the file name of some part.
    fn is_file_name(&self, name: &std::ffi::OsStr) -> bool {
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(self.name)?.strip_prefix('_')?.strip_suffix(self.extension));
        number.is_some_and(|number| number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Path of part `number` below `dir`.
    pub(crate) fn path(&self, dir: &Path, number: usize) -> std::path::PathBuf {
        dir.join(self.name).join(self.file_name(number))
    }

    /// Whether it can be made again from the others.
    pub(crate) fn is_derived(&self) -> bool {
        DERIVED.contains(self)
    }
}

impl Modality {
    /// The series of its embeddings.
    pub(crate) fn series(self) -> Series {
        match self {
            Modality::Image => IMAGES,
            Modality::Text => TEXTS,
        }
    }

    /// The series of its 8-bit copies.
    pub(crate) fn codes(self) -> Series {
        match self {
            Modality::Image => IMAGE_CODES,
            Modality::Text => TEXT_CODES,
        }
    }
}

/// Names in a folder, sorted; none if there is no such folder.
fn names_in(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", dir)?,
    };
    let mut names =
        entries.map(|e| e.map(|e| e.file_name())).collect::<std::io::Result<Vec<_>>>().at("read", dir)?;
    names.sort();
    Ok(names)
}

/// Makes renames and new files of a directory durable. Does nothing where directories cannot be opened.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) { File::open(dir).and_then(|d| d.sync_all()).at("write", dir) } else { Ok(()) }
}

/// Writes a file under a temporary name, makes it durable, renames it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).at("create", &temporary)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).at("write", &temporary)?;
    std::fs::rename(&temporary, path).at("rename to", path)
}

/// Removes a directory and all in it, if it is there.
fn remove_dir_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

/// Removes a file, if it is there.
fn remove_file_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
