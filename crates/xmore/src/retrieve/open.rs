//! Pairs that users open, wherever they are kept.

use std::borrow::Cow;
use std::path::PathBuf;

use regex::Regex;
use xmore_clip::DeviceChoice;
use xmore_files::image::Orientation;
use xmore_memory::retriever::{Location, RemoteOptions};
use xmore_memory::store::ModelIdentity;
use xmore_memory::{Memory, MemoryError, Retriever, RowSet};

use super::error::RetrievalError;
use super::pairs::PairIndex;
use super::remote::RemotePairs;
use crate::error::Result;

/// Pairs that are held open: a memory on this machine, or a remote index that answered.
pub struct OpenPairs(Box<dyn PairIndex>);

impl From<Memory> for OpenPairs {
    fn from(memory: Memory) -> Self {
        Self(Box::new(memory))
    }
}

impl From<Box<dyn Retriever>> for OpenPairs {
    fn from(index: Box<dyn Retriever>) -> Self {
        Self(Box::new(RemotePairs(index)))
    }
}

impl OpenPairs {
    /// Opens a memory's folder, or a remote index by its URL.
    ///
    /// # Errors
    /// Those of [`Memory::open`], of [`Location`]'s parsing, and of [`xmore_memory::retriever::open`].
    pub fn open(location: &str, options: &RemoteOptions) -> Result<Self, MemoryError> {
        let location: Location = location.parse()?;
        match location.folder() {
            Some(folder) => Ok(Memory::open(folder)?.into()),
            None => Ok(location.open(options)?.into()),
        }
    }

    /// Pairs of a memory from which on a GPU searches it. Fewer are searched on the processor whatever was chosen: preparing the GPU and copying
    /// the rows there takes longer than the searches of a short run. The number is a choice, not a measured break-even point.
    pub const MIN_GPU_PAIRS: u64 = 1 << 17;

    /// The same pairs, searched on a device: those of a memory, if there are [`Self::MIN_GPU_PAIRS`] or more. What is found is the same to the bit on
    /// every device. A GPU that fails later is an error of that search. Remote indexes are searched where they are.
    ///
    /// # Errors
    /// Those of [`DeviceChoice::gpu`], for a memory.
    pub fn search_on(mut self, device: DeviceChoice) -> Result<Self> {
        if let Some(memory) = self.0.memory_mut()
            && let Some(gpu) = device.gpu()?
            && memory.len() >= Self::MIN_GPU_PAIRS
        {
            memory.search_on(&gpu);
        }
        Ok(self)
    }

    /// Name of the GPU that searches the pairs, if one does.
    pub fn gpu(&self) -> Option<&str> {
        Some(&self.memory()?.gpu()?.info().name)
    }

    pub(super) fn index(&self) -> &dyn PairIndex {
        &*self.0
    }

    /// The memory, where the pairs are on this machine.
    pub fn memory(&self) -> Option<&Memory> {
        self.0.memory()
    }

    /// The remote index, where they are not.
    pub fn remote(&self) -> Option<&dyn Retriever> {
        self.0.remote()
    }

    /// The folder or URL.
    pub fn location(&self) -> Cow<'_, str> {
        self.0.location()
    }

    /// Files of a memory's search codes that searches have found damaged; see [`Memory::damaged_codes`].
    pub fn damaged_codes(&self) -> Vec<PathBuf> {
        self.memory().map(Memory::damaged_codes).unwrap_or_default()
    }

    /// The model whose embeddings they are, as far as is known.
    pub fn identity(&self) -> Option<&ModelIdentity> {
        self.0.identity()
    }

    /// Which way up its images were decoded, as far as is known.
    pub fn orientation(&self) -> Option<Orientation> {
        self.memory().map(|memory| memory.manifest().orientation)
    }

    /// How many pairs there are, as far as is known.
    pub fn count(&self) -> Option<u64> {
        self.0.count()
    }

    /// The rows whose caption matches a pattern.
    ///
    /// # Errors
    /// [`RetrievalError::RemoteFilter`] for a remote index; [`RetrievalError::NoCaptionMatches`] where nothing would be left.
    pub fn rows_with_caption(&self, pattern: &Regex) -> Result<RowSet> {
        let Some(memory) = self.memory() else {
            return Err(RetrievalError::RemoteFilter { location: self.location().into_owned() }.into());
        };
        let rows = memory.rows_with_caption(pattern)?;
        if rows.is_empty() {
            return Err(RetrievalError::NoCaptionMatches { pattern: pattern.to_string() }.into());
        }
        Ok(rows)
    }
}
