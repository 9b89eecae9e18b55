//! The memory on disk: clip-retrieval's layout plus a manifest. Layout and names are fixed here.
//!
//! ```text
//! memory/
//!   img_emb/img_emb_0000.npy          float16 [rows, dim], C order: image embeddings
//!   text_emb/text_emb_0000.npy        float16 [rows, dim], C order: caption embeddings
//!   img_codes/img_codes_0000.bin      8-bit codes of the image embeddings; text_codes the same of the captions'
//!   metadata/metadata_0000.parquet    columns image_path, caption
//!   xmore_memory.json                 manifest, written last
//! ```
//! Rows are aligned across the three; row i of the concatenation of the parts, sorted by file name, is pair id i.
//! An image with five captions is five rows with the same image embedding. While a memory is built its parts are
//! in `.xmore-building/`, so a memory that is being overwritten stays whole until the new one is complete.

mod manifest;
mod metadata;
mod npy;
mod reader;
mod writer;

use std::fs::File;
use std::path::Path;

pub use manifest::{Manifest, ModelIdentity, PartInfo};
pub use reader::Memory;
pub(crate) use reader::Modality;
pub use writer::MemoryWriter;

use crate::error::{AtPath, Result};

/// File name of the manifest. A directory with it holds a complete memory.
pub const MANIFEST_FILE: &str = "xmore_memory.json";

/// Directory inside a memory's in which its parts are built.
pub(crate) const BUILDING_DIR: &str = ".xmore-building";

/// Greatest embedding length; the largest published dual encoders have 1,280 to 4,096.
pub const MAX_DIM: usize = 65_536;

/// One of the three aligned series of part files.
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
/// Codes of the image embeddings, see [`crate::search::codes`].
pub(crate) const IMAGE_CODES: Series = Series { name: "img_codes", extension: ".bin" };
/// Codes of the text embeddings.
pub(crate) const TEXT_CODES: Series = Series { name: "text_codes", extension: ".bin" };
/// All of them.
pub(crate) const ALL_SERIES: [Series; 5] = [IMAGES, TEXTS, METADATA, IMAGE_CODES, TEXT_CODES];

impl Series {
    /// File name of part `number`, in four digits so that names sort as numbers do.
    fn file_name(&self, number: usize) -> String {
        format!("{}_{number:04}{}", self.name, self.extension)
    }

    /// The digits of a part's file name, `None` if the name is no part of this series.
    fn digits<'a>(&self, file_name: &'a str) -> Option<&'a str> {
        let digits = file_name.strip_prefix(self.name)?.strip_prefix('_')?.strip_suffix(self.extension)?;
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
    }
}

/// Makes renames and new files of a directory durable. Does nothing where directories cannot be opened.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) { File::open(dir).and_then(|d| d.sync_all()).at("write", dir) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
