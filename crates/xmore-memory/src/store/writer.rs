//! Writing a memory: rows go to the part at hand, the manifest last. Left at any moment, it is taken up at the last checkpoint.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;
use xmore_files::image::Orientation;

use super::checksum::Running;
use super::lock::Lock;
use super::manifest::{Manifest, ModelIdentity, SourceInfo};
use super::npy::NpyMatrix;
use super::open_part::{OpenPart, remove_journal};
use super::publish::{Publication, publish, roll_forward};
use super::reader::Memory;
use super::repair::open_with_checksums;
use super::staging::{Checkpoint, Cursor, Mode, Staging, foreign_entry, unfinished_is_damaged};
use super::texts::{DistinctCount, KnownTexts, read_closed};
use super::{
    ALL_SERIES, BUILDING_DIR, LOOKUP, MANIFEST_FILE, MAX_DIM, MAX_PARTS, PART_ROWS, SKIPPED_DIR, TEXTS,
    checksum, lookup, skipped_path,
};
use crate::error::{AtPath, MemoryError, Result};

/// A part is closed early when its paths and captions, which are held until then, take this many bytes.
const PART_TEXT_BYTES: usize = 64 << 20;
/// First line of a list of skipped things.
const SKIPPED_HEAD: &[u8] = b"path,reason\n";
/// Work that a power cut may cost; a killed process loses no more than that either.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Writes a memory row by row.
///
/// Embeddings are written as they come and strings a part at a time, so little memory is used however many pairs
/// there are. The rows become visible only with [`finish`](Self::finish); a writer that ends before leaves what it has at its
/// last [`checkpoint`](Self::checkpoint), which [`open`](Self::open) takes up.
pub struct MemoryWriter {
    dir: PathBuf,
    staging: Staging,
    /// Keeps other processes out.
    _lock: Lock,
    /// What is there already and is added to.
    base: Option<Memory>,
    /// The state that is kept: mode, model, closed parts, cursor.
    state: Checkpoint,
    part_rows: u64,
    open: Option<OpenPart>,
    /// Text embeddings of the closed parts, for texts that come again.
    closed_texts: Vec<NpyMatrix>,
    known: KnownTexts,
    images: DistinctCount,
    /// Rows written, those of the base not counted.
    pairs: u64,
    skipped: Option<File>,
    skipped_checksum: Running,
    checkpoint_every: Duration,
    last_checkpoint: Instant,
    /// Row buffers, `[dim]` each.
    image_row: Vec<f16>,
    text_row: Vec<f16>,
    /// Set while a part is being changed, so that an error in between is remembered.
    failed: bool,
}

impl MemoryWriter {
    /// Starts a memory in `dir`, which is created if need be. The remains of an interrupted build are replaced.
    ///
    /// # Errors
    /// [`MemoryError::AlreadyExists`] over a complete memory, [`MemoryError::NotEmpty`] over anything else,
    /// [`MemoryError::Busy`] if another process is building here, [`MemoryError::Dim`], [`MemoryError::Io`].
    pub fn create(dir: impl AsRef<Path>, model: ModelIdentity) -> Result<MemoryWriter> {
        let mut writer = Self::locked(dir.as_ref(), model, Mode::Create)?;
        writer.start_anew()?;
        Ok(writer)
    }

    /// As [`create`](Self::create), but replaces a complete memory, which stays readable until
    /// [`finish`](Self::finish). A directory that holds something else is refused all the same.
    ///
    /// # Errors
    /// As [`create`](Self::create), without [`MemoryError::AlreadyExists`].
    pub fn create_overwriting(dir: impl AsRef<Path>, model: ModelIdentity) -> Result<MemoryWriter> {
        let mut writer = Self::locked(dir.as_ref(), model, Mode::Overwrite)?;
        writer.start_anew()?;
        Ok(writer)
    }

    /// Starts a memory, or takes up what an interrupted process with the same model and mode left: [`cursor`](Self::cursor)
    /// says how far that came.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`MemoryError::OtherBuild`] if what was left is of another model or mode (with
    /// [`Mode::Overwrite`] it is discarded); with [`Mode::Append`] those of [`Memory::open`] and
    /// [`MemoryError::OtherModel`] if the memory is of another model.
    pub fn open(dir: impl AsRef<Path>, model: ModelIdentity, mode: Mode) -> Result<MemoryWriter> {
        let mut writer = Self::locked(dir.as_ref(), model, mode)?;
        match writer.staging.checkpoint()? {
            Some(left) if left.base == writer.state.base => {
                let (ours, theirs) = (&writer.state, &left);
                if (ours.mode, &ours.model) == (theirs.mode, &theirs.model) {
                    match writer.resume(left) {
                        Err(MemoryError::Damaged { .. } | MemoryError::Io { .. })
                            if mode == Mode::Overwrite =>
                        {
                            writer.start_anew()?
                        }
                        resumed => {
                            resumed.map_err(|error| unfinished_is_damaged(error, &writer.staging.root))?
                        }
                    }
                } else if mode == Mode::Overwrite {
                    writer.start_anew()?;
                } else {
                    let root = writer.staging.root;
                    return Err(MemoryError::OtherBuild { path: root, model: left.model.name });
                }
            }
            // None, or one of a memory that has been completed since.
            _ => writer.start_anew()?,
        }
        Ok(writer)
    }

    fn locked(dir: &Path, model: ModelIdentity, mode: Mode) -> Result<MemoryWriter> {
        if !(1..=MAX_DIM).contains(&model.dim) {
            return Err(MemoryError::Dim { model: model.name, found: model.dim, max: MAX_DIM });
        }
        let manifest_path = dir.join(MANIFEST_FILE);
        let staging = Staging { root: dir.join(BUILDING_DIR), series: &ALL_SERIES };
        if mode != Mode::Append {
            fs::create_dir_all(dir).at("create", dir)?;
            if !manifest_path.exists()
                && !staging.root.exists()
                && let Some(found) = foreign_entry(dir)?
            {
                return Err(MemoryError::NotEmpty { path: dir.to_owned(), found });
            }
        } else if !dir.exists() {
            // Says what is wrong.
            Memory::open(dir)?;
        }
        let lock = Lock::take(dir)?;
        roll_forward(dir)?;
        if mode == Mode::Create && manifest_path.exists() {
            return Err(MemoryError::AlreadyExists { path: dir.to_owned() });
        }
        let (mut base, mut base_checksum) = (None, String::new());
        if mode == Mode::Append {
            let memory = open_with_checksums(dir)?;
            let theirs = &memory.manifest().model;
            if (&theirs.sha256, theirs.dim) != (&model.sha256, model.dim) {
                return Err(MemoryError::OtherModel {
                    path: dir.to_owned(),
                    memory: theirs.name.clone(),
                    given: model.name,
                });
            }
            base = Some(memory);
        }
        if manifest_path.exists() {
            base_checksum = checksum::of_file(&manifest_path)?;
        }
        let first_part = base.as_ref().map_or(0, |memory| memory.manifest().next_part());
        let dim = model.dim;
        Ok(MemoryWriter {
            dir: dir.to_owned(),
            staging,
            _lock: lock,
            base,
            state: Checkpoint::start(mode, base_checksum, model, first_part),
            part_rows: PART_ROWS,
            open: None,
            closed_texts: Vec::new(),
            known: KnownTexts::default(),
            images: DistinctCount::default(),
            pairs: 0,
            skipped: None,
            skipped_checksum: Running::default(),
            checkpoint_every: CHECKPOINT_EVERY,
            last_checkpoint: Instant::now(),
            image_row: vec![f16::ZERO; dim],
            text_row: vec![f16::ZERO; dim],
            failed: false,
        })
    }

    /// Discards all that was staged and begins at the first row.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn start_anew(&mut self) -> Result<()> {
        let state = &self.state;
        let orientation = state.orientation;
        self.state = Checkpoint::start(state.mode, state.base.clone(), state.model.clone(), state.first_part);
        self.state.orientation = orientation;
        (self.open, self.skipped, self.pairs) = (None, None, 0);
        self.closed_texts.clear();
        self.staging.start()?;
        self.learn_strings()?;
        self.save()
    }

    fn resume(&mut self, left: Checkpoint) -> Result<()> {
        let (root, dim) = (&self.staging.root, left.model.dim);
        let number = left.first_part + left.parts.len();
        let growing = if left.open.rows > 0 { OpenPart::growing_files(root, number) } else { Vec::new() };
        self.staging.clean(&left, &growing)?;
        self.staging.check_closed(&left)?;
        for part in &left.parts {
            let path = TEXTS.path(root, part.number);
            self.closed_texts.push(NpyMatrix::open(&path, part.rows, dim)?);
        }
        if left.open.rows > 0 {
            self.open = Some(OpenPart::resume(root, number, dim, &left.open)?);
        }
        let path = self.skipped_path();
        if left.skipped > 0 {
            let mut file = File::options().read(true).write(true).open(&path).at("open", &path)?;
            self.skipped_checksum = Running::of_next(&mut file, left.skipped_bytes, &path)?;
            if self.skipped_checksum.value() != left.skipped_sha256 {
                let (expected, found) = (left.skipped_sha256.clone(), self.skipped_checksum.value());
                return Err(MemoryError::Damaged { path, expected, found });
            }
            file.set_len(left.skipped_bytes).at("cut", &path)?;
            file.seek(SeekFrom::End(0)).at("read", &path)?;
            self.skipped = Some(file);
        } else {
            super::remove_file_if_there(&path)?;
        }
        self.pairs = left.parts.iter().map(|p| p.rows).sum::<u64>() + left.open.rows;
        self.state = left;
        self.learn_strings()
    }

    /// Learns the strings of all rows there are.
    fn learn_strings(&mut self) -> Result<()> {
        (self.known, self.images) = Default::default();
        let mut row = 0;
        if let Some(base) = &self.base {
            for id in 0..base.len() {
                self.images.add(base.image_path(id)?);
                self.known.add(base.caption(id)?, id);
            }
            row = base.len();
        }
        for part in &self.state.parts {
            let path = LOOKUP.path(&self.staging.root, part.number);
            let strings = lookup::Lookup::open(&path, part.rows)?;
            for r in 0..part.rows as usize {
                self.images.add(strings.image_path(r)?);
                self.known.add(strings.caption(r)?, row);
                row += 1;
            }
        }
        if let Some(open) = &self.open {
            let metadata = open.metadata();
            for (image_path, caption) in metadata.image_paths.iter().zip(metadata.captions.iter()) {
                self.images.add(image_path);
                self.known.add(caption, row);
                row += 1;
            }
        }
        Ok(())
    }

    /// Makes parts of `rows` rows, so that tests need not write 65,536.
    #[doc(hidden)]
    #[must_use]
    pub fn with_part_rows(mut self, rows: u64) -> MemoryWriter {
        self.part_rows = rows;
        self
    }

    /// How often [`checkpoint`](Self::checkpoint) really writes one; zero is always.
    #[must_use]
    pub fn with_checkpoint_every(mut self, every: Duration) -> MemoryWriter {
        self.checkpoint_every = every;
        self
    }

    /// Records which way up the images are decoded whose rows follow; without this call, as they are stored. A memory that is added to
    /// keeps what it says.
    ///
    /// # Errors
    /// [`MemoryError::OtherOrientation`] if what an interrupted process left has the other orientation (with [`Mode::Overwrite`] it is
    /// discarded).
    pub fn with_orientation(mut self, orientation: Orientation) -> Result<MemoryWriter> {
        if self.state.orientation != orientation && self.state.cursor.consumed > 0 {
            if self.state.mode != Mode::Overwrite {
                return Err(MemoryError::OtherOrientation {
                    path: self.staging.root.clone(),
                    theirs: self.state.orientation,
                    ours: orientation,
                });
            }
            self.start_anew()?;
        }
        self.state.orientation = orientation;
        Ok(self)
    }

    /// Where the caller was at the last checkpoint; the default at the beginning.
    pub fn cursor(&self) -> &Cursor {
        &self.state.cursor
    }

    /// Whether the memory has already all that these sources give, by their digest: what a repeated command finds.
    pub fn has_source(&self, digest: &str) -> bool {
        self.base.as_ref().is_some_and(|base| base.manifest().sources.iter().any(|s| s.digest == digest))
    }

    /// Appends a pair. `image` and `text` are unit embeddings of the model's length; they are rounded to
    /// float16, to nearest even. Rows that are refused leave the memory as it was, so the caller may go on.
    ///
    /// # Errors
    /// [`MemoryError::Length`] and [`MemoryError::NotFinite`] for embeddings that are refused;
    /// [`MemoryError::Io`] and the like when writing fails, after which the writer only fails.
    pub fn push(&mut self, image_path: &str, caption: &str, image: &[f32], text: &[f32]) -> Result<()> {
        self.check_usable()?;
        to_f16("image embedding", image, self.pairs, &mut self.image_row)?;
        to_f16("text embedding", text, self.pairs, &mut self.text_row)?;
        self.failed = true;
        self.write_row(image_path, caption)?;
        self.failed = false;
        Ok(())
    }

    fn write_row(&mut self, image_path: &str, caption: &str) -> Result<()> {
        let part = match &mut self.open {
            Some(part) => part,
            None => {
                let number = self.state.first_part + self.state.parts.len();
                if number >= MAX_PARTS {
                    return Err(MemoryError::TooManyParts { path: self.dir.clone(), max: MAX_PARTS });
                }
                self.open.insert(OpenPart::create(&self.staging.root, number, self.state.model.dim)?)
            }
        };
        part.push(image_path, caption, &self.image_row, &self.text_row)?;
        self.images.add(image_path);
        self.known.add(caption, self.base_len() + self.pairs);
        self.pairs += 1;
        if let Some(part) = &self.open
            && (part.rows() >= self.part_rows || part.text_bytes() >= PART_TEXT_BYTES)
        {
            self.close_part()?;
        }
        Ok(())
    }

    fn close_part(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let number = self.state.first_part + self.state.parts.len();
        let info = open.close()?;
        let texts = TEXTS.path(&self.staging.root, number);
        self.closed_texts.push(NpyMatrix::open(&texts, info.rows, self.state.model.dim)?);
        self.state.parts.push(info);
        Ok(())
    }

    /// The stored embedding of a caption that some row has already, `None` if none has. It is what the memory keeps, so a
    /// caption that is encoded once gives the same bytes as one that is encoded each time.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn known_text(&mut self, caption: &str) -> Result<Option<Vec<f32>>> {
        let Some(row) = self.known.row(caption) else { return Ok(None) };
        let mut out = vec![0.0; self.state.model.dim];
        if row < self.base_len() {
            if let Some(base) = &self.base {
                base.text_embedding(row, &mut out)?;
            }
            return Ok(Some(out));
        }
        let Err(row) = read_closed(&self.closed_texts, row - self.base_len(), &mut out) else {
            return Ok(Some(out));
        };
        let Some(open) = &mut self.open else { return Ok(None) };
        open.read_text(row, &mut self.text_row)?;
        self.text_row.convert_to_f32_slice(&mut out);
        Ok(Some(out))
    }

    /// Counts a thing of the source that gives no pair, and lists it in the memory.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn skip(&mut self, path: &str, reason: &str) -> Result<()> {
        self.check_usable()?;
        self.failed = true;
        let file_path = self.skipped_path();
        if self.skipped.is_none() {
            let folder = self.staging.root.join(SKIPPED_DIR);
            fs::create_dir_all(&folder).at("create", &folder)?;
            let mut file = File::create(&file_path).at("create", &file_path)?;
            file.write_all(SKIPPED_HEAD).at("write", &file_path)?;
            self.skipped = Some(file);
            self.skipped_checksum = Running::default();
            self.skipped_checksum.update(SKIPPED_HEAD);
        }
        let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
        line.write_record([path, reason]).map_err(std::io::Error::other).at("write", &file_path)?;
        let line = line.into_inner().map_err(|e| e.into_error()).at("write", &file_path)?;
        if let Some(file) = &mut self.skipped {
            file.write_all(&line).at("write", &file_path)?;
            self.skipped_checksum.update(&line);
        }
        self.state.skipped += 1;
        self.failed = false;
        Ok(())
    }

    /// Number of things skipped so far.
    pub fn skipped(&self) -> u64 {
        self.state.skipped
    }

    /// Number of pairs written so far, without those that were there before.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Tells that all up to the cursor is dealt with; every few seconds that is made durable.
    ///
    /// # Errors
    /// [`MemoryError::Io`], [`MemoryError::WriterFailed`].
    pub fn checkpoint(&mut self, cursor: Cursor) -> Result<()> {
        self.state.cursor = cursor;
        if self.last_checkpoint.elapsed() >= self.checkpoint_every { self.save() } else { Ok(()) }
    }

    /// As [`checkpoint`](Self::checkpoint), durable when it returns.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_now(&mut self, cursor: Cursor) -> Result<()> {
        self.state.cursor = cursor;
        self.save()
    }

    fn save(&mut self) -> Result<()> {
        self.check_usable()?;
        self.state.open = self.open.as_mut().map(OpenPart::sync).transpose()?.unwrap_or_default();
        if let Some(file) = &self.skipped {
            let path = self.skipped_path();
            file.sync_data().at("write", &path)?;
            self.state.skipped_bytes = file.metadata().at("read", &path)?.len();
            self.state.skipped_sha256 = self.skipped_checksum.value();
        }
        self.staging.save(&self.state)?;
        for part in &self.state.parts {
            remove_journal(&self.staging.root, part.number)?;
        }
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    /// Completes the memory: closes the last part, puts the parts in place, writes the manifest last.
    ///
    /// # Errors
    /// [`MemoryError::Io`], [`MemoryError::Parquet`], or [`MemoryError::WriterFailed`] after a failed `push`.
    pub fn finish(mut self) -> Result<Manifest> {
        self.check_usable()?;
        self.close_part()?;
        // The journals go with this checkpoint.
        self.save()?;
        let replace = self.state.mode != Mode::Append;
        if replace {
            let folder = self.staging.root.join(SKIPPED_DIR);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        let manifest = self.manifest()?;
        let publication = Publication { replace, ..Publication::default() };
        publish(&self.dir, &self.staging, &publication, &manifest)?;
        Ok(manifest)
    }

    /// What is there together with what was written.
    fn manifest(&self) -> Result<Manifest> {
        let (state, cursor) = (&self.state, &self.state.cursor);
        let base =
            self.base.as_ref().map(|memory| memory.manifest().clone().updated(&self.dir)).transpose()?;
        let mut manifest = base.unwrap_or_else(|| Manifest {
            orientation: state.orientation,
            ..Manifest::empty(state.model.clone())
        });
        manifest.pairs += self.pairs;
        manifest.images = self.images.count();
        manifest.parts.extend(state.parts.iter().cloned());
        manifest.skipped += state.skipped;
        manifest.truncated += cursor.truncated;
        manifest.sources.push(SourceInfo {
            digest: cursor.digest.clone(),
            first_part: state.first_part,
            pairs: self.pairs,
            skipped: state.skipped,
            skipped_sha256: self.skipped.as_ref().map(|_| self.skipped_checksum.value()),
        });
        Ok(manifest)
    }

    fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, Memory::len)
    }

    /// The list of what these sources skip. Its number is theirs: one that gives no pair has no part of its own.
    fn skipped_path(&self) -> PathBuf {
        let number = self.base.as_ref().map_or(0, |memory| memory.manifest().sources.len());
        skipped_path(&self.staging.root, number)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed { Err(MemoryError::WriterFailed { path: self.dir.clone() }) } else { Ok(()) }
    }
}

/// Checks an embedding and rounds it into `out`, `[dim]`.
pub(super) fn to_f16(what: &'static str, row: &[f32], number: u64, out: &mut [f16]) -> Result<()> {
    if row.len() != out.len() {
        return Err(MemoryError::Length { what, expected: out.len(), found: row.len() });
    }
    out.convert_from_f32_slice(row);
    match out.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(position) => Err(MemoryError::NotFinite { what, row: number, position, value: row[position] }),
    }
}
