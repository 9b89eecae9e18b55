//! Putting finished parts in place, so that a reader sees all of them or none, and whoever comes after a crash finishes it.
//!
//! A staging folder is committed when its checkpoint has become `publish.json` beside the new manifest. From then on the steps
//! below are repeated until they are done: each can be done twice.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xmore_files::read_bounded;

use super::column::EMBEDDING_DIR;
use super::lock::Lock;
use super::manifest::Manifest;
use super::sealed::{self, Seal};
use super::staging::{CHECKPOINT_FILE, Staging};
use super::{
    ALL_SERIES, BUILDING_DIR, COLUMNS_DIR, MANIFEST_FILE, SKIPPED_DIR, Series, remove_dir_if_there,
    remove_file_if_there, sync_dir, write_whole,
};
use crate::error::{AtPath, MemoryError, Result};

const PUBLISH_FILE: &str = "publish.json";

/// What is to be done with the parts of a staging folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Publication {
    /// Whether they replace all that is there, or are added to it.
    pub replace: bool,
    /// Folder within the memory's that they go to; empty for the memory itself.
    pub into: PathBuf,
}

/// Commits the parts of a staging folder and puts them in place. `manifest` is the new one.
pub(super) fn publish(
    dir: &Path,
    staging: &Staging,
    publication: &Publication,
    manifest: &Manifest,
) -> Result<()> {
    for series in staging.series {
        sync_dir(&staging.root.join(series.name))?;
    }
    manifest.write(&staging.root.join(MANIFEST_FILE))?;
    let file = staging.root.join(PUBLISH_FILE);
    let text = sealed::seal(publication)
        .map_err(|e| MemoryError::Manifest { path: file.clone(), reason: e.to_string() })?;
    write_whole(&file, &text)?;
    sync_dir(&staging.root)?;
    roll_forward_one(dir, &staging.root).map(drop)
}

/// Puts in place what a process had completed when it was killed; says whether there was anything. A command that looks whether
/// its work has been done calls this before.
///
/// # Errors
/// [`MemoryError::Busy`] if a process is at it; [`MemoryError::Manifest`], [`MemoryError::Io`].
pub fn finish_interrupted(dir: &Path) -> Result<bool> {
    let is_left = |name: &&str| {
        let root = dir.join(name);
        root.join(PUBLISH_FILE).exists() || is_husk(dir, &root)
    };
    if ![BUILDING_DIR, EMBEDDING_DIR].iter().any(is_left) {
        return Ok(false);
    }
    let _lock = Lock::take(dir)?;
    roll_forward(dir)
}

/// Finishes all that was committed in a memory's folder, which is locked; says whether anything was. Every writer does this
/// first: a manifest that is put in place after another writer's would undo that one's work.
pub(super) fn roll_forward(dir: &Path) -> Result<bool> {
    let building = roll_forward_one(dir, &dir.join(BUILDING_DIR))?;
    Ok(roll_forward_one(dir, &dir.join(EMBEDDING_DIR))? || building)
}

/// The same for one staging folder. It moves whatever series are there: the process that committed them may have been asked
/// for others than this one.
fn roll_forward_one(dir: &Path, root: &Path) -> Result<bool> {
    let file = root.join(PUBLISH_FILE);
    let text = match read_bounded(&file, super::manifest::MAX_BYTES) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if is_husk(dir, root) {
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
    let publication = publication.map_err(|reason| MemoryError::Manifest { path: file.clone(), reason })?;
    // Nothing is to be gone on from any more.
    remove_file_if_there(&root.join(CHECKPOINT_FILE))?;
    let staged = root.join(MANIFEST_FILE);
    let published = dir.join(MANIFEST_FILE);
    if staged.exists() {
        stop()?;
        let into = dir.join(&publication.into);
        if publication.replace {
            // From here to the last rename the folder has no manifest, so it counts as incomplete.
            remove_file_if_there(&published)?;
            sync_dir(dir)?;
            for gone in [COLUMNS_DIR, EMBEDDING_DIR] {
                remove_dir_if_there(&dir.join(gone))?;
            }
        }
        for folder in ALL_SERIES.iter().map(|s: &Series| s.name).chain([SKIPPED_DIR]) {
            let from = root.join(folder);
            if from.is_dir() {
                place(&from, &into.join(folder), publication.replace)?;
                stop()?;
            }
        }
        // Fails, as it should, if it holds a list.
        let _ = fs::remove_dir(dir.join(SKIPPED_DIR));
        sync_dir(&into)?;
        fs::rename(&staged, &published).at("rename to", &published)?;
        sync_dir(dir)?;
    }
    // The memory is complete; an emptied folder that cannot be removed does not change that.
    let _ = fs::remove_dir_all(root);
    Ok(true)
}

/// Whether a staging folder beside a whole memory is what was left when a process was killed while removing it, or before it had
/// written anything.
fn is_husk(dir: &Path, root: &Path) -> bool {
    dir.join(MANIFEST_FILE).exists()
        && root.is_dir()
        && ![PUBLISH_FILE, CHECKPOINT_FILE].iter().any(|name| root.join(name).exists())
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
    for entry in fs::read_dir(from).at("read", from)? {
        let entry = entry.at("read", from)?;
        let target = to.join(entry.file_name());
        fs::rename(entry.path(), &target).at("rename to", &target)?;
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
            return Err(MemoryError::WriterFailed { path: PathBuf::new() });
        }
    }
    Ok(())
}
