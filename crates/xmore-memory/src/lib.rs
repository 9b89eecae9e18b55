//! wip
mod error;
pub mod ingest;
pub mod search;
pub mod store;
pub use error::{MemoryError, Result};
