//! The external set of image–text pairs of cross-modal retrieval: the *memory*.
//!
//! This crate knows pairs, files and vectors, but no encoder: embeddings come in as rows of f32 unit vectors, by
//! whatever model made them. The workflow:
//!
//! 1. Find out what kind of source a path is with [`Source::detect`](ingest::Source::detect): a folder of images
//!    with captions beside them, a table, parquet, webdataset tars, COCO's captions (the list is in [`ingest`]).
//! 2. [`Source::read`](ingest::Source::read) it into [`Pair`](ingest::Pair)s, one per distinct image with all its
//!    captions. What gives no pair is skipped and listed.
//! 3. Encode every image once and every caption once, with an encoder of your choice. An
//!    [`ImageReader`](ingest::ImageReader) reads the images' bytes, wherever they are.
//! 4. Write the pairs with a [`MemoryWriter`](store::MemoryWriter): one row per caption, in the on-disk layout of
//!    clip-retrieval (described in [`store`]).
//! 5. Open the memory with [`Memory::open`]: embeddings are memory-mapped, so this is immediate at any size.
//! 6. [`Memory::search_images`] or [`Memory::search_texts`] for the nearest pairs of a batch of queries, exactly.
//! 7. Look up what was found: [`Memory::caption`], [`Memory::image_path`], [`Memory::text_embedding`].
//!
//! Pairs too many for one machine are in a remote index of their own; [`retriever`] searches there in the same way.
//!
//! ```
//! use xmore_memory::ingest::{InputFormat, Source, SourceOptions};
//! use xmore_memory::store::{MemoryWriter, ModelIdentity};
//! use xmore_memory::Memory;
//! # fn encode_image(path: &str) -> [f32; 2] {
//! #     if path.ends_with("dog.jpg") { [1.0, 0.0] } else { [0.6, 0.8] }
//! # }
//! # fn encode_text(text: &str) -> [f32; 2] { if text.contains("dog") { [0.8, 0.6] } else { [0.0, 1.0] } }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! std::fs::write(folder.join("pairs.csv"), "image_path,caption\ndog.jpg,a dog\ndog.jpg,a brown dog\ncat.jpg,a cat\n")?;
//!
//! let source = Source::detect(folder.join("pairs.csv"), InputFormat::Auto, &SourceOptions::default())?;
//! let ingested = source.read()?;
//! assert_eq!(ingested.pairs.len(), 2);
//!
//! let model = ModelIdentity::new("ViT-B-32,openai", "…", 2);
//! let mut writer = MemoryWriter::create(folder.join("memory"), model)?;
//! for pair in &ingested.pairs {
//!     let path = pair.image.to_string();
//!     let image = encode_image(&path);
//!     for caption in &pair.captions {
//!         writer.push(&path, caption, &image, &encode_text(caption))?;
//!     }
//! }
//! for skip in &ingested.skipped {
//!     writer.skip(&skip.path, skip.reason.kind(), &skip.reason.to_string())?;
//! }
//! writer.finish()?;
//!
//! let memory = Memory::open(folder.join("memory"))?;
//! let query = [0.8, 0.6];
//! let hits = memory.search_images(&query, 2)?.remove(0);
//! assert_eq!(memory.caption(hits[0].id)?, "a cat");
//! assert!((hits[0].similarity - 0.96).abs() < 1e-3);
//! # Ok(())
//! # }
//! ```

mod duplicates;
mod error;
mod filter;
pub mod ingest;
pub mod retriever;
pub mod search;
pub mod store;

pub use duplicates::{DuplicateReport, duplicates};
pub use error::{MemoryError, Result};
pub use ingest::SourceError;
pub use retriever::{RemoteError, Retriever};
pub use search::{Hit, RowSet, SearchOptions, VectorError};
pub use store::{Memory, StoreError, WriteError};
