//! Names of the files and folders of a memory, and its limits.

use std::path::{Path, PathBuf};

/// File name of the manifest. A directory with it holds a complete memory.
pub const MANIFEST_FILE: &str = "xmore_memory.json";

/// A second manifest, the same to the byte: a repair takes it where the first is damaged or gone.
pub(crate) const MANIFEST_COPY: &str = ".xmore-memory.json";

/// Directory inside a memory's in which new parts are built; removing it discards an unfinished build or append.
pub const BUILDING_DIR: &str = ".xmore-building";

/// Directory of the further embedding sets, a folder for each. Its name is older than theirs.
pub(crate) const EMBEDDING_SETS_DIR: &str = "columns";

/// Directory inside a memory's in which an embedding set is written.
pub(super) const EMBEDDING_DIR: &str = ".xmore-embedding";

/// Directory inside a memory's in which a repair writes.
pub(super) const REPAIRING_DIR: &str = ".xmore-repairing";

/// Directory of the files that repairs took out, in a folder for each repair.
pub(super) const SET_ASIDE_DIR: &str = ".xmore-set-aside";

/// Directory of the lists of what was skipped.
pub(crate) const SKIPPED_DIR: &str = "skipped";

/// Greatest embedding length; the largest published dual encoders have 1,280 to 4,096.
pub const MAX_DIM: usize = 65_536;

/// Part numbers have four digits.
pub(super) const MAX_PARTS: usize = 10_000;

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
pub(crate) const EMBEDDING_SET_SERIES: [Series; 4] = [IMAGES, TEXTS, IMAGE_CODES, TEXT_CODES];
/// Those of an embedding set of captions only.
pub(crate) const TEXT_SERIES: [Series; 2] = [TEXTS, TEXT_CODES];

/// The list of what source `number` of a memory, or of what is built for it in `dir`, skipped.
pub(super) fn skipped_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(SKIPPED_DIR).join(format!("skipped_{number:04}.csv"))
}

impl Series {
    /// File name of part `number`, in four digits so that names sort as numbers do.
    pub(crate) fn file_name(&self, number: usize) -> String {
        format!("{}_{number:04}{}", self.name, self.extension)
    }

    /// Whether it is the file name of some part.
    pub(super) fn is_file_name(&self, name: &std::ffi::OsStr) -> bool {
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(self.name)?.strip_prefix('_')?.strip_suffix(self.extension));
        number.is_some_and(|number| number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Path of part `number` below `dir`.
    pub(crate) fn path(&self, dir: &Path, number: usize) -> PathBuf {
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

    /// The modality that a series holds 8-bit copies of.
    pub(super) fn of_codes(series: Series) -> Option<Modality> {
        [Modality::Image, Modality::Text].into_iter().find(|modality| modality.codes() == series)
    }
}
