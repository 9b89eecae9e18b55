//! Nearest-neighbor search: what a hit is and what is asked of a query.
//!
//! Every search is exact. Where a part has [`codes`], one pass over them (8 bits a dimension) bounds every row's score, and only
//! the rows that can be among the best are read and scored (`coded`, `bounds`, `rescore`); where it has none, or where the bounds
//! do not decide, every row is (`exact`). Scores are those of `dot` either way, so the results have the same bits. With the Cargo
//! feature `cuda` a memory can be searched on an NVIDIA GPU (`gpu`), again with the same bits.

mod bounds;
mod candidates;
mod coded;
pub mod codes;
mod digits;
mod dot;
pub(crate) mod error;
mod exact;
mod first_look;
#[cfg(feature = "cuda")]
pub mod gpu;
mod rescore;
mod rowset;
mod tiles;
mod top;

use std::ops::{Add, Range};

use half::f16;

use crate::error::Result;
#[cfg(doc)]
use crate::store::StoreError;
use crate::store::{EmbeddingSet, Memory, Modality};
use coded::CodedQuery;
use codes::Codes;
use digits::Digits;
#[cfg(feature = "cuda")]
pub use error::GpuError;
pub use error::VectorError;
use rowset::Filter;
pub use rowset::RowSet;
use top::Top;

/// A pair that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Id of the pair: its row in the memory.
    pub id: u64,
    /// Inner product of the query and the stored embedding; the cosine, since both are unit vectors.
    pub similarity: f32,
}

/// How many rows to find, and among which.
#[derive(Debug, Clone)]
pub struct SearchOptions<'a> {
    /// Hits of each query, fewer where fewer rows may be found.
    pub n: usize,
    /// Only rows with these ids; all with `None`.
    pub rows: Option<Range<u64>>,
    /// Only rows in this set; all with `None`.
    pub allowed: Option<&'a RowSet>,
}

impl SearchOptions<'_> {
    /// The `n` best of all rows.
    pub fn new(n: usize) -> SearchOptions<'static> {
        SearchOptions { n, rows: None, allowed: None }
    }
}

/// Rows to search: consecutive ids, one file of a memory.
#[derive(Debug, Clone, Copy)]
pub struct SearchPart<'a> {
    /// Id of the first row.
    pub first_id: u64,
    /// Stored rows, `[rows, dim]`.
    pub rows: &'a [f16],
    /// Their codes; without them every row is read.
    pub codes: Option<&'a Codes>,
}

/// What a search did, summed over its queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that the codes, or the scores of a GPU, could not exclude.
    pub candidates: u64,
    /// Rows of those that were scored exactly.
    pub scored: u64,
    /// Queries for which every row was scored, although there are codes: the bounds did not decide, or scores were outside them. Of a
    /// search on a GPU, those that it did not decide.
    pub undecided: u64,
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            candidates: self.candidates + other.candidates,
            scored: self.scored + other.scored,
            undecided: self.undecided + other.undecided,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// One list per query, best first.
    pub hits: Vec<Vec<Hit>>,
    /// What it took.
    pub counts: Counts,
}

/// A filter that leaves fewer than one row in this many is followed row by row: blocks of codes would be computed for one row.
const SPARSE: u64 = 32;

/// With fewer rows than this for each hit, bounding them, of which many can be among the best, costs more than scoring them all.
const ROWS_FOR_A_HIT: u64 = 256;

/// The rows of `parts` that are most similar to each query. `parts` are in the order of their ids, which do not overlap; `queries`
/// is `[q, dim]`, row after row.
///
/// Each list is sorted by descending similarity, equal ones by ascending id. The search is exact, and a query's hits have the same
/// bits whatever else is in the batch, with codes or without, wherever a row is stored and however many threads of the current
/// rayon pool take part. A row with a NaN is never found.
///
/// # Errors
/// [`VectorError::Length`] if queries, rows or codes are of another dimension than `dim`, or parts overlap;
/// [`VectorError::NotFinite`] if a query holds a NaN or an infinity.
pub fn search(
    parts: &[SearchPart<'_>],
    dim: usize,
    queries: &[f32],
    options: &SearchOptions<'_>,
) -> Result<Found> {
    let total = check_parts(parts, dim)?;
    if !queries.len().is_multiple_of(dim) {
        return Err(
            VectorError::Length { what: "batch of queries", expected: dim, found: queries.len() }.into()
        );
    }
    check_finite(queries, dim)?;
    let filter = Filter { rows: options.rows.clone().unwrap_or(0..u64::MAX), allowed: options.allowed };
    let at_most = filter.at_most(total);
    let n = usize::try_from(at_most).map_or(options.n, |rows| rows.min(options.n));
    let count = queries.len() / dim;
    if n == 0 || count == 0 {
        return Ok(Found { hits: vec![Vec::new(); count], counts: Counts::default() });
    }

    let mut tops: Vec<Option<Top>> = (0..count).map(|_| None).collect();
    let mut counts = Counts::default();
    let (coded, plain): (Vec<_>, Vec<_>) =
        parts.iter().copied().partition(|part| part.codes.is_some_and(Codes::are_trusted));
    if !coded.is_empty() && at_most / ROWS_FOR_A_HIT >= n as u64 && at_most >= total / SPARSE {
        counts = search_coded(&coded, &plain, dim, queries, n, &filter, &mut tops);
    }
    let left: Vec<usize> = (0..count).filter(|&q| tops[q].is_none()).collect();
    let rows: Vec<f32> = left.iter().flat_map(|&q| &queries[q * dim..][..dim]).copied().collect();
    for (&q, top) in left.iter().zip(exact::top_n(parts, dim, &rows, n, &filter)) {
        tops[q] = Some(top);
    }
    let hits = tops.into_iter().map(|top| top.map_or_else(Vec::new, Top::into_hits)).collect();
    Ok(Found { hits, counts })
}

/// Answers what the codes decide; the other queries' places stay empty.
fn search_coded(
    coded: &[SearchPart<'_>],
    plain: &[SearchPart<'_>],
    dim: usize,
    queries: &[f32],
    n: usize,
    filter: &Filter<'_>,
    tops: &mut [Option<Top>],
) -> Counts {
    let (places, queries): (Vec<usize>, Vec<CodedQuery<'_>>) = queries
        .chunks_exact(dim)
        .enumerate()
        .filter_map(|(q, values)| Some((q, CodedQuery { values, digits: Digits::new(values)? })))
        .unzip();
    let mut counts = Counts { undecided: (tops.len() - places.len()) as u64, ..Counts::default() };
    for (places, queries) in places.chunks(coded::PASS_QUERIES).zip(queries.chunks(coded::PASS_QUERIES)) {
        // Parts without codes come first: their scores raise the floor for the others.
        let values: Vec<f32> = queries.iter().flat_map(|q| q.values).copied().collect();
        let found = exact::top_n(plain, dim, &values, n, filter);
        let (found, of_pass) = coded::top_n(coded, queries, n, filter, found);
        counts = counts + of_pass;
        for (&q, top) in places.iter().zip(found) {
            counts.undecided += u64::from(top.is_none());
            tops[q] = top;
        }
    }
    counts
}

/// Checks the parts and counts their rows.
fn check_parts(parts: &[SearchPart<'_>], dim: usize) -> Result<u64> {
    let (mut total, mut next) = (0, 0);
    for part in parts {
        if dim == 0 || !part.rows.len().is_multiple_of(dim) {
            let found = part.rows.len();
            return Err(VectorError::Length { what: "part of a memory", expected: dim, found }.into());
        }
        let rows = part.rows.len() / dim;
        if let Some(codes) = part.codes
            && (codes.rows(), codes.dim()) != (rows, dim)
        {
            let (expected, found) = (rows * dim, codes.rows() * codes.dim());
            return Err(VectorError::Length { what: "codes of a part", expected, found }.into());
        }
        if part.first_id < next {
            let found = part.first_id as usize;
            return Err(
                VectorError::Length { what: "ids before a part", expected: next as usize, found }.into()
            );
        }
        next = part.first_id.saturating_add(rows as u64);
        total += rows as u64;
    }
    Ok(total)
}

fn check_finite(queries: &[f32], dim: usize) -> Result<()> {
    match queries.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (row, position, value) = ((at / dim) as u64, at % dim, queries[at]);
            Err(VectorError::NotFinite { what: "query", row, position, value }.into())
        }
    }
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
    /// [`VectorError::QueryLength`] if `queries` is no whole number of rows, [`VectorError::NotFinite`] if one
    /// holds a NaN or an infinity.
    pub fn search_images(&self, queries: &[f32], n: usize) -> Result<Vec<Vec<Hit>>> {
        self.primary().search(Modality::Image, queries, n)
    }

    /// The `n` pairs whose captions are most similar to each query; otherwise as
    /// [`search_images`](Self::search_images).
    ///
    /// # Errors
    /// As [`search_images`](Self::search_images).
    pub fn search_texts(&self, queries: &[f32], n: usize) -> Result<Vec<Vec<Hit>>> {
        self.primary().search(Modality::Text, queries, n)
    }

    /// The pairs whose images are most similar to each query, among those that the options allow, and what it took to find them;
    /// otherwise as [`search_images`](Self::search_images).
    ///
    /// # Errors
    /// As [`search_images`](Self::search_images).
    pub fn search_images_with(&self, queries: &[f32], options: &SearchOptions<'_>) -> Result<Found> {
        self.primary().search_with(Modality::Image, queries, options)
    }

    /// The pairs whose captions are most similar to each query; otherwise as
    /// [`search_images_with`](Self::search_images_with).
    ///
    /// # Errors
    /// As [`search_images`](Self::search_images).
    pub fn search_texts_with(&self, queries: &[f32], options: &SearchOptions<'_>) -> Result<Found> {
        self.primary().search_with(Modality::Text, queries, options)
    }
}

impl EmbeddingSet {
    /// The `n` pairs most similar to each query in this embedding set; otherwise as [`Memory::search_images`].
    ///
    /// # Errors
    /// As [`Memory::search_images`], and [`StoreError::NoEmbeddings`] if rows have no such embedding.
    pub fn search(&self, modality: Modality, queries: &[f32], n: usize) -> Result<Vec<Vec<Hit>>> {
        Ok(self.search_with(modality, queries, &SearchOptions::new(n))?.hits)
    }

    /// The same among those rows that the options allow, and what it took to find them.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_with(
        &self,
        modality: Modality,
        queries: &[f32],
        options: &SearchOptions<'_>,
    ) -> Result<Found> {
        let dim = self.dim();
        if !queries.len().is_multiple_of(dim) {
            let model = self.model().name.clone();
            return Err(VectorError::QueryLength { dim, found: queries.len(), model }.into());
        }
        self.require(modality)?;
        let parts = self.parts().iter().filter_map(|part| {
            let embeddings = part.embeddings(modality)?;
            let (rows, codes) = (embeddings.matrix.data(), embeddings.codes.as_ref());
            Some(SearchPart { first_id: part.first_id(), rows, codes })
        });
        let parts: Vec<SearchPart<'_>> = parts.collect();
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            return gpu.rows(modality, &parts, dim)?.search(&parts, queries, options);
        }
        search(&parts, dim, queries, options)
    }
}

#[cfg(test)]
mod tests;
