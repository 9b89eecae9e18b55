//! Pairs that are held open, wherever they are.

use std::path::PathBuf;

use regex::Regex;
use xmore_files::image::Orientation;
use xmore_memory::retriever::{Location, RemoteOptions, open as open_remote};
use xmore_memory::store::ModelIdentity;
use xmore_memory::{Memory, MemoryError, Retriever, RowSet};

use crate::error::XmoreError;

/// An open memory, or a remote index that answered.
pub enum OpenPairs {
    /// On this machine.
    Memory(Box<Memory>),
    /// With a remote index.
    Remote(Box<dyn Retriever>),
}

impl OpenPairs {
    /// Opens a memory's folder, or a remote index by its URL.
    ///
    /// # Errors
    /// Those of [`Memory::open`], of [`Location`]'s parsing, and of [`xmore_memory::retriever::open`].
    pub fn open(location: &str, options: &RemoteOptions) -> Result<Self, MemoryError> {
        match location.parse()? {
            Location::Local(path) => Ok(Self::Memory(Box::new(Memory::open(path)?))),
            remote => Ok(Self::Remote(open_remote(&remote, options)?)),
        }
    }

    /// Files of a memory's search codes that searches have found damaged; see [`Memory::damaged_codes`].
    pub fn damaged_codes(&self) -> Vec<PathBuf> {
        match self {
            Self::Memory(memory) => memory.damaged_codes(),
            Self::Remote(_) => Vec::new(),
        }
    }

    /// The model whose embeddings they are, as far as is known.
    pub fn identity(&self) -> Option<&ModelIdentity> {
        match self {
            Self::Memory(memory) => Some(&memory.manifest().model),
            Self::Remote(index) => index.identity(),
        }
    }

    /// Which way up its images were decoded, as far as is known.
    pub fn orientation(&self) -> Option<Orientation> {
        match self {
            Self::Memory(memory) => Some(memory.manifest().orientation),
            Self::Remote(_) => None,
        }
    }

    /// How many pairs there are, as far as is known.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Memory(memory) => Some(memory.len()),
            // One that is away now may be back for the first query.
            Self::Remote(index) => index.pairs().ok().flatten(),
        }
    }

    /// The rows whose caption matches a pattern.
    ///
    /// # Errors
    /// [`XmoreError::RemoteFilter`] for a remote index; [`XmoreError::NoCaptionMatches`] where nothing would be left.
    pub fn rows_with_caption(&self, pattern: &Regex) -> Result<RowSet, XmoreError> {
        match self {
            Self::Memory(memory) => {
                let rows = memory.rows_with_caption(pattern)?;
                if rows.is_empty() {
                    return Err(XmoreError::NoCaptionMatches { pattern: pattern.to_string() });
                }
                Ok(rows)
            }
            Self::Remote(index) => Err(XmoreError::RemoteFilter { location: index.location().into_owned() }),
        }
    }
}
