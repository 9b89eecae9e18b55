//! Partial builds: what one of several processes that divide a build among them leaves beside its memory, so that the memories can be
//! merged into that of one build.
//!
//! `.xmore-partial/` in the folder of a partial build has
//!
//! - `partial.json`, sealed: which part of which build this is, and once it is finished the checksums of what it made;
//! - `listing.bin`: bytes that only the whole build can make use of, in three segments (see [`Listing`]);
//! - `skipped/skipped_0000.csv`: what was skipped, where anything was. A partial build without a pair has no memory to keep it in.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xmore_files::image::Orientation;
use xmore_files::{open_regular, read_bounded};

use super::checksum::{self, Running};
use super::files::{remove_dir_if_there, sync_dir, write_whole};
use super::identity::ModelIdentity;
use super::layout::{BUILDING_DIR, MANIFEST_FILE, SKIPPED_DIR, skipped_path};
use super::manifest;
use super::sealed;
use super::skip_list::{SkipEntry, read_skip_list};
use crate::error::{AtPath, Result};
use crate::store::StoreError;

/// Folder inside a partial build's.
pub(super) const PARTIAL_DIR: &str = ".xmore-partial";
const RECORD_FILE: &str = "partial.json";
const LISTING_FILE: &str = "listing.bin";
const FORMAT_VERSION: u64 = 1;

/// What a build's sources are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Division {
    /// Whole files: each part lists only its own, and no pair is in two of them.
    Files,
    /// Pairs: each part lists everything and takes a range of it.
    Pairs,
}

/// Which part of which build a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialBuild {
    /// Version of this file.
    format_version: u64,
    /// Number of the part, from 1.
    pub number: u32,
    /// Number of all parts.
    pub of: u32,
    /// How the sources are divided.
    pub division: Division,
    /// The names of the whole build's sources, as its manifest has them.
    pub from: Vec<String>,
    /// Digest of what all parts must agree on: with [`Division::Pairs`] that of the whole build's manifest, with [`Division::Files`] that of
    /// the files' names and sizes.
    pub sources: String,
    /// The model.
    pub model: ModelIdentity,
    /// Which way up images are decoded.
    pub orientation: Orientation,
    /// What it made, once it is finished.
    pub finished: Option<FinishedPart>,
}

/// What a finished partial build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedPart {
    /// Checksum of the memory's manifest; `None` if no pair came of this part, which has no memory then.
    pub manifest: Option<String>,
    /// Number of pairs.
    pub pairs: u64,
    /// Checksum of the list of what was skipped, if anything was.
    pub skipped: Option<String>,
    /// How many entries of that list, the first ones, are of listing the sources; the others are of reading the images.
    pub skipped_in_listing: u64,
    /// The segments of `listing.bin`.
    pub listing: Listing,
}

/// The segments of a listing, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// What the whole build's digest is made of as to what was skipped in listing; empty with [`Division::Pairs`].
    pub skipped: Segment,
    /// The same as to pairs.
    pub pairs: Segment,
    /// 16-byte digests of the captions that were cut, each once.
    pub truncated: Segment,
}

/// A part of a file that is checked by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its length.
    pub bytes: u64,
    /// Its checksum.
    pub sha256: String,
}

impl PartialBuild {
    /// A part that is not finished.
    pub fn new(
        (number, of): (u32, u32),
        division: Division,
        from: Vec<String>,
        sources: String,
        model: ModelIdentity,
        orientation: Orientation,
    ) -> PartialBuild {
        let format_version = FORMAT_VERSION;
        PartialBuild {
            format_version,
            number,
            of,
            division,
            from,
            sources,
            model,
            orientation,
            finished: None,
        }
    }

    /// Reads what the folder of a partial build says; `None` if it is none.
    ///
    /// # Errors
    /// [`StoreError::Manifest`] and [`StoreError::Version`] for a file that cannot be understood;
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn read(dir: &Path) -> Result<Option<PartialBuild>> {
        let path = dir.join(PARTIAL_DIR).join(RECORD_FILE);
        let text = match read_bounded(&path, manifest::MAX_BYTES) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.at("read", &path)?,
        };
        let record: PartialBuild =
            sealed::open(&text).map_err(|reason| StoreError::Manifest { path: path.clone(), reason })?;
        if record.format_version != FORMAT_VERSION {
            let (found, supported) = (record.format_version, FORMAT_VERSION);
            return Err(StoreError::Version { path, found, supported }.into());
        }
        Ok(Some(record))
    }

    /// Whether this and another are the same part of the same build, however far each has come.
    pub fn is_same_part(&self, other: &PartialBuild) -> bool {
        let Self { format_version, number, of, division, from, sources, model, orientation, finished: _ } =
            self;
        (*format_version, *number, *of, *division)
            == (other.format_version, other.number, other.of, other.division)
            && (from, sources) == (&other.from, &other.sources)
            && model.is_same(&other.model)
            && *orientation == other.orientation
    }

    /// Writes to the folder of a partial build which part it is, before anything of it is made.
    ///
    /// # Errors
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn begin(&self, dir: &Path) -> Result<()> {
        let folder = dir.join(PARTIAL_DIR);
        fs::create_dir_all(&folder).at("create", &folder)?;
        self.write(dir)?;
        sync_dir(dir)
    }

    /// Writes that the part is finished. `has_memory` says whether the memory in `dir` is its own; else the list of what was skipped is still
    /// that of the build at hand.
    ///
    /// # Errors
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn finish(
        mut self,
        dir: &Path,
        has_memory: bool,
        pairs: u64,
        skipped_in_listing: u64,
        listing: Listing,
    ) -> Result<PartialBuild> {
        let folder = dir.join(PARTIAL_DIR);
        let manifest = has_memory.then(|| checksum::of_file(&dir.join(MANIFEST_FILE))).transpose()?;
        let list = skipped_path(&if has_memory { dir.to_owned() } else { dir.join(BUILDING_DIR) }, 0);
        remove_dir_if_there(&folder.join(SKIPPED_DIR))?;
        let mut skipped = None;
        if list.exists() {
            let copy = skipped_path(&folder, 0);
            let lists = folder.join(SKIPPED_DIR);
            fs::create_dir_all(&lists).at("create", &lists)?;
            fs::copy(&list, &copy).at("copy", &list)?;
            File::open(&copy).and_then(|file| file.sync_all()).at("write", &copy)?;
            sync_dir(&lists)?;
            skipped = Some(checksum::of_file(&copy)?);
        }
        self.finished = Some(FinishedPart { manifest, pairs, skipped, skipped_in_listing, listing });
        self.write(dir)?;
        Ok(self)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let folder = dir.join(PARTIAL_DIR);
        let path = folder.join(RECORD_FILE);
        let bytes = sealed::seal(self)
            .map_err(|e| StoreError::Manifest { path: path.clone(), reason: e.to_string() })?;
        write_whole(&path, &bytes)?;
        sync_dir(&folder)
    }
}

impl FinishedPart {
    /// Whether the manifest of the memory in `dir` is the one that the part was finished with.
    ///
    /// # Errors
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn is_unchanged(&self, dir: &Path) -> Result<bool> {
        let path = dir.join(MANIFEST_FILE);
        match &self.manifest {
            None => Ok(!path.exists()),
            Some(recorded) => Ok(path.exists() && checksum::of_file(&path)? == *recorded),
        }
    }

    /// Calls `each` for every entry of the list of what was skipped.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn read_skipped(&self, dir: &Path, each: &mut dyn FnMut(SkipEntry)) -> Result<()> {
        if self.skipped.is_none() {
            return Ok(());
        }
        let folder = dir.join(PARTIAL_DIR);
        checksum::check(skipped_path(&folder, 0), self.skipped.as_ref())?;
        read_skip_list(&folder, 0, &mut |entry| {
            each(entry);
            true
        })?;
        Ok(())
    }

    /// Calls `each` with the bytes of a segment of the listing, piece by piece.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn read_listing(
        &self,
        dir: &Path,
        segment: impl Fn(&Listing) -> &Segment,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let path = dir.join(PARTIAL_DIR).join(LISTING_FILE);
        let Listing { skipped, pairs, truncated } = &self.listing;
        let wanted = segment(&self.listing);
        let before =
            [skipped, pairs, truncated].into_iter().take_while(|other| !std::ptr::eq(*other, wanted));
        let start = before.fold(0u64, |sum, other| sum.saturating_add(other.bytes));
        let mut file = open_regular(&path).at("open", &path)?;
        file.seek(SeekFrom::Start(start)).at("read", &path)?;
        let mut file = file.take(wanted.bytes);
        let (mut running, mut piece) = (Running::default(), vec![0; PIECE_BYTES]);
        loop {
            match read_full(&mut file, &mut piece).at("read", &path)? {
                0 => break,
                n => {
                    running.update(&piece[..n]);
                    each(&piece[..n]);
                }
            }
        }
        let found = running.value();
        if found != wanted.sha256 {
            let expected = format!("{} bytes from {start} on of SHA-256 {}", wanted.bytes, wanted.sha256);
            return Err(StoreError::Damaged { path, expected, found }.into());
        }
        Ok(())
    }
}

/// Bytes of a listing that are read together: a multiple of a digest's.
const PIECE_BYTES: usize = 1 << 18;

/// Reads until the buffer is full or the input ends; returns how much there is.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Writes the listing of a partial build.
pub struct ListingWriter {
    file: BufWriter<File>,
    path: PathBuf,
    temporary: PathBuf,
    running: Running,
    bytes: u64,
}

impl ListingWriter {
    /// Begins the listing of the partial build in `dir`, with its first segment.
    ///
    /// # Errors
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn create(dir: &Path) -> Result<ListingWriter> {
        let path = dir.join(PARTIAL_DIR).join(LISTING_FILE);
        let temporary = path.with_extension("bin.tmp");
        let file = BufWriter::new(File::create(&temporary).at("create", &temporary)?);
        Ok(ListingWriter { file, path, temporary, running: Running::default(), bytes: 0 })
    }

    /// Adds bytes to the segment at hand.
    ///
    /// # Errors
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.running.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).at("write", &self.temporary)
    }

    /// Ends the segment at hand and begins the next.
    pub fn end_segment(&mut self) -> Segment {
        let running = std::mem::take(&mut self.running);
        Segment { bytes: std::mem::take(&mut self.bytes), sha256: running.value() }
    }

    /// Makes the listing durable and gives it its name.
    ///
    /// # Errors
    /// [`MemoryError::Io`](crate::MemoryError::Io).
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).at("write", &self.temporary)?;
        fs::rename(&self.temporary, &self.path).at("rename to", &self.path)
    }
}
