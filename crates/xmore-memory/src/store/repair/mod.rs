//! Mending a memory: all of it is read and planned first, what is to be new is written beside the memory, and then put in place as
//! a build's parts are. What is made again comes from sound files only; rows that are not sound are set aside, not deleted.

mod examine;
mod stage;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::{remove_dir_if_there, sync_dir, write_whole};
use super::layout::{BUILDING_DIR, EMBEDDING_DIR, MANIFEST_COPY, MANIFEST_FILE, SET_ASIDE_DIR};
use super::lock::Lock;
use super::manifest::Manifest;
use super::publish::{is_committed, roll_forward};
use super::reader::Memory;
use crate::error::{AtPath, MemoryError, Result};
use crate::store::{StoreError, WriteError};
use examine::Plan;
use stage::Stage;

/// What [`repair`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Work that had only to be put in place was.
    pub completed: bool,
    /// Files made again from others.
    pub rebuilt: Vec<PathBuf>,
    /// Pairs that are no longer in the memory.
    pub dropped: u64,
    /// Embedding sets that lost parts.
    pub embedding_sets_cut: usize,
    /// Whether the manifest of an earlier version was brought to this one.
    pub upgraded: bool,
    /// What was done, a line each.
    pub notes: Vec<String>,
    /// Where the files are that were taken out, if any were.
    pub set_aside: Option<PathBuf>,
}

impl RepairReport {
    /// Whether anything was done.
    pub fn changed(&self) -> bool {
        self.completed || self.upgraded || !self.notes.is_empty()
    }
}

/// Mends the memory in `dir`:
///
/// 1. A build, append, further embedding set or repair that had only to be put in place is. A manifest that is damaged is taken from its copy.
/// 2. A part of which a file is torn or missing, or has other content than was recorded, is cut to the rows that are whole in
///    all its files. Content that has changed without a change of size cannot be told row by row: then the part is taken out.
///    Other parts keep their files and names; ids after the rows that are gone change.
/// 3. Files that are missing or damaged and follow from sound ones are made again: lookup files and codes, and each of metadata
///    and lookup from the other.
/// 4. Parts of a further embedding set that are damaged are taken out; `EmbeddingSetWriter` makes them again.
///
/// Rows that are taken out are set aside under their own names in a folder of the memory. Ended at any moment, the memory is as
/// before or as repaired, and the same call ends with the same bytes. An unfinished build is left as it is.
///
/// # Errors
/// [`WriteError::Busy`]; [`StoreError::Manifest`] if neither manifest is sound; [`WriteError::NoSpace`] if the disk has no space for
/// what is to be written: then the memory is as it was; [`MemoryError::Io`].
pub fn repair(dir: &Path) -> Result<RepairReport> {
    if ![MANIFEST_FILE, MANIFEST_COPY, BUILDING_DIR].iter().any(|name| dir.join(name).exists()) {
        // Says what is wrong.
        Memory::open(dir)?;
    }
    let _lock = Lock::take(dir)?;
    repair_locked(dir)
}

/// Opens a memory, which is locked, to be added to: one whose files have no checksums gets them first.
pub(super) fn open_with_checksums(dir: &Path) -> Result<Memory> {
    let memory = Memory::open(dir)?;
    if !memory.manifest().lacks_checksums() {
        return Ok(memory);
    }
    drop(memory);
    repair_locked(dir)?;
    Memory::open(dir)
}

fn repair_locked(dir: &Path) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    if roll_forward(dir)? {
        report.completed = true;
        report.notes.push("put finished files in place, as an interrupted process had begun to".to_owned());
    }
    let manifest = mend_manifest(dir, &mut report)?;
    let plan = Plan::new(dir, &manifest)?;
    report.upgraded = !manifest.is_current();
    if report.upgraded {
        report
            .notes
            .push("brought the manifest to the present format, with a checksum of every file".to_owned());
    }
    if plan.is_empty() && !report.upgraded {
        return Ok(report);
    }
    let needed = plan.bytes(dir, &manifest);
    let stage = Stage::begin(dir, manifest)?;
    let root = stage.root().to_owned();
    let takes_out = plan.takes_out();
    if let Err(error) = stage.write(&plan, &mut report).and_then(Stage::commit) {
        if is_committed(&root) {
            return Err(error);
        }
        // The memory is untouched; another program may need the space that was taken.
        let _ = remove_dir_if_there(&root);
        return Err(no_space(error, dir, needed));
    }
    roll_forward(dir)?;
    for (folder, what) in [(BUILDING_DIR, "append"), (EMBEDDING_DIR, "further embedding set")] {
        if dir.join(folder).exists() {
            let note =
                format!("the unfinished {what} that is there starts anew, since the memory has changed");
            report.notes.push(note);
        }
    }
    if takes_out {
        report.set_aside = Some(dir.join(SET_ASIDE_DIR));
    }
    Ok(report)
}

/// Reads the manifest. Of the two that a memory has, one that is damaged or gone is made again from the other.
fn mend_manifest(dir: &Path, report: &mut RepairReport) -> Result<Manifest> {
    let (path, copy) = (dir.join(MANIFEST_FILE), dir.join(MANIFEST_COPY));
    let mut restore = |from: &Path, to: &Path| {
        write_whole(to, &fs::read(from).at("read", from)?)?;
        sync_dir(dir)?;
        report.notes.push(format!("made {} again from {}", to.display(), from.display()));
        report.rebuilt.push(to.to_owned());
        Ok::<(), MemoryError>(())
    };
    let read = if path.exists() {
        Manifest::read(&path)
    } else {
        Memory::open(dir).map(|memory| memory.manifest().clone())
    };
    match read {
        Ok(manifest) => {
            // Those of earlier versions have no copy, and get it with the new manifest.
            if manifest.is_current() && fs::read(&copy).ok() != fs::read(&path).ok() {
                restore(&path, &copy)?;
            }
            Ok(manifest)
        }
        Err(
            error @ (MemoryError::Store(StoreError::Manifest { .. })
            | MemoryError::Store(StoreError::NotAMemory { .. })
            | MemoryError::Store(StoreError::Incomplete { .. })),
        ) => {
            let Ok(manifest) = Manifest::read(&copy) else { return Err(error) };
            restore(&copy, &path)?;
            Ok(manifest)
        }
        Err(error) => Err(error),
    }
}

/// Says how many bytes a repair needs where the disk has no space for them.
fn no_space(error: MemoryError, dir: &Path, needed: u64) -> MemoryError {
    let full =
        |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    match error {
        MemoryError::Io { source, .. } if full(source.kind()) => {
            WriteError::NoSpace { path: dir.to_owned(), needed, source }.into()
        }
        other => other,
    }
}
