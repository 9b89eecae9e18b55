//! Putting finished parts in place, so that a reader sees all of them or none, and the next writer after a crash finishes it.
//!
//! A staging folder is committed when its checkpoint has become `publish.json` beside the new manifest. From then on the steps
//! below are repeated until they are done: each can be done twice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use xmore_files::read_bounded;

use super::files::{names_in, remove_dir_if_there, remove_file_if_there, sync_dir, write_whole};
use super::layout::{
    ALL_SERIES, BUILDING_DIR, EMBEDDING_DIR, EMBEDDING_SETS_DIR, MANIFEST_COPY, MANIFEST_FILE, REPAIRING_DIR,
    SET_ASIDE_DIR, SKIPPED_DIR, Series,
};
use super::lock::Lock;
use super::manifest::Manifest;
use super::sealed::{self, Seal};
use super::staging::{CHECKPOINT_FILE, Staging};
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::{AtPath, Result};
use crate::store::StoreError;

const PUBLISH_FILE: &str = "publish.json";

/// Folder of a repair's staging folder with the files that it takes out, under their paths in the memory.
pub(super) const SET_ASIDE_STAGED: &str = "set-aside";

/// Staging folders of all writers.
const STAGING_DIRS: [&str; 3] = [BUILDING_DIR, EMBEDDING_DIR, REPAIRING_DIR];

/// What is to be done with the parts of a staging folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Publication {
    /// Whether they replace all that is there, or are added to it.
    pub replace: bool,
    /// Folder within the memory's that they go to; empty for the memory itself.
    pub into: PathBuf,
    /// Files of the memory that the new manifest does not have: they are set aside when it is in place.
    #[serde(default)]
    pub take_out: Vec<PathBuf>,
}

/// Commits the parts of a staging folder and puts them in place. `manifest` is the new one.
pub(super) fn publish(
    dir: &Path,
    staging: &Staging,
    publication: &Publication,
    manifest: &Manifest,
) -> Result<()> {
    commit(staging, publication, manifest)?;
    roll_forward_one(dir, &staging.root).map(drop)
}

/// Writes the new manifest and what is to be done: from then on it will be.
pub(super) fn commit(staging: &Staging, publication: &Publication, manifest: &Manifest) -> Result<()> {
    for folder in staging.series.iter().map(|series| series.name).chain([SKIPPED_DIR]) {
        let folder = staging.root.join(folder);
        if folder.is_dir() {
            sync_dir(&folder)?;
        }
    }
    manifest.write(&staging.root.join(MANIFEST_FILE))?;
    let file = staging.root.join(PUBLISH_FILE);
    let text = sealed::seal(publication)
        .map_err(|e| StoreError::Manifest { path: file.clone(), reason: e.to_string() })?;
    write_whole(&file, &text)?;
    sync_dir(&staging.root)
}

/// Whether what is in a staging folder was committed.
pub(super) fn is_committed(root: &Path) -> bool {
    root.join(PUBLISH_FILE).exists()
}

/// Puts in place what a process had completed when it was killed; says whether there was anything. A command that looks whether
/// its work has been done calls this before.
///
/// # Errors
/// [`WriteError::Busy`](super::WriteError::Busy) if a process is at it; [`StoreError::Manifest`], [`MemoryError::Io`].
pub fn finish_interrupted(dir: &Path) -> Result<bool> {
    let is_left = |name: &&str| {
        let root = dir.join(name);
        root.join(PUBLISH_FILE).exists() || is_leftover(dir, &root)
    };
    if !STAGING_DIRS.iter().any(is_left) {
        return Ok(false);
    }
    let _lock = Lock::take(dir)?;
    roll_forward(dir)
}

/// Finishes all that was committed in a memory's folder, which is locked; says whether anything was. Every writer does this
/// first: a manifest that is put in place after another writer's would undo that one's work.
pub(super) fn roll_forward(dir: &Path) -> Result<bool> {
    let mut any = false;
    for name in STAGING_DIRS {
        any |= roll_forward_one(dir, &dir.join(name))?;
    }
    Ok(any)
}

/// The manifest of a staging folder that was committed and is not in place yet, if its manifest is not.
pub(super) fn pending_manifest(dir: &Path) -> Option<Manifest> {
    let roots =
        STAGING_DIRS.iter().map(|name| dir.join(name)).filter(|root| root.join(PUBLISH_FILE).exists());
    roots.into_iter().find_map(|root| Manifest::read(&root.join(MANIFEST_FILE)).ok())
}

/// Whether a staging folder of a memory was committed and is not in place yet.
pub(super) fn is_pending(dir: &Path) -> bool {
    STAGING_DIRS.iter().any(|name| is_committed(&dir.join(name)))
}

/// The same for one staging folder. It moves whatever series are there: the process that committed them may have been asked
/// for others than this one.
fn roll_forward_one(dir: &Path, root: &Path) -> Result<bool> {
    let file = root.join(PUBLISH_FILE);
    let text = match read_bounded(&file, super::manifest::MAX_BYTES) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if is_leftover(dir, root) {
                remove_dir_if_there(root)?;
            }
            return Ok(false);
        }
        text => text.at("read", &file)?,
    };
    // Earlier versions wrote it without a checksum.
    let publication: Result<Publication, String> = match sealed::check(&text) {
        Seal::Missing => serde_json::from_slice(&text).map_err(|e| e.to_string()),
        _ => sealed::open(&text),
    };
    let publication = publication.map_err(|reason| StoreError::Manifest { path: file.clone(), reason })?;
    // Nothing is to be gone on from any more.
    remove_file_if_there(&root.join(CHECKPOINT_FILE))?;
    let staged = root.join(MANIFEST_FILE);
    let published = dir.join(MANIFEST_FILE);
    if staged.exists() {
        // One that is damaged must not replace a good one.
        Manifest::read(&staged)?;
        stop()?;
        let into = dir.join(&publication.into);
        if publication.replace {
            // From here to the last rename the folder has no manifest, so it counts as incomplete.
            remove_file_if_there(&published)?;
            sync_dir(dir)?;
            for gone in [EMBEDDING_SETS_DIR, EMBEDDING_DIR] {
                remove_dir_if_there(&dir.join(gone))?;
            }
        }
        place_series(root, &into, publication.replace)?;
        // Those of a repair.
        let sets = root.join(EMBEDDING_SETS_DIR);
        if sets.is_dir() {
            for name in names_in(&sets)? {
                place_series(&sets.join(&name), &dir.join(EMBEDDING_SETS_DIR).join(&name), false)?;
            }
        }
        // Fails, as it should, if it holds a list.
        let _ = fs::remove_dir(dir.join(SKIPPED_DIR));
        sync_dir(&into)?;
        // Before the other: where nothing is left to be finished, the two are the same.
        write_whole(&dir.join(MANIFEST_COPY), &fs::read(&staged).at("read", &staged)?)?;
        fs::rename(&staged, &published).at("rename to", &published)?;
        sync_dir(dir)?;
    }
    set_aside(dir, root, &publication.take_out)?;
    // The memory is complete; an emptied folder that cannot be removed does not change that.
    let _ = fs::remove_dir_all(root);
    Ok(true)
}

/// Moves what a repair has taken out to where it stays. Done twice, it finds nothing to do the second time.
fn set_aside(dir: &Path, root: &Path, take_out: &[PathBuf]) -> Result<()> {
    let staged = root.join(SET_ASIDE_STAGED);
    if !staged.is_dir() {
        return Ok(());
    }
    let mut folders = BTreeSet::new();
    // A path that leads elsewhere is none of ours.
    let is_within = |path: &&PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
    for path in take_out.iter().filter(is_within) {
        let (from, to) = (dir.join(path), staged.join(path));
        if from.exists() {
            fs::rename(&from, &to).at("rename to", &to)?;
            folders.extend([from, to].iter().filter_map(|path| path.parent()).map(Path::to_owned));
            stop()?;
        }
    }
    for folder in &folders {
        sync_dir(folder)?;
    }
    let all = dir.join(SET_ASIDE_DIR);
    fs::create_dir_all(&all).at("create", &all)?;
    // What an earlier repair set aside stays.
    let free = (0u64..).map(|number| all.join(number.to_string())).find(|path| !path.exists());
    if let Some(place) = free {
        fs::rename(&staged, &place).at("rename to", &place)?;
        sync_dir(&all)?;
        sync_dir(dir)?;
    }
    Ok(())
}

/// Whether a staging folder beside a whole memory is what was left when a process was killed while removing it, or before it had
/// written anything.
fn is_leftover(dir: &Path, root: &Path) -> bool {
    dir.join(MANIFEST_FILE).exists()
        && root.is_dir()
        && ![PUBLISH_FILE, CHECKPOINT_FILE].iter().any(|name| root.join(name).exists())
}

/// Puts the folders of all series and of the lists of skipped things in place.
fn place_series(from: &Path, into: &Path, replace: bool) -> Result<()> {
    for folder in ALL_SERIES.iter().map(|s: &Series| s.name).chain([SKIPPED_DIR]) {
        let from = from.join(folder);
        if from.is_dir() {
            place(&from, &into.join(folder), replace)?;
            stop()?;
        }
    }
    Ok(())
}

/// Moves a folder, or what is in it.
fn place(from: &Path, to: &Path, replace: bool) -> Result<()> {
    if replace {
        remove_dir_if_there(to)?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        return fs::rename(from, to).at("rename to", to);
    }
    fs::create_dir_all(to).at("create", to)?;
    for name in names_in(from)? {
        let target = to.join(&name);
        fs::rename(from.join(&name), &target).at("rename to", &target)?;
    }
    sync_dir(to)
}

#[cfg(test)]
thread_local! {
    static STOP_AFTER: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Makes this thread's next publication fail after so many steps, as a crash would.
#[cfg(test)]
pub(super) fn stop_after(steps: Option<u32>) {
    STOP_AFTER.set(steps);
}

/// Where a crash may come.
fn stop() -> Result<()> {
    #[cfg(test)]
    if let Some(steps) = STOP_AFTER.get() {
        STOP_AFTER.set(Some(steps.saturating_sub(1)));
        if steps == 0 {
            return Err(super::WriteError::WriterFailed { path: PathBuf::new() }.into());
        }
    }
    Ok(())
}
