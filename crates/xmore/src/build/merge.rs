//! The parts of a divided build merged into the memory that one build would have made.
//!
//! Rows are copied as they are stored, in the order of the parts, which is that of the sources. What else a memory says of its whole is
//! made of what the parts have recorded: the digest of the sources, what was skipped, how many captions were cut.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xmore_memory::ingest::SkipKind;
use xmore_memory::store::{
    BUILDING_DIR, Cursor, Division, FinishedPart, Manifest, MemoryWriter, PartialBuild, check_part,
    finish_interrupted,
};
use xmore_memory::{Memory, MemoryError, WriteError};

use super::part::{CAPTION_DIGEST, Part, difference};
use super::part_error::PartError;
use super::sources::Digest;
use crate::error::{Result, XmoreError};

/// Rows that are copied between two looks at whether to go on.
const ROWS: u64 = 4096;
/// Missing parts that an error names.
const NAMED: usize = 10;

/// How far a merge has come.
#[derive(Clone, Copy, Debug)]
pub struct MergeProgress {
    /// Pairs copied.
    pub done: u64,
    /// Pairs in all.
    pub total: u64,
}

/// What a merge did.
#[derive(Debug)]
pub struct MergeReport {
    /// The manifest of the memory.
    pub manifest: Manifest,
    /// Pairs that an interrupted run had copied.
    pub resumed: u64,
    /// Whether the memory was there already, so that nothing was written.
    pub was_complete: bool,
}

/// Merges the parts of a divided build, which are in the folders `parts` in any order, into a new memory in `dir`: the one that
/// [`build_memory`](super::build_memory) builds of the same sources, byte for byte. The parts stay as they are.
///
/// `progress` says whether to go on; if not, the call ends with [`XmoreError::Interrupted`], and the same call goes on from there, as it does
/// after a crash. Memory does not grow with the pairs, but for some 16 bytes for each image where the sources are divided by pairs.
///
/// # Errors
/// [`PartError`] for parts that are not all the parts of one build; [`StoreError::Damaged`](xmore_memory::StoreError::Damaged) for files
/// that have changed since; those of writing a memory.
pub fn merge_memories(
    parts: &[impl AsRef<Path>],
    dir: &Path,
    checkpoint_every: Duration,
    progress: &mut dyn FnMut(MergeProgress) -> bool,
) -> Result<MergeReport> {
    let parts = Parts::open(parts)?;
    let digest = parts.digest()?;
    let (first, total) = (&parts.all[0].record, parts.pairs());
    if total == 0 {
        return Err(PartError::NoPairs { of: first.of }.into());
    }
    finish_interrupted(dir)?;
    if let Ok(memory) = Memory::open(dir) {
        let manifest = memory.manifest();
        let is_same = manifest.model.is_same(&first.model)
            && manifest.pairs == total
            && matches!(&manifest.sources[..], [source] if (&source.from, &source.digest) == (&first.from, &digest));
        if is_same {
            return Ok(MergeReport { manifest: manifest.clone(), resumed: 0, was_complete: true });
        }
    }
    let id = parts.id()?;
    let mut writer = MemoryWriter::open_for_copies(dir, first.model.clone(), parts.images()?)?
        .with_orientation(first.orientation)?
        .with_checkpoint_every(checkpoint_every);
    if writer.pairs() > 0 && ![&id, &digest].contains(&&writer.cursor().digest) {
        let (path, model) = (dir.join(BUILDING_DIR), first.model.to_string());
        return Err(MemoryError::from(WriteError::OtherBuild { path, model }).into());
    }
    writer.begin_source(&first.from, None)?;
    parts.skip_all(&mut writer)?;
    let resumed = writer.pairs();
    let mut before = 0;
    for part in &parts.all {
        if let Some(memory) = part.memory()? {
            copy(&memory, before, &mut writer, &mut |writer| {
                let cursor = Cursor { consumed: writer.pairs(), digest: id.clone(), truncated: 0 };
                let go_on = progress(MergeProgress { done: writer.pairs(), total });
                if go_on {
                    writer.checkpoint(cursor)?
                } else {
                    writer.checkpoint_now(cursor)?
                }
                Ok(go_on)
            })?;
            before += memory.len();
        }
    }
    writer.checkpoint_now(Cursor { consumed: total, digest, truncated: parts.truncated()? })?;
    let manifest = writer.finish()?;
    Ok(MergeReport { manifest, resumed, was_complete: false })
}

/// Copies the rows of a memory that a writer does not have; `before` rows of others come before its own. `advance` says whether to go on.
fn copy(
    memory: &Memory,
    before: u64,
    writer: &mut MemoryWriter,
    advance: &mut dyn FnMut(&mut MemoryWriter) -> Result<bool>,
) -> Result<()> {
    let mut first = before;
    for (place, info) in memory.manifest().parts.iter().enumerate() {
        let end = first + info.rows;
        if writer.pairs() < end {
            check_part(memory, place)?;
        }
        while writer.pairs() < end {
            let row = writer.pairs() - first;
            writer.copy(memory, place, row..info.rows.min(row + ROWS))?;
            if !advance(writer)? {
                return Err(XmoreError::Interrupted);
            }
        }
        first = end;
    }
    Ok(())
}

/// A finished part.
struct OpenPart {
    dir: PathBuf,
    record: PartialBuild,
    finished: FinishedPart,
}

impl OpenPart {
    /// Its memory, opened; `None` if it has no pair. Not all are open at once: each takes some maps of the system for every 65,536 rows.
    fn memory(&self) -> Result<Option<Memory>> {
        Ok(self.finished.manifest.as_ref().map(|_| Memory::open(&self.dir)).transpose()?)
    }
}

/// All parts of a build, in order.
struct Parts {
    all: Vec<OpenPart>,
}

impl Parts {
    /// Opens the parts and checks that they are those of one build, all of them, each once.
    fn open(dirs: &[impl AsRef<Path>]) -> Result<Parts> {
        let mut all: Vec<OpenPart> = Vec::new();
        for dir in dirs {
            let dir = dir.as_ref().to_owned();
            let record = PartialBuild::read(&dir)?.ok_or_else(|| PartError::NotAPart { dir: dir.clone() })?;
            if let Some(first) = all.first()
                && let Some(what) = difference(&first.record, &record)
            {
                return Err(PartError::OtherBuild { first: first.dir.clone(), second: dir, what }.into());
            }
            let part = Part::from(&record);
            let Some(finished) = record.finished.clone() else {
                return Err(PartError::Unfinished { dir, part }.into());
            };
            if !finished.is_unchanged(&dir)? {
                return Err(PartError::Changed { dir, part }.into());
            }
            all.push(OpenPart { dir, record, finished });
        }
        all.sort_by_key(|part| part.record.number);
        if let Some([one, other]) = all.array_windows().find(|[a, b]| a.record.number == b.record.number) {
            let (part, first, second) = (Part::from(&one.record), one.dir.clone(), other.dir.clone());
            return Err(PartError::Twice { part, first, second }.into());
        }
        let of = all.first().map_or(0, |part| part.record.of);
        if of == 0 {
            return Err(PartError::NoPairs { of }.into());
        }
        let given: HashSet<u32> = all.iter().map(|part| part.record.number).collect();
        let missing = (1..=of).filter(|number| !given.contains(number));
        match missing.clone().count() {
            0 => Ok(Parts { all }),
            count => Err(PartError::Missing { count, of, first: missing.take(NAMED).collect() }.into()),
        }
    }

    fn pairs(&self) -> u64 {
        self.all.iter().map(|part| part.finished.pairs).sum()
    }

    /// Number of distinct images, where no image is in two parts.
    fn images(&self) -> Result<Option<u64>> {
        if self.all[0].record.division == Division::Pairs {
            return Ok(None);
        }
        let mut images = 0;
        for part in &self.all {
            images += part.memory()?.map_or(0, |memory| memory.manifest().images);
        }
        Ok(Some(images))
    }

    /// Digest of all that the sources list.
    fn digest(&self) -> Result<String> {
        let first = &self.all[0].record;
        if first.division == Division::Pairs {
            return Ok(first.sources.clone());
        }
        let mut digest = Digest::default();
        for part in &self.all {
            part.finished
                .read_listing(&part.dir, |listing| &listing.skipped, &mut |bytes| digest.add(bytes))?;
        }
        for part in &self.all {
            part.finished
                .read_listing(&part.dir, |listing| &listing.pairs, &mut |bytes| digest.add(bytes))?;
        }
        Ok(digest.value())
    }

    /// Digest of what is merged.
    fn id(&self) -> Result<String> {
        let mut digest = Digest::default();
        for OpenPart { finished, .. } in &self.all {
            let manifest = finished.manifest.as_deref().unwrap_or_default();
            let skipped = finished.skipped.as_deref().unwrap_or_default();
            digest.add_strings(&[manifest, skipped, &finished.listing.truncated.sha256]);
        }
        Ok(digest.value())
    }

    /// Number of distinct captions that were cut.
    fn truncated(&self) -> Result<u64> {
        let mut captions: HashSet<[u8; CAPTION_DIGEST]> = HashSet::new();
        for part in &self.all {
            part.finished.read_listing(&part.dir, |listing| &listing.truncated, &mut |bytes| {
                captions.extend(bytes.as_chunks().0);
            })?;
        }
        Ok(captions.len() as u64)
    }

    /// Lists what the parts skipped: first in listing, then in reading images, as one build does.
    fn skip_all(&self, writer: &mut MemoryWriter) -> Result<()> {
        for in_listing in [true, false] {
            for OpenPart { dir, finished, .. } in &self.all {
                let (mut number, mut result) = (0, Ok(()));
                finished.read_skipped(dir, &mut |skip| {
                    if result.is_ok() && (number < finished.skipped_in_listing) == in_listing {
                        let kind = skip.kind.unwrap_or(SkipKind::BrokenImage);
                        result = writer.skip(&skip.path, kind, &skip.reason);
                    }
                    number += 1;
                })?;
                result?;
            }
        }
        Ok(())
    }
}
