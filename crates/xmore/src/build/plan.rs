//! What of the sources a memory does not have yet.
//!
//! Whether a memory is new, has grown, lacks what could not be read, or was left by a process that was killed: what is to be done is
//! what the sources list without what is there. The rows of an interrupted process stay, so the rows come in the same order as
//! without the interruption.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use xmore_memory::Memory;
use xmore_memory::ingest::{EmbeddingsBatch, Pair, SkipKind};
use xmore_memory::store::{KnownBy, KnownPairs, MemoryWriter, PairKey, PairKeys, read_skip_list};

use super::EMBEDDED_BATCH;
use super::sources::Sources;
use crate::error::Result;

/// Who wrote a row that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// An earlier build or append, which came to its end.
    Earlier,
    /// A process that was interrupted.
    Interrupted,
}

/// What is to be read and encoded, and what is there.
pub(super) struct Plan {
    /// Images with captions that no row has.
    pub pairs: Vec<Pair>,
    /// Pairs that the memory has.
    pub present: u64,
    /// Pairs that were listed before.
    pub repeated: u64,
    /// Rows of the memory that the sources do not list.
    pub unlisted: u64,
    /// Rows of an interrupted process that the sources do not list.
    pub stray: u64,
    keys: PairKeys,
    /// Rows of embeddings that are there or have been met.
    known_rows: HashSet<PairKey>,
    /// Rows of embeddings that are there and have not been met.
    there_rows: HashMap<PairKey, Writer>,
    /// Images that failed when the memory was last built from these sources.
    failed_before: HashSet<PairKey>,
}

impl Plan {
    /// Compares sources with what a writer has.
    pub fn new(sources: &Sources, writer: &mut MemoryWriter) -> Result<Plan> {
        let mut keys = PairKeys::default();
        let by = known_by(sources);
        let [earlier, interrupted] = writer.known_pairs(&mut keys, by)?;
        let mut pairs = Vec::new();
        let (mut present, mut repeated) = (0, 0);
        let mut listed = HashSet::new();
        for pair in &sources.pairs {
            let image = pair.image.to_string();
            let mut captions = Vec::new();
            for caption in &pair.captions {
                let key = keys.of_pair(&image, caption);
                if !listed.insert(key) {
                    repeated += 1;
                } else if earlier.pairs.contains(&key) {
                    present += 1;
                } else if !interrupted.pairs.contains(&key) {
                    captions.push(caption.clone());
                }
            }
            if !captions.is_empty() {
                pairs.push(Pair { image: pair.image.clone(), captions });
            }
        }
        let stray = match writer.pairs() {
            0 => 0,
            rows => unlisted(sources, &keys, &interrupted, &listed, rows)?,
        };
        // Of rows of embeddings it would take another pass to know, for the sake of a line.
        let unlisted = if by.rows { 0 } else { earlier.pairs.difference(&listed).count() as u64 };
        let known_rows = earlier.rows.union(&interrupted.rows).copied().collect();
        let mut there_rows: HashMap<_, _> =
            interrupted.rows.into_iter().map(|key| (key, Writer::Interrupted)).collect();
        there_rows.extend(earlier.rows.into_iter().map(|key| (key, Writer::Earlier)));
        let failed_before = HashSet::new();
        Ok(Plan { pairs, present, repeated, unlisted, stray, keys, known_rows, there_rows, failed_before })
    }

    /// Which rows of a batch of embeddings are new; the others are counted.
    pub fn new_rows(&mut self, batch: &EmbeddingsBatch, dim: usize) -> Vec<bool> {
        let mut new = Vec::with_capacity(batch.len());
        for (row, (path, caption)) in batch.image_paths.iter().zip(&batch.captions).enumerate() {
            let key = self.keys.of_row(path, caption, &batch.images[row * dim..(row + 1) * dim]);
            let is_new = self.known_rows.insert(key);
            if !is_new {
                match self.there_rows.remove(&key) {
                    Some(Writer::Earlier) => self.present += 1,
                    Some(Writer::Interrupted) => {}
                    None => self.repeated += 1,
                }
            }
            new.push(is_new);
        }
        new
    }

    /// Learns from a memory's list what failed when it was last built from these sources. A list that cannot be read tells nothing.
    pub fn learn_failures(&mut self, dir: &Path, entry: usize) {
        let _ = read_skip_list(dir, entry, &mut |skip| {
            if skip.kind.is_none_or(SkipKind::is_failure) {
                self.failed_before.insert(self.keys.of_image(&skip.path));
            }
            true
        });
    }

    /// Whether an image failed when the memory was last built from these sources.
    pub fn failed_before(&mut self, image: &str) -> bool {
        !self.failed_before.is_empty() && self.failed_before.contains(&self.keys.of_image(image))
    }
}

/// Whether sources list every pair of a memory: then the memory is what they were before they grew.
pub(super) fn is_covered(memory: &Memory, sources: &Sources) -> Result<bool> {
    let mut keys = PairKeys::default();
    let known = KnownPairs::of_memory(memory, &mut keys, known_by(sources))?;
    let mut listed = HashSet::new();
    for pair in &sources.pairs {
        let image = pair.image.to_string();
        listed.extend(pair.captions.iter().map(|caption| keys.of_pair(&image, caption)));
    }
    Ok(unlisted(sources, &keys, &known, &listed, memory.len())? == 0)
}

fn known_by(sources: &Sources) -> KnownBy {
    KnownBy { pairs: !sources.pairs.is_empty(), rows: !sources.embedded.is_empty() }
}

/// How many of `rows` rows, whose keys are `known`, are neither among the pairs `listed` nor among the sources' rows of embeddings.
fn unlisted(
    sources: &Sources,
    keys: &PairKeys,
    known: &KnownPairs,
    listed: &HashSet<PairKey>,
    rows: u64,
) -> Result<u64> {
    if sources.embedded.is_empty() {
        return Ok(match sources.pairs.is_empty() {
            true => rows,
            false => known.pairs.difference(listed).count() as u64,
        });
    }
    let mut found = known.pairs.intersection(listed).count() as u64;
    let mut left = known.rows.clone();
    for folder in &sources.embedded {
        let dim = folder.dim();
        for batch in folder.batches(EMBEDDED_BATCH) {
            let batch = batch?;
            for (row, (path, caption)) in batch.image_paths.iter().zip(&batch.captions).enumerate() {
                let key = keys.of_row(path, caption, &batch.images[row * dim..(row + 1) * dim]);
                found += u64::from(left.remove(&key));
            }
        }
    }
    Ok(rows.saturating_sub(found))
}
