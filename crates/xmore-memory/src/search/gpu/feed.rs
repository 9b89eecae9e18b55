//! Stored rows to the card, piece by piece through two pinned buffers: one is filled while the other is copied.

use std::ops::Range;

use half::f16;
use xmore_cuda::{Buffer, Device, Event, PinnedBuffer, Result, Stream};

use crate::search::SearchPart;

/// Bytes of a piece, about.
const PIECE_BYTES: usize = 128 << 20;

/// Rows that a thread copies, at least.
const COPY_ROWS: usize = 2048;

/// Where the rows of a part are among all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub first_id: u64,
    /// Number of the first row.
    pub start: usize,
    pub rows: usize,
}

/// The parts' places, one after another.
pub(super) fn places(parts: &[SearchPart<'_>], dim: usize) -> Vec<Place> {
    let mut start = 0;
    parts
        .iter()
        .map(|part| {
            let place = Place { first_id: part.first_id, start, rows: part.rows.len() / dim };
            start += place.rows;
            place
        })
        .collect()
}

/// Number of the first row whose id is not below `id`; the number of rows if there is none.
pub(super) fn number_of(places: &[Place], id: u64) -> usize {
    match places.partition_point(|place| place.first_id <= id).checked_sub(1) {
        None => 0,
        Some(i) => {
            places[i].start
                + places[i].rows.min(usize::try_from(id - places[i].first_id).unwrap_or(usize::MAX))
        }
    }
}

/// Id of the row with a number, which is one of the places'.
pub(super) fn id_of(places: &[Place], number: usize) -> u64 {
    // An empty part is never the last to begin at a number below the end.
    let place = &places[places.partition_point(|place| place.start <= number) - 1];
    place.first_id + (number - place.start) as u64
}

/// The rows with numbers in `range`, each with zeros to `width`, as they are on the card.
///
/// By threads of its own: the caller holds a lock, and a thread of a rayon pool that waits may take up a task that waits for that lock.
fn copy_rows(
    parts: &[SearchPart<'_>],
    places: &[Place],
    range: Range<usize>,
    dim: usize,
    width: usize,
    out: &mut [f16],
) {
    let rows = range.len().div_ceil(rayon::current_num_threads()).max(COPY_ROWS);
    std::thread::scope(|scope| {
        for (i, out) in out[..range.len() * width].chunks_mut(rows * width).enumerate() {
            let first = range.start + i * rows;
            scope.spawn(move || copy_some_rows(parts, places, first, dim, width, out));
        }
    });
}

/// As [`copy_rows`], as many as `out` holds from number `first` on.
fn copy_some_rows(
    parts: &[SearchPart<'_>],
    places: &[Place],
    first: usize,
    dim: usize,
    width: usize,
    mut out: &mut [f16],
) {
    let mut at = first;
    while !out.is_empty() {
        let part = places.partition_point(|place| place.start <= at) - 1;
        let in_part = at - places[part].start;
        let rows = (places[part].rows - in_part).min(out.len() / width);
        let (to, rest) = out.split_at_mut(rows * width);
        let from = &parts[part].rows[in_part * dim..][..rows * dim];
        if width == dim {
            to.copy_from_slice(from);
        } else {
            for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(dim)) {
                to[..dim].copy_from_slice(from);
                to[dim..].fill(f16::ZERO);
            }
        }
        at += rows;
        out = rest;
    }
}

/// Copies pieces of rows to a card.
pub(super) struct Feed {
    stream: Stream,
    pinned: [PinnedBuffer; 2],
    /// When a pinned buffer was copied.
    copied: [Event; 2],
    dim: usize,
    width: usize,
    piece_rows: usize,
}

/// A piece that is being copied.
pub(super) struct Piece<'f> {
    /// Which of two it is: pieces take turns.
    pub turn: usize,
    /// Numbers of its rows.
    pub rows: Range<usize>,
    /// When it is on the card.
    pub copied: &'f Event,
}

impl Feed {
    /// For `total` rows of `dim` elements, `width` on the card.
    pub fn new(device: &Device, dim: usize, width: usize, total: usize) -> Result<Self> {
        let row_bytes = width * size_of::<f16>();
        let piece_rows = (PIECE_BYTES / row_bytes).clamp(1, total.max(1));
        let pinned = || PinnedBuffer::new(device, piece_rows * row_bytes);
        Ok(Self {
            stream: Stream::new(device)?,
            pinned: [pinned()?, pinned()?],
            copied: [Event::new(device)?, Event::new(device)?],
            dim,
            width,
            piece_rows,
        })
    }

    /// Copies rows with numbers in `range`. `place` says where a piece goes, a buffer and an offset in it, and may let the stream wait first;
    /// `used` queues what is done with it.
    ///
    /// # Errors
    /// Those of copying, of `place` and of `used`.
    pub fn copy<'b>(
        &mut self,
        parts: &[SearchPart<'_>],
        places: &[Place],
        range: Range<usize>,
        place: impl Fn(&Stream, usize, usize) -> Result<(&'b Buffer, usize)>,
        mut used: impl FnMut(&Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        // A copy of a search that failed may still read a pinned buffer.
        self.stream.synchronize()?;
        for (i, start) in range.clone().step_by(self.piece_rows).enumerate() {
            let (turn, rows) = (i % 2, start..range.end.min(start + self.piece_rows));
            if i >= 2 {
                self.copied[turn].synchronize()?;
            }
            let pinned = bytemuck::cast_slice_mut(self.pinned[turn].as_mut_slice());
            copy_rows(parts, places, rows.clone(), self.dim, self.width, pinned);
            let (buffer, offset) = place(&self.stream, i, start)?;
            let bytes = rows.len() * self.width * size_of::<f16>();
            // SAFETY: the pinned buffer is written again only after `copied`, and dropped with this value, whose stream's work the driver
            // waits for; `place` gives memory that nothing else uses until then.
            #[allow(unsafe_code)]
            unsafe {
                self.pinned[turn].copy_to_offset(&self.stream, buffer, offset, bytes)?;
            }
            self.copied[turn].record(&self.stream)?;
            used(&Piece { turn, rows, copied: &self.copied[turn] })?;
        }
        Ok(())
    }

    /// Waits until all copies are done.
    pub fn finish(&self) -> Result<()> {
        self.stream.synchronize()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The pinned buffers are given back next; what failed was said before.
        let _ = self.stream.synchronize();
    }
}

/// Rows that are copied at each search, with the card's memory for two pieces.
pub(super) struct Fed {
    feed: Feed,
    pieces: [Buffer; 2],
    /// When a piece was scanned.
    scanned: [Event; 2],
}

impl Fed {
    pub fn new(device: &Device, feed: Feed) -> Result<Self> {
        let bytes = feed.piece_rows * feed.width * size_of::<f16>();
        let piece = || Buffer::new(device, bytes);
        Ok(Self { pieces: [piece()?, piece()?], scanned: [Event::new(device)?, Event::new(device)?], feed })
    }

    /// Copies rows with numbers in `range` and queues what is `used` of each piece, at a place on the card, on a stream. The stream has done the
    /// work of earlier calls.
    ///
    /// # Errors
    /// Those of copying and of `used`.
    pub fn each(
        &mut self,
        parts: &[SearchPart<'_>],
        places: &[Place],
        range: Range<usize>,
        stream: &Stream,
        mut used: impl FnMut(u64, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let Self { feed, pieces, scanned } = self;
        feed.copy(
            parts,
            places,
            range,
            |copies, i, _| {
                if i >= 2 {
                    copies.wait(&scanned[i % 2])?;
                }
                Ok((&pieces[i % 2], 0))
            },
            |piece| {
                stream.wait(piece.copied)?;
                used(pieces[piece.turn].pointer(), piece.rows.clone())?;
                scanned[piece.turn].record(stream)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_copied_by_number_and_padded(
            lengths in prop::collection::vec(0usize..3000, 1..5), gap in 0u64..3, dim in 1usize..4, from in 0.0f64..1.0, to in 0.0f64..1.0,
        ) {
            let stored: Vec<Vec<f16>> = lengths.iter().enumerate()
                .map(|(p, &rows)| (0..rows * dim).map(|i| f16::from_f32(((i + p) % 1000) as f32)).collect()).collect();
            let mut next = gap;
            let parts: Vec<SearchPart<'_>> = stored.iter().map(|rows| {
                let part = SearchPart { first_id: next, rows, codes: None };
                next += (rows.len() / dim) as u64 + gap;
                part
            }).collect();
            let places = places(&parts, dim);
            let total: usize = lengths.iter().sum();
            let (a, b) = ((from * total as f64) as usize, (to * total as f64) as usize);
            let range = a.min(b)..a.max(b);
            let width = dim + 2;
            let mut out = vec![f16::NAN; total * width];
            copy_rows(&parts, &places, range.clone(), dim, width, &mut out);
            for (number, row) in range.zip(out.chunks(width)) {
                let id = id_of(&places, number);
                prop_assert_eq!(number_of(&places, id), number);
                let part = parts.iter().find(|p| (p.first_id..p.first_id + (p.rows.len() / dim) as u64).contains(&id)).unwrap();
                let stored = &part.rows[(id - part.first_id) as usize * dim..][..dim];
                prop_assert_eq!(&row[..dim], stored);
                prop_assert!(row[dim..].iter().all(|&x| x == f16::ZERO));
            }
            prop_assert_eq!(number_of(&places, u64::MAX), total);
            prop_assert_eq!(number_of(&places, 0), 0);
        }
    }
}
