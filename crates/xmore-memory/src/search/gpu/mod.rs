//! Exact search on an NVIDIA GPU.
//!
//! The card scores every row with the queries (`scan`) and keeps those that can be among a query's best: its scores are not the exact ones, but
//! no farther from them than `bound` proves, so what it keeps is cut that much lower. This machine then scores the rows that are kept in the
//! one order of summation (`rescore`), so hits have the bits of a search without a card. Where the bound does not decide a query (its list of
//! rows overflows, or holds a score outside the bound, or the query is beyond the range of f16) it is searched for without the card. A failure of
//! the card is an error.
//!
//! `schedule` says which rows are scanned when, `feed` copies them, `rows` has it all together.

mod bound;
mod feed;
mod rows;
mod scan;
mod schedule;

use std::sync::{Arc, Mutex, PoisonError};

use xmore_cuda::Device;

use super::SearchPart;
use crate::error::Result;
use crate::store::{EmbeddingSet, Memory, Modality};
pub use rows::{GpuOptions, GpuRows, GpuTimes};

/// A card that an embedding set is searched on, and the rows of each modality that were searched.
#[derive(Debug)]
pub(crate) struct GpuSearch {
    device: Device,
    images: Mutex<Option<Arc<GpuRows>>>,
    texts: Mutex<Option<Arc<GpuRows>>>,
}

impl GpuSearch {
    pub fn new(device: Device) -> GpuSearch {
        GpuSearch { device, images: Mutex::default(), texts: Mutex::default() }
    }

    /// The rows of a modality, copied to the card at the first call.
    pub fn rows(&self, modality: Modality, parts: &[SearchPart<'_>], dim: usize) -> Result<Arc<GpuRows>> {
        let rows = match modality {
            Modality::Image => &self.images,
            Modality::Text => &self.texts,
        };
        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = &*rows {
            return Ok(rows.clone());
        }
        let copied = Arc::new(GpuRows::new(&self.device, parts, dim)?);
        *rows = Some(copied.clone());
        Ok(copied)
    }
}

impl Memory {
    /// Searches on a GPU from now on, in every embedding set. Rows of a modality are copied there at its first search; hits are the same, and a
    /// failure of the GPU is an error of the search.
    pub fn search_on(&mut self, device: &Device) {
        self.embedding_sets_mut().iter_mut().for_each(|set| set.search_on(device));
    }

    /// The GPU that searches, if one does.
    pub fn gpu(&self) -> Option<&Device> {
        self.primary().gpu.as_ref().map(|search| &search.device)
    }
}

impl EmbeddingSet {
    /// As [`Memory::search_on`], for this embedding set.
    pub fn search_on(&mut self, device: &Device) {
        self.gpu = Some(GpuSearch::new(*device));
    }
}
