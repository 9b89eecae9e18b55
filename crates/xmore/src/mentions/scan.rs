//! The captions of a memory, read once by all cores.

use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use xmore_memory::Memory;

use super::Mentions;
use super::finder::{Finder, Found};
use crate::error::Result;
use crate::retrieve::PairFilter;
use crate::row_hash::row_hash;

/// Rows that a worker takes at once.
const CHUNK: u64 = 16_384;

pub(super) fn scan(memory: &Memory, filter: &PairFilter, finder: &Finder, limit: usize) -> Result<Mentions> {
    let labels = finder.head_of().len();
    let kept: Vec<Kept> = (0..labels).map(|_| Kept::new(limit)).collect();
    let next = AtomicU64::new(0);
    let counts: Vec<Counts> = (0..rayon::current_num_threads())
        .into_par_iter()
        .map(|_| {
            let mut worker = Worker {
                memory,
                filter,
                finder,
                kept: &kept,
                counts: Counts::new(finder),
                named_in: vec![NO_IMAGE; labels],
                head_in: vec![NO_IMAGE; finder.heads()],
                image: Image { first: NO_IMAGE, last: NO_IMAGE, labels: Vec::new(), heads: Vec::new() },
            };
            let mut found = Found::default();
            loop {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= memory.len() {
                    return Ok(worker.counts);
                }
                worker.read(start..(start + CHUNK).min(memory.len()), &mut found)?;
            }
        })
        .collect::<Result<_>>()?;
    let mut total = Counts::new(finder);
    counts.iter().for_each(|counts| total.add(counts));
    let head_only = (0..labels).map(|label| {
        finder.head_of()[label].map_or(0, |head| total.head_images[head as usize] - total.both[label])
    });
    Ok(Mentions {
        head_only: head_only.collect(),
        images: total.images,
        rows: kept.into_iter().map(Kept::into_rows).collect(),
    })
}

/// The number of no image.
const NO_IMAGE: u64 = u64::MAX;

/// Numbers of images.
struct Counts {
    /// Of each label, those that name it.
    images: Vec<u64>,
    /// Of each label, those that name it and have its head.
    both: Vec<u64>,
    /// Of each head, those that have it.
    head_images: Vec<u64>,
}

impl Counts {
    fn new(finder: &Finder) -> Self {
        let labels = finder.head_of().len();
        Self { images: vec![0; labels], both: vec![0; labels], head_images: vec![0; finder.heads()] }
    }

    fn add(&mut self, other: &Self) {
        for (sum, other) in [
            (&mut self.images, &other.images),
            (&mut self.both, &other.both),
            (&mut self.head_images, &other.head_images),
        ] {
            sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
        }
    }
}

/// Images of one label with the smallest hashes, as many as are wanted.
struct Kept {
    limit: usize,
    /// A hash that begins with a larger number is not kept.
    largest: AtomicU64,
    rows: Mutex<BinaryHeap<([u8; 32], u64)>>,
}

impl Kept {
    fn new(limit: usize) -> Self {
        let largest = if limit == 0 { 0 } else { u64::MAX };
        Self { limit, largest: AtomicU64::new(largest), rows: Mutex::default() }
    }

    fn offer(&self, hash: [u8; 32], row: u64) {
        if self.limit == 0 || beginning(&hash) > self.largest.load(Ordering::Relaxed) {
            return;
        }
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.push((hash, row));
        if rows.len() > self.limit {
            rows.pop();
        }
        if rows.len() == self.limit
            && let Some((hash, _)) = rows.peek()
        {
            self.largest.store(beginning(hash), Ordering::Relaxed);
        }
    }

    fn into_rows(self) -> Vec<u64> {
        let rows = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<u64> = rows.into_iter().map(|(_, row)| row).collect();
        rows.sort_unstable();
        rows
    }
}

fn beginning(hash: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

/// Reads rows of its own.
struct Worker<'a> {
    memory: &'a Memory,
    filter: &'a PairFilter,
    finder: &'a Finder,
    kept: &'a [Kept],
    counts: Counts,
    /// For each label the last image that named it, for each head the last that had it.
    named_in: Vec<u64>,
    head_in: Vec<u64>,
    image: Image,
}

/// The image at hand, of which some caption has a label or a head.
struct Image {
    /// Its first row that may be looked at: its number.
    first: u64,
    /// Its last row that was looked at and has something.
    last: u64,
    labels: Vec<u32>,
    heads: Vec<u32>,
}

impl Worker<'_> {
    /// Reads the images that begin in these rows: rows of one image follow one another.
    fn read(&mut self, rows: Range<u64>, found: &mut Found) -> Result<()> {
        let mut start = rows.start;
        while start < rows.end && self.memory.continues_image(start)? {
            start += 1;
        }
        let mut row = start;
        while row < rows.end
            || start < rows.end && row < self.memory.len() && self.memory.continues_image(row)?
        {
            if self.filter.contains(row) {
                self.finder.find(self.memory.caption(row)?, found);
                if !found.labels.is_empty() || !found.heads.is_empty() {
                    self.enter(row, start)?;
                    self.note(found);
                }
            }
            row += 1;
        }
        self.finish();
        Ok(())
    }

    /// Makes a row's image the one at hand. Images of rows that were read before begin at `start` or behind it.
    fn enter(&mut self, row: u64, start: u64) -> Result<()> {
        let (mut first, mut at) = (row, row);
        while at > start && self.memory.continues_image(at)? {
            at -= 1;
            if at == self.image.last {
                self.image.last = row;
                return Ok(());
            }
            if self.filter.contains(at) {
                first = at;
            }
        }
        self.finish();
        self.image.first = first;
        self.image.last = row;
        Ok(())
    }

    fn note(&mut self, found: &Found) {
        let Image { first, labels, heads, .. } = &mut self.image;
        for (seen_in, all, these) in
            [(&mut self.named_in, labels, &found.labels), (&mut self.head_in, heads, &found.heads)]
        {
            for &number in these {
                if std::mem::replace(&mut seen_in[number as usize], *first) != *first {
                    all.push(number);
                }
            }
        }
    }

    /// Counts the image at hand.
    fn finish(&mut self) {
        let Image { first, labels, heads, .. } = &mut self.image;
        if !labels.is_empty() {
            let hash = row_hash(*first);
            for label in labels.drain(..).map(|label| label as usize) {
                self.counts.images[label] += 1;
                let head = self.finder.head_of()[label];
                self.counts.both[label] +=
                    u64::from(head.is_some_and(|head| self.head_in[head as usize] == *first));
                self.kept[label].offer(hash, *first);
            }
        }
        for head in heads.drain(..) {
            self.counts.head_images[head as usize] += 1;
        }
        self.image.last = NO_IMAGE;
    }
}
