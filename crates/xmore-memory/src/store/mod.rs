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
//! are put in place by renames that are finished by the next writer (`publish`); the manifest goes last. The memory of a build that is
//! divided among several processes has `.xmore-partial/` too (`partial`), by which such memories are merged.

mod checksum;
mod embedding_set;
pub(crate) mod error;
mod files;
mod identity;
mod layout;
mod lock;
mod lookup;
mod manifest;
pub(crate) mod metadata;
pub(crate) mod npy;
mod open_part;
mod pairs;
mod partial;
mod publish;
mod reader;
mod repair;
mod rounding;
mod sealed;
mod skip_list;
mod staging;
mod texts;
mod verify;
mod writer;

pub use embedding_set::EmbeddingSetWriter;
pub use error::{StoreError, WriteError};
pub use identity::ModelIdentity;
pub use layout::{BUILDING_DIR, MANIFEST_FILE, MAX_DIM, Modality};
pub(crate) use layout::{IMAGES, METADATA, Series, TEXTS};
pub use manifest::{EmbeddingSetInfo, Manifest, PartInfo, SetAside, SourceInfo};
pub use pairs::{KnownBy, KnownPairs, PairKey, PairKeys};
pub use partial::{Division, FinishedPart, Listing, ListingWriter, PartialBuild, Segment};
pub use publish::finish_interrupted;
pub use reader::{EmbeddingSet, Memory};
pub use repair::{RepairReport, repair};
pub use skip_list::{SkipCounts, SkipEntry, failures, read_skip_list};
pub use staging::{Cursor, Mode};
pub use verify::{Finding, VerifyReport, verify};
pub use writer::{MemoryWriter, check_part};

#[cfg(test)]
mod tests;
