//! Where new parts are until they are put in place, and the checkpoint that says how far they are good.
//!
//! Every file in a staging folder only grows. A checkpoint is written when what it counts is durable, so whatever ends the
//! process, a rerun cuts the files to the last checkpoint's lengths and goes on from there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xmore_files::image::Orientation;
use xmore_files::read_bounded;

use super::files::{remove_dir_if_there, remove_file_if_there, sync_dir, write_whole};
use super::identity::ModelIdentity;
use super::layout::Series;
use super::manifest::{Checksums, PartInfo};
use super::{checksum, sealed};
use crate::error::{AtPath, MemoryError, Result};
use crate::store::{StoreError, WriteError};

/// The checkpoint in a staging folder.
pub(super) const CHECKPOINT_FILE: &str = "checkpoint.json";
/// Version 1 had no checksum of its own, and its rows may repeat pairs.
const FORMAT_VERSION: u64 = 2;

/// What a writer does with a memory that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// There must be none.
    Create,
    /// It is replaced when the new one is complete.
    Overwrite,
    /// New parts are added to it.
    Append,
}

/// How far the caller has come in its sources; kept with the checkpoint and given back on resuming.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of things of the sources that are dealt with.
    pub consumed: u64,
    /// Digest of these things, to tell whether the sources are still the same.
    pub digest: String,
    /// Captions that were cut so far.
    pub truncated: u64,
}

/// State of a staging folder at some moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format_version: u64,
    pub mode: Mode,
    /// Checksum of the manifest that is added to; empty if none is.
    pub base: String,
    pub model: ModelIdentity,
    /// Number of the first new part of a memory; 0 for a further embedding set, whose new parts have the numbers of the memory's.
    pub first_part: usize,
    /// Parts that are closed.
    pub parts: Vec<PartInfo>,
    /// Of the part that is open; without rows if none is.
    pub open: OpenRows,
    /// In a further embedding set: rows whose image could not be read.
    pub unreadable: u64,
    /// In a further embedding set: places of parts that are written again.
    pub again: Vec<usize>,
    pub cursor: Cursor,
    /// Which way up images are decoded.
    #[serde(default = "Orientation::stored", skip_serializing_if = "Orientation::is_stored")]
    pub orientation: Orientation,
}

/// What is durable of the part that is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenRows {
    pub rows: u64,
    /// Length of its journal of strings.
    pub journal_bytes: u64,
    /// Checksums of the rows of each series, and of the journal.
    pub sha256: Checksums,
}

impl OpenRows {
    /// One of the checksums; an empty one, which nothing has, if it is not there.
    pub fn sha256(&self, name: &str) -> &str {
        self.sha256.get(name).map_or("", String::as_str)
    }
}

impl Checkpoint {
    /// Nothing done yet.
    pub fn start(mode: Mode, base: String, model: ModelIdentity, first_part: usize) -> Checkpoint {
        Checkpoint {
            format_version: FORMAT_VERSION,
            mode,
            base,
            model,
            first_part,
            parts: Vec::new(),
            open: OpenRows::default(),
            unreadable: 0,
            again: Vec::new(),
            cursor: Cursor::default(),
            orientation: Orientation::Stored,
        }
    }
}

/// A folder inside a memory's in which parts are built.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    /// The folder.
    pub root: PathBuf,
    /// Its series.
    pub series: &'static [Series],
}

impl Staging {
    /// Reads the checkpoint, if there is one that can be continued. What an older version or a broken disk left is none.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let path = self.root.join(CHECKPOINT_FILE);
        let text = match read_bounded(&path, super::manifest::MAX_BYTES) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.at("read", &path)?,
        };
        let checkpoint: Option<Checkpoint> = sealed::open(&text).ok();
        Ok(checkpoint.filter(|c| c.format_version == FORMAT_VERSION))
    }

    /// Empties the folder and makes those of the series.
    pub fn start(&self) -> Result<()> {
        remove_dir_if_there(&self.root)?;
        for series in self.series {
            let folder = self.root.join(series.name);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        Ok(())
    }

    /// Reads the closed parts and compares them with their checksums: what has changed since must not become part of a memory.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn check_closed(&self, checkpoint: &Checkpoint) -> Result<()> {
        for part in &checkpoint.parts {
            for series in self.series {
                checksum::check(series.path(&self.root, part.number), part.sha256.get(series.name))?;
            }
        }
        Ok(())
    }

    /// Removes everything that came after the checkpoint but the open part's own growing files, which are cut when they are
    /// opened.
    pub fn clean(&self, checkpoint: &Checkpoint, growing: &[PathBuf]) -> Result<()> {
        let mut keep: HashSet<PathBuf> = growing.iter().cloned().collect();
        for part in &checkpoint.parts {
            for series in self.series.iter().filter(|s| part.sha256.contains_key(s.name)) {
                let path = series.path(&self.root, part.number);
                if !path.exists() {
                    let expected = "a closed part, as the checkpoint says".to_owned();
                    return Err(StoreError::Damaged { path, expected, found: "nothing".to_owned() }.into());
                }
                keep.insert(path);
            }
        }
        for series in self.series {
            let folder = self.root.join(series.name);
            fs::create_dir_all(&folder).at("create", &folder)?;
            for entry in fs::read_dir(&folder).at("read", &folder)? {
                let path = entry.at("read", &folder)?.path();
                if !keep.contains(&path) {
                    remove_file_if_there(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the checkpoint. What it counts must be durable.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let path = self.root.join(CHECKPOINT_FILE);
        let text = sealed::seal(checkpoint)
            .map_err(|e| StoreError::Manifest { path: path.clone(), reason: e.to_string() })?;
        write_whole(&path, &text)?;
        sync_dir(&self.root)
    }
}

/// Makes damage to a part of an unfinished build an error of that build: it can be discarded, unlike a memory.
pub(super) fn unfinished_is_damaged(error: MemoryError, root: &Path) -> MemoryError {
    match error {
        MemoryError::Store(StoreError::Damaged { path, expected, found }) => {
            WriteError::DamagedBuild { path: root.to_owned(), file: path, expected, found }.into()
        }
        other => other,
    }
}

/// Whether something in `dir` is there that no writer of a memory put there; returns its name.
pub(super) fn foreign_entry(dir: &Path) -> Result<Option<String>> {
    for entry in fs::read_dir(dir).at("read", dir)? {
        let name = entry.at("read", dir)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(".xmore-") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
