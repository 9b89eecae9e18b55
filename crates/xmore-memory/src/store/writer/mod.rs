//! Writing a memory: rows go to the part at hand, the manifest last. Left at any moment, it is taken up at the last checkpoint.
//!
//! How a writer begins is in `begin`, how it ends in `finish`, how it copies rows of other memories in `copy`.

mod begin;
mod copy;
mod finish;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::files::remove_dir_if_there;
use super::layout::{IMAGES, LOOKUP, MAX_PARTS, SKIPPED_DIR, TEXTS};
use super::lock::Lock;
use super::lookup;
use super::npy::NpyMatrix;
use super::open_part::{OpenPart, remove_journal};
use super::pairs::{KnownBy, KnownPairs, PairKeys};
use super::reader::Memory;
use super::rounding::to_f16;
use super::skip_list::{SkipCounts, SkipList};
use super::staging::{Checkpoint, Cursor, Staging};
use super::texts::{SeenStrings, read_closed};
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::Result;
use crate::ingest::SkipKind;
#[cfg(doc)]
use crate::search::VectorError;
use crate::store::WriteError;

pub use copy::check_part;

/// A part is closed early when its paths and captions, which are held until then, take this many bytes.
const PART_TEXT_BYTES: usize = 64 << 20;

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
    seen: SeenStrings,
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
        remove_dir_if_there(&self.staging.root.join(SKIPPED_DIR))?;
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
    /// [`VectorError::Length`] and [`VectorError::NotFinite`] for embeddings that are refused;
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
                    return Err(WriteError::TooManyParts { path: self.dir.clone(), max: MAX_PARTS }.into());
                }
                self.open.insert(OpenPart::create(&self.staging.root, number, self.state.model.dim)?)
            }
        };
        part.push(image_path, caption, &self.image_row, &self.text_row)?;
        self.seen.add(image_path, caption, self.base_len() + self.pairs);
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
        if self.seen.remembers_captions() {
            let texts = TEXTS.path(&self.staging.root, number);
            self.closed_texts.push(NpyMatrix::open(&texts, info.rows, self.state.model.dim)?);
        }
        self.state.parts.push(info);
        Ok(())
    }

    /// The stored embedding of a caption that some row has already, `None` if none has. It is what the memory keeps, so a
    /// caption that is encoded once gives the same bytes as one that is encoded each time.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn known_text(&mut self, caption: &str) -> Result<Option<Vec<f32>>> {
        let Some(row) = self.seen.row_of(caption) else { return Ok(None) };
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
    /// [`MemoryError::Io`], [`WriteError::WriterFailed`].
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

    fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, Memory::len)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed { Err(WriteError::WriterFailed { path: self.dir.clone() }.into()) } else { Ok(()) }
    }
}
