//! Writing a memory: rows go to the part at hand, the manifest last. Left at any moment, it is taken up at the last checkpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;
use xmore_files::image::Orientation;

use super::lock::{LOCK_FILE, Lock};
use super::manifest::{Manifest, ModelIdentity, SourceInfo};
use super::npy::NpyMatrix;
use super::open_part::{OpenPart, remove_journal};
use super::pairs::{KnownBy, KnownPairs, PairKeys};
use super::publish::{Publication, publish, roll_forward};
use super::reader::Memory;
use super::repair::open_with_checksums;
use super::skip_list::{SkipCounts, SkipList};
use super::staging::{Checkpoint, Cursor, Mode, Staging, foreign_entry, unfinished_is_damaged};
use super::texts::{DistinctCount, KnownTexts, read_closed};
use super::{
    ALL_SERIES, BUILDING_DIR, IMAGES, LOOKUP, MANIFEST_FILE, MAX_DIM, MAX_PARTS, PART_ROWS, SKIPPED_DIR,
    TEXTS, checksum, lookup, skipped_path,
};
use crate::error::{AtPath, MemoryError, Result};
use crate::ingest::SkipKind;

/// A part is closed early when its paths and captions, which are held until then, take this many bytes.
const PART_TEXT_BYTES: usize = 64 << 20;
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
    /// What the sources are, and the entry of the base's sources that they are the present state of.
    from: Vec<String>,
    entry: Option<usize>,
    skips: SkipList,
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
        let sources = base.as_ref().map_or(0, |memory| memory.manifest().sources.len());
        let skips = SkipList::new(&staging.root, sources);
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
            from: Vec::new(),
            entry: None,
            skips,
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
        (self.open, self.pairs) = (None, 0);
        self.closed_texts.clear();
        self.skips.clear()?;
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
        // The list of what is skipped is made in one go: the caller tries again what failed.
        super::remove_dir_if_there(&root.join(SKIPPED_DIR))?;
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

    /// Says what the sources are: their names, and the entry of the memory's sources that this is the present state of. Its list of
    /// what was skipped is replaced. Called before anything is skipped.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn begin_source(&mut self, from: &[String], entry: Option<usize>) -> Result<()> {
        let sources = self.base.as_ref().map_or(0, |memory| memory.manifest().sources.len());
        self.from = from.to_vec();
        self.entry = entry.filter(|&entry| entry < sources);
        super::remove_dir_if_there(&self.staging.root.join(SKIPPED_DIR))?;
        self.skips = SkipList::new(&self.staging.root, self.entry.unwrap_or(sources));
        Ok(())
    }

    /// Keys of the rows of the memory that is added to, and of those that an interrupted process had written.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn known_pairs(&mut self, keys: &mut PairKeys, by: KnownBy) -> Result<[KnownPairs; 2]> {
        let there = match &self.base {
            Some(base) => KnownPairs::of_memory(base, keys, by)?,
            None => KnownPairs::default(),
        };
        let mut written = KnownPairs::default();
        let dim = self.state.model.dim;
        let mut image = vec![0.0; dim];
        for part in &self.state.parts {
            let strings = lookup::Lookup::open(&LOOKUP.path(&self.staging.root, part.number), part.rows)?;
            let images = NpyMatrix::open(&IMAGES.path(&self.staging.root, part.number), part.rows, dim)?;
            for row in 0..part.rows as usize {
                images.read_row(row, &mut image);
                written.add(keys, by, strings.image_path(row)?, strings.caption(row)?, &image);
            }
        }
        if let Some(open) = &mut self.open {
            for row in 0..open.rows() {
                open.read_image(row, &mut self.image_row)?;
                self.image_row.convert_to_f32_slice(&mut image);
                let strings = open.metadata();
                let (path, caption) =
                    (strings.image_paths.get(row as usize), strings.captions.get(row as usize));
                written.add(keys, by, path.unwrap_or_default(), caption.unwrap_or_default(), &image);
            }
        }
        Ok([there, written])
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

    /// Counts a thing of the source that gives no pair, and lists it in the memory. After an interruption the list is begun anew.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn skip(&mut self, path: &str, kind: SkipKind, reason: &str) -> Result<()> {
        self.check_usable()?;
        self.failed = true;
        self.skips.add(path, kind, reason)?;
        self.failed = false;
        Ok(())
    }

    /// How much was skipped so far, by kind.
    pub fn skipped(&self) -> &SkipCounts {
        self.skips.counts()
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
        self.skips.flush()?;
        self.state.open = self.open.as_mut().map(OpenPart::sync).transpose()?.unwrap_or_default();
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
    /// [`MemoryError::NoPairs`] if there would be none; [`MemoryError::Io`], [`MemoryError::Parquet`], or
    /// [`MemoryError::WriterFailed`] after a failed `push`.
    pub fn finish(mut self) -> Result<Manifest> {
        self.check_usable()?;
        if self.base_len() + self.pairs == 0 {
            return Err(MemoryError::NoPairs { path: self.dir });
        }
        self.close_part()?;
        // The journals go with this checkpoint.
        self.save()?;
        let replace = self.state.mode != Mode::Append;
        if replace {
            let folder = self.staging.root.join(SKIPPED_DIR);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        // A list that is replaced by nothing is replaced by an empty one.
        let replaced = self.entry.is_some_and(|entry| skipped_path(&self.dir, entry).exists());
        let skipped_by = self.skips.counts().clone();
        let skips = std::mem::replace(&mut self.skips, SkipList::new(&self.staging.root, 0));
        let skipped_sha256 = skips.finish(replaced)?;
        let manifest = self.manifest(skipped_by, skipped_sha256)?;
        let publication = Publication { replace, ..Publication::default() };
        publish(&self.dir, &self.staging, &publication, &manifest)?;
        Ok(manifest)
    }

    /// Gives up what was written: the memory is as it was, and where there was none nothing is left.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn discard(self) -> Result<()> {
        super::remove_dir_if_there(&self.staging.root)?;
        if self.dir.join(MANIFEST_FILE).exists() {
            return Ok(());
        }
        drop(self._lock);
        super::remove_file_if_there(&self.dir.join(LOCK_FILE))?;
        // Fails, as it should, if there is something in it.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// What is there together with what was written.
    fn manifest(&self, skipped_by: SkipCounts, skipped_sha256: Option<String>) -> Result<Manifest> {
        let (state, cursor) = (&self.state, &self.state.cursor);
        let base =
            self.base.as_ref().map(|memory| memory.manifest().clone().updated(&self.dir)).transpose()?;
        let mut manifest = base.unwrap_or_else(|| Manifest {
            orientation: state.orientation,
            ..Manifest::empty(state.model.clone())
        });
        let lost = manifest.pairs_lost();
        manifest.pairs += self.pairs;
        manifest.images = self.images.count();
        manifest.parts.extend(state.parts.iter().cloned());
        manifest.truncated += cursor.truncated;
        let mut source = SourceInfo {
            from: self.from.clone(),
            digest: cursor.digest.clone(),
            first_part: state.first_part,
            pairs: self.pairs,
            skipped: skipped_by.values().sum(),
            skipped_by,
            skipped_sha256,
        };
        manifest.skipped += source.skipped;
        match self.entry.and_then(|entry| manifest.sources.get_mut(entry)) {
            Some(before) => {
                manifest.skipped = manifest.skipped.saturating_sub(before.skipped);
                source.first_part = before.first_part;
                // What a repair took out is not there any more, and may be what was added now.
                source.pairs += before.pairs.saturating_sub(lost);
                *before = source;
            }
            None => manifest.sources.push(source),
        }
        Ok(manifest)
    }

    fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, Memory::len)
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
