//! The rows of an embedding set as a card searches them: kept there, or copied there at each search where they do not fit.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use half::f16;
use rayon::prelude::*;
use xmore_cuda::{Buffer, CudaError, Device, Stream};

use super::bound::{largest_error, margin};
use super::feed::{Fed, Feed, Place, id_of, number_of, places};
use super::scan::{Asked, Entry, PASS_QUERIES, Scanner, arithmetic, largest_row};
use crate::error::Result;
use crate::search::candidates::Candidate;
use crate::search::codes::quantize::{round_down, round_up};
use crate::search::error::GpuError;
use crate::search::rescore::rescore;
use crate::search::top::Top;
use crate::search::{
    Counts, Found, SearchOptions, SearchPart, VectorError, check_finite, check_parts, search,
};

/// Hits of a query that the card searches for, at most: its lists are as long as a multiple of them.
const MAX_HITS: usize = 4096;

/// Stored elements of a row are a multiple of this on the card.
const WIDTH: usize = 64;

/// Rows, at most: their numbers and those of tiles are `int`s there.
const MAX_ROWS: usize = (i32::MAX - 128) as usize;

/// Bytes of the card's memory that rows leave to the lists of searches, and to others.
const KEPT_FREE: u64 = 2 << 30;

/// Stored rows that a card searches.
///
/// They are given at each search as well, since hits are scored exactly from the rows of this machine.
#[derive(Debug)]
pub struct GpuRows {
    device: Device,
    dim: usize,
    width: usize,
    places: Vec<Place>,
    total: usize,
    /// All rows, where they fit.
    kept: Option<Buffer>,
    /// No row has a larger norm; rows with a NaN do not count.
    largest_norm: f64,
    work: Mutex<Work>,
}

/// What a search uses, one search at a time.
struct Work {
    scanner: Scanner,
    /// Where rows are copied at each search.
    fed: Option<Fed>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("fed", &self.fed.is_some()).finish_non_exhaustive()
    }
}

/// How a card searches rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Whether the rows stay in the card's memory; else they are copied there at each search, once for all of its queries up to 1,024.
    pub keep: bool,
    /// Whether many queries are multiplied with the asynchronous copies and products of Hopper, which only cards of compute capability 9.0
    /// have; else with instructions that all cards from Ampere on have.
    pub hopper: bool,
}

impl GpuOptions {
    /// What is fastest: rows are kept if they fit the card's free memory.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn fastest(device: &Device, rows: u64, dim: usize) -> Result<GpuOptions> {
        let bytes = rows.saturating_mul((dim.next_multiple_of(WIDTH) * size_of::<f16>()) as u64);
        let free = device.free_memory().map_err(failed)? as u64;
        Ok(GpuOptions { keep: bytes.saturating_add(KEPT_FREE) <= free, hopper: device.info().is_hopper() })
    }
}

/// What the time of a search was spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuTimes {
    /// Queries to the card, the card's work, its candidates back.
    pub card: Duration,
    /// Exact scores of the candidates.
    pub scoring: Duration,
    /// Queries that the card did not decide.
    pub without: Duration,
}

impl GpuRows {
    /// Rows of `parts`, which are as [`search`] takes them, for a card, with the fastest options.
    ///
    /// # Errors
    /// [`VectorError::Length`] as [`search`], [`GpuError`].
    pub fn new(device: &Device, parts: &[SearchPart<'_>], dim: usize) -> Result<GpuRows> {
        let options = GpuOptions::fastest(device, check_parts(parts, dim)?, dim)?;
        GpuRows::with_options(device, parts, dim, options)
    }

    /// The same with given options.
    ///
    /// # Errors
    /// As [`GpuRows::new`].
    pub fn with_options(
        device: &Device,
        parts: &[SearchPart<'_>],
        dim: usize,
        options: GpuOptions,
    ) -> Result<GpuRows> {
        let total = check_parts(parts, dim)?;
        if total > MAX_ROWS as u64 {
            return Err(GpuError::TooManyRows { rows: total, max: MAX_ROWS as u64 }.into());
        }
        let (total, width) = (total as usize, dim.next_multiple_of(WIDTH));
        let mut rows = GpuRows {
            device: *device,
            dim,
            width,
            places: places(parts, dim),
            total,
            kept: None,
            largest_norm: 0.0,
            work: Mutex::new(Work {
                scanner: Scanner::new(device, options.hopper).map_err(failed)?,
                fed: None,
            }),
        };
        if total > 0 {
            rows.load(parts, options.keep).map_err(failed)?;
        }
        Ok(rows)
    }

    /// Copies all rows, to stay or not, and finds the largest norm.
    fn load(&mut self, parts: &[SearchPart<'_>], keep: bool) -> xmore_cuda::Result<()> {
        let (device, width, places) = (self.device, self.width, &self.places);
        let mut feed = Feed::new(&device, self.dim, width, self.total)?;
        let stream = Stream::new(&device)?;
        let largest = Buffer::of(&device, &[0u32])?;
        let row_bytes = width * size_of::<f16>();
        let measure = |pointer: u64, count: usize| {
            // SAFETY: the rows are on the card when the stream, which waits for their copy, reads them; buffers outlive the synchronization.
            #[allow(unsafe_code)]
            unsafe {
                largest_row(&stream, pointer, count, width, &largest)
            }
        };
        if keep {
            let all = Buffer::new(&device, self.total * row_bytes)?;
            feed.copy(
                parts,
                places,
                0..self.total,
                |_, _, first| Ok((&all, first * row_bytes)),
                |piece| {
                    stream.wait(piece.copied)?;
                    measure(all.pointer() + (piece.rows.start * row_bytes) as u64, piece.rows.len())
                },
            )?;
            stream.synchronize()?;
            feed.finish()?;
            self.kept = Some(all);
        } else {
            let mut fed = Fed::new(&device, feed)?;
            fed.each(parts, places, 0..self.total, &stream, |pointer, rows| measure(pointer, rows.len()))?;
            stream.synchronize()?;
            self.work.get_mut().unwrap_or_else(PoisonError::into_inner).fed = Some(fed);
        }
        let mut squares = [0u32];
        largest.read(&stream, 0, &mut squares)?;
        // The card's sum of squares is wrong by less than width units of f32's last place.
        self.largest_norm =
            (f64::from(f32::from_bits(squares[0])) * (1.0 + width as f64 * 2f64.powi(-22))).sqrt();
        Ok(())
    }

    /// Whether the rows are in the card's memory.
    pub fn are_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The rows most similar to each query; hits have the bits of [`search`]. `parts` are those that this was made of.
    ///
    /// With a set of allowed rows, more than 4,096 hits, or where the card's scores do not decide a query, that is [`search`] itself.
    ///
    /// # Errors
    /// As [`search`], and [`GpuError`].
    pub fn search(
        &self,
        parts: &[SearchPart<'_>],
        queries: &[f32],
        options: &SearchOptions<'_>,
    ) -> Result<Found> {
        Ok(self.search_timed(parts, queries, options)?.0)
    }

    /// The same, and what the time was spent on.
    ///
    /// # Errors
    /// As [`GpuRows::search`].
    pub fn search_timed(
        &self,
        parts: &[SearchPart<'_>],
        queries: &[f32],
        options: &SearchOptions<'_>,
    ) -> Result<(Found, GpuTimes)> {
        let dim = self.dim;
        check_parts(parts, dim)?;
        if places(parts, dim) != self.places {
            let found = parts.iter().map(|part| part.rows.len() / dim).sum();
            return Err(VectorError::Length { what: "rows on the GPU", expected: self.total, found }.into());
        }
        let mut times = GpuTimes::default();
        let range = options.rows.clone().unwrap_or(0..u64::MAX);
        let numbers = number_of(&self.places, range.start)..number_of(&self.places, range.end);
        let n = options.n.min(numbers.len());
        if options.allowed.is_some()
            || n == 0
            || n > MAX_HITS
            || queries.is_empty()
            || !queries.len().is_multiple_of(dim)
        {
            let start = Instant::now();
            let found = search(parts, dim, queries, options)?;
            times.without = start.elapsed();
            return Ok((found, times));
        }
        check_finite(queries, dim)?;

        // What is found outside a bound here is not the codes' fault.
        let plain: Vec<SearchPart<'_>> =
            parts.iter().map(|part| SearchPart { codes: None, ..*part }).collect();
        let count = queries.len() / dim;
        let mut tops: Vec<Option<Top>> = (0..count).map(|_| None).collect();
        let mut counts = Counts::default();
        for first in (0..count).step_by(PASS_QUERIES) {
            let pass = first..count.min(first + PASS_QUERIES);
            let start = Instant::now();
            let lists =
                self.candidates(parts, &queries[pass.start * dim..pass.end * dim], numbers.clone(), n)?;
            times.card += start.elapsed();
            let start = Instant::now();
            let results: Vec<(Option<Top>, Counts)> = lists
                .into_par_iter()
                .enumerate()
                .map(|(q, list)| match list {
                    None => (None, Counts::default()),
                    Some(list) => {
                        let query = &queries[(first + q) * dim..][..dim];
                        rescore(&plain, query, list, f32::NEG_INFINITY, Top::new(n))
                    }
                })
                .collect();
            for (top, (found, of_query)) in tops[pass].iter_mut().zip(results) {
                counts = counts + of_query;
                counts.undecided += u64::from(found.is_none());
                *top = found;
            }
            times.scoring += start.elapsed();
        }

        let start = Instant::now();
        let left: Vec<usize> = (0..count).filter(|&q| tops[q].is_none()).collect();
        let mut hits: Vec<_> =
            tops.into_iter().map(|top| top.map_or_else(Vec::new, Top::into_hits)).collect();
        if !left.is_empty() {
            let rows: Vec<f32> = left.iter().flat_map(|&q| &queries[q * dim..][..dim]).copied().collect();
            for (&q, found) in left.iter().zip(search(parts, dim, &rows, options)?.hits) {
                hits[q] = found;
            }
            times.without = start.elapsed();
        }
        Ok((Found { hits, counts }, times))
    }

    /// The rows that can be among the n best of each query, with the bounds of their scores; `None` for a query that the card cannot decide.
    fn candidates(
        &self,
        parts: &[SearchPart<'_>],
        queries: &[f32],
        numbers: Range<usize>,
        n: usize,
    ) -> Result<Vec<Option<Vec<Candidate>>>> {
        let dim = self.dim;
        let count = queries.len() / dim;
        // By how many queries there are, also where some of them are not the card's.
        let arithmetic = arithmetic(&self.device, count, self.width);
        let errors: Vec<Option<f32>> = queries
            .chunks_exact(dim)
            .map(|query| largest_error(query, arithmetic, self.width, self.largest_norm))
            .collect();
        let bounded: Vec<usize> = (0..count).filter(|&q| errors[q].is_some()).collect();
        let mut found: Vec<Option<Vec<Candidate>>> = vec![None; count];
        if bounded.is_empty() {
            return Ok(found);
        }
        let values: Vec<f32> = bounded.iter().flat_map(|&q| &queries[q * dim..][..dim]).copied().collect();
        let errors: Vec<f32> = bounded.iter().filter_map(|&q| errors[q]).collect();
        let margins: Vec<f32> = errors.iter().map(|&error| margin(error)).collect();
        let asked = Asked { queries: &values, margins: &margins, dim, width: self.width, arithmetic, n };
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let lists = self.scan(&mut work, parts, &asked, numbers).map_err(failed)?;
        drop(work);
        for ((&q, list), error) in bounded.iter().zip(lists).zip(errors) {
            found[q] = list.map(|list| list.into_iter().map(|entry| self.candidate(entry, error)).collect());
        }
        Ok(found)
    }

    fn candidate(&self, entry: Entry, error: f32) -> Candidate {
        let (score, error) = (f64::from(entry.score), f64::from(error));
        Candidate {
            id: id_of(&self.places, entry.row as usize),
            lower: round_down(score - error),
            upper: round_up(score + error),
        }
    }

    /// One pass of the card.
    fn scan(
        &self,
        work: &mut Work,
        parts: &[SearchPart<'_>],
        asked: &Asked<'_>,
        numbers: Range<usize>,
    ) -> xmore_cuda::Result<Vec<Option<Vec<Entry>>>> {
        let Work { scanner, fed } = work;
        let mut pass = scanner.begin(asked)?;
        let stream = pass.stream();
        match (&self.kept, fed) {
            (Some(all), _) => {
                let at = all.pointer() + (numbers.start * self.width * size_of::<f16>()) as u64;
                // SAFETY: rows with these numbers are there as long as `self` is.
                #[allow(unsafe_code)]
                unsafe {
                    pass.rows(at, numbers.start, numbers.len())?;
                }
            }
            (None, Some(fed)) => fed.each(parts, &self.places, numbers, stream, |pointer, rows| {
                // SAFETY: these rows stay there until the next piece of their turn, which waits for the stream.
                #[allow(unsafe_code)]
                unsafe {
                    pass.rows(pointer, rows.start, rows.len())
                }
            })?,
            // Without rows there is no search.
            (None, None) => {}
        }
        pass.finish()
    }
}

/// The error of a search for one of the card.
fn failed(source: CudaError) -> GpuError {
    GpuError::Failed { source }
}
