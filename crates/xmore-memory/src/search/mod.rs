//! Nearest-neighbour search in a memory: what a hit is and what is asked of a query.
//!
//! The scan of every row is in `exact`. A faster scan (quantised rows with exact re-scoring) goes beside it.

pub(crate) mod codes;
mod dot;
mod exact;
mod top;

use crate::error::{MemoryError, Result};
use crate::store::{Column, Memory, Modality};

/// A pair that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Id of the pair: its row in the memory.
    pub id: u64,
    /// Inner product of the query and the stored embedding; the cosine, since both are unit vectors.
    pub similarity: f32,
}

impl Memory {
    /// The `n` pairs whose images are most similar to each query. `queries` is `[q, dim]`, row after row.
    ///
    /// Returns one list per query, sorted by descending similarity, equal ones by ascending id; shorter than `n`
    /// only if the memory is. The search is exact, and a query's hits have the same bits whatever else is in the
    /// batch, wherever a row is stored and however many threads of the current rayon pool take part. Similarities
    /// are f32 inner products of the query with the stored float16 values. A stored row with a NaN, which this
    /// crate never writes, is never found.
    ///
    /// # Errors
    /// [`MemoryError::QueryLength`] if `queries` is no whole number of rows, [`MemoryError::NotFinite`] if one
    /// holds a NaN or an infinity.
    pub fn search_images(&self, queries: &[f32], n: usize) -> Result<Vec<Vec<Hit>>> {
        self.own().search(Modality::Image, queries, n)
    }

    /// The `n` pairs whose captions are most similar to each query; otherwise as
    /// [`search_images`](Self::search_images).
    ///
    /// # Errors
    /// As [`search_images`](Self::search_images).
    pub fn search_texts(&self, queries: &[f32], n: usize) -> Result<Vec<Vec<Hit>>> {
        self.own().search(Modality::Text, queries, n)
    }
}

impl Column {
    /// The `n` pairs nearest to each query, as [`Memory::search_images`] says.
    ///
    /// # Errors
    /// As [`Memory::search_images`], and [`MemoryError::NoColumn`] if rows have no such embedding.
    pub fn search(&self, modality: Modality, queries: &[f32], n: usize) -> Result<Vec<Vec<Hit>>> {
        let dim = self.dim();
        if !queries.len().is_multiple_of(dim) {
            let model = self.model().name.clone();
            return Err(MemoryError::QueryLength { dim, found: queries.len(), model });
        }
        if let Some(at) = queries.iter().position(|v| !v.is_finite()) {
            let (row, position, value) = ((at / dim) as u64, at % dim, queries[at]);
            return Err(MemoryError::NotFinite { what: "query", row, position, value });
        }
        self.require(modality)?;
        let n = usize::try_from(self.rows()).map_or(n, |len| n.min(len));
        if n == 0 {
            return Ok(vec![Vec::new(); queries.len() / dim]);
        }
        Ok(exact::top_n(self, modality, queries, n))
    }
}

#[cfg(test)]
mod tests;
