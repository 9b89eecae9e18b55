//! A further embedding set: embeddings of a memory's rows by another model, written in the rows' order and resumable like a build.

mod begin;

use std::path::Path;
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::checksum;
use super::files::remove_dir_if_there;
use super::layout::{EMBEDDING_SETS_DIR, IMAGES, Modality, Series, TEXTS};
use super::lock::Lock;
use super::manifest::{Checksums, EmbeddingSetInfo, Manifest, PartInfo};
use super::npy::{NpyMatrix, NpyWriter};
use super::open_part::{checksums, write_codes};
use super::publish::{Publication, publish};
use super::reader::Memory;
use super::rounding::to_f16;
use super::staging::{Checkpoint, Cursor, OpenRows, Staging};
use super::texts::{KnownTexts, read_closed};
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::Result;
#[cfg(doc)]
use crate::search::VectorError;
use crate::store::{StoreError, WriteError};

/// Writes an embedding set, a row for each row of the memory, in order.
///
/// It becomes visible with [`finish`](Self::finish). One that ends before is taken up by [`open`](Self::open). An embedding set that
/// is there already gets the parts that it lacks, since the memory has grown or a repair took them out, and its parts with rows
/// whose image could not be read can be written [again](Self::again).
pub struct EmbeddingSetWriter {
    memory: Memory,
    staging: Staging,
    /// Keeps other processes out.
    _lock: Lock,
    info: EmbeddingSetInfo,
    /// Places of the parts to be written, in order: those of the embedding set that are written again, then those that it lacks.
    places: Vec<usize>,
    /// Ids of the first rows of all parts, and the memory's length.
    first_ids: Vec<u64>,
    /// Whether nothing was taken up.
    fresh: bool,
    state: Checkpoint,
    open: Option<EmbeddingSetPart>,
    closed_texts: Vec<NpyMatrix>,
    /// Rows by caption, of those written in this run of the embedding set; counted from its first.
    known: KnownTexts,
    /// Rows written, those that were taken up included.
    done: u64,
    checkpoint_every: Duration,
    last_checkpoint: Instant,
    image_row: Vec<f16>,
    text_row: Vec<f16>,
    failed: bool,
}

/// The part that rows go to.
struct EmbeddingSetPart {
    images: Option<NpyWriter>,
    texts: NpyWriter,
}

impl EmbeddingSetPart {
    fn create(root: &Path, number: usize, dim: usize, images: bool) -> Result<EmbeddingSetPart> {
        let create = |series: Series| NpyWriter::create(series.path(root, number), dim);
        Ok(EmbeddingSetPart { images: images.then(|| create(IMAGES)).transpose()?, texts: create(TEXTS)? })
    }

    fn resume(
        root: &Path,
        number: usize,
        dim: usize,
        images: bool,
        left: &OpenRows,
    ) -> Result<EmbeddingSetPart> {
        let resume = |series: Series| {
            NpyWriter::resume(series.path(root, number), dim, left.rows, left.sha256(series.name))
        };
        Ok(EmbeddingSetPart { images: images.then(|| resume(IMAGES)).transpose()?, texts: resume(TEXTS)? })
    }
}

impl EmbeddingSetWriter {
    /// Writes these parts of the embedding set again, by their places among the memory's parts: rows that have embeddings are
    /// [kept](Self::keep_rows), the others pushed as new ones are. Called once, before anything is written, and only if the writer
    /// is [fresh](Self::is_fresh).
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a part is not what the manifest says.
    pub fn again(&mut self, places: &[usize]) -> Result<()> {
        let folder = self.memory.dir().join(EMBEDDING_SETS_DIR).join(&self.info.name);
        for &place in places.iter().filter(|&&place| self.info.has_part(place)) {
            let number = self.memory.manifest().parts[place].number;
            for series in [IMAGES, TEXTS] {
                let path = series.path(&folder, number);
                let (expected, found) = (self.info.parts[place].get(series.name), checksum::of_file(&path)?);
                // What is damaged must not be copied under a new checksum.
                if expected.is_some_and(|expected| *expected != found) {
                    let expected = format!("content with SHA-256 {}", expected.cloned().unwrap_or_default());
                    return Err(StoreError::Damaged { path, expected, found }.into());
                }
            }
            self.state.again.push(place);
        }
        let lacking = self.info.lacking(self.memory.manifest().parts.len());
        self.places = self.state.again.iter().copied().chain(lacking).collect();
        Ok(())
    }

    /// Whether no interrupted process' rows were taken up.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Ids of the embedding set's rows whose image could not be read, by the place of their part, for one part after another.
    ///
    /// # Errors
    /// Those of reading the embedding set.
    pub fn unreadable(&self) -> Result<Vec<(usize, Vec<u64>)>> {
        let mut unreadable = Vec::new();
        if self.info.images && self.info.unreadable > 0 {
            for place in (0..self.info.parts.len()).filter(|&place| self.info.has_part(place)) {
                let ids = self.first_ids[place]..self.first_ids[place + 1];
                let ids: Vec<u64> = ids.filter(|&id| !self.has_image(id)).collect();
                if !ids.is_empty() {
                    unreadable.push((place, ids));
                }
            }
        }
        Ok(unreadable)
    }

    /// Ids of the rows that are to be pushed, in order; rows that are kept come between them.
    pub fn rows_to_push(&self) -> impl Iterator<Item = u64> + '_ {
        (self.done..self.total()).filter_map(|row| self.id_of(row)).filter(|&id| !self.is_kept(id))
    }

    /// Whether a row's embeddings are kept as they are.
    fn is_kept(&self, id: u64) -> bool {
        if self.info.images { self.has_image(id) } else { self.has_row(id) }
    }

    /// Writes the rows that come next and are kept as they are.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn keep_rows(&mut self) -> Result<()> {
        let (mut image, mut text) = (vec![0.0; self.state.model.dim], vec![0.0; self.state.model.dim]);
        while let Some(id) = self.next_row().filter(|&id| self.is_kept(id)) {
            let Some(set) = self.memory.embedding_set(&self.info.model) else { break };
            set.text_embedding(id, &mut text)?;
            if self.info.images {
                set.image_embedding(id, &mut image)?;
            }
            let image = self.info.images.then_some(&image[..]);
            self.push(image, &text)?;
        }
        Ok(())
    }

    /// The caption embedding of a row that the embedding set has already.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`].
    pub fn text_of_row(&self, id: u64) -> Result<Option<Vec<f32>>> {
        match self.memory.embedding_set(&self.info.model).filter(|_| self.has_row(id)) {
            None => Ok(None),
            Some(set) => {
                let mut text = vec![0.0; self.state.model.dim];
                set.text_embedding(id, &mut text)?;
                Ok(Some(text))
            }
        }
    }

    /// Whether the embedding set has an image embedding of a row, other than the mark of an image that could not be read.
    fn has_image(&self, id: u64) -> bool {
        let set = self.memory.embedding_set(&self.info.model);
        let parts = set.map_or(&[][..], |set| set.parts());
        let part = parts.partition_point(|part| part.first_id() <= id).checked_sub(1).map(|i| &parts[i]);
        let Some((part, images)) = part.and_then(|part| Some((part, part.embeddings(Modality::Image)?)))
        else {
            return false;
        };
        let at = (id - part.first_id()) as usize * self.state.model.dim;
        images.matrix.data().get(at).is_some_and(|value| !value.is_nan())
    }

    /// Whether the embedding set has the part that a row is in.
    fn has_row(&self, id: u64) -> bool {
        let place = self.first_ids.partition_point(|&first| first <= id).checked_sub(1);
        place.is_some_and(|place| self.info.has_part(place))
    }

    /// Id of a row that is written, counted from the first one.
    fn id_of(&self, mut row: u64) -> Option<u64> {
        for &place in &self.places {
            let rows = self.first_ids[place + 1] - self.first_ids[place];
            if row < rows {
                return Some(self.first_ids[place] + row);
            }
            row -= rows;
        }
        None
    }

    /// The memory whose rows are embedded.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Id of the next row; `None` when all are done.
    pub fn next_row(&self) -> Option<u64> {
        self.id_of(self.done)
    }

    /// Rows written, those that were taken up included.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Rows to be written in all.
    pub fn total(&self) -> u64 {
        self.places.iter().map(|&place| self.first_ids[place + 1] - self.first_ids[place]).sum()
    }

    /// How often [`checkpoint`](Self::checkpoint) really writes one; zero is always.
    #[must_use]
    pub fn with_checkpoint_every(mut self, every: Duration) -> EmbeddingSetWriter {
        self.checkpoint_every = every;
        self
    }

    /// The embedding of a caption that this run of the embedding set has already, as it was stored.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn known_text(&mut self, caption: &str) -> Result<Option<Vec<f32>>> {
        let Some(row) = self.known.row(caption) else { return Ok(None) };
        let mut out = vec![0.0; self.state.model.dim];
        let Err(row) = read_closed(&self.closed_texts, row, &mut out) else { return Ok(Some(out)) };
        let Some(open) = &mut self.open else { return Ok(None) };
        open.texts.read_row(row, &mut self.text_row)?;
        self.text_row.convert_to_f32_slice(&mut out);
        Ok(Some(out))
    }

    /// Writes the embeddings of the next row. `image` is `None` in an embedding set of captions, and where the image cannot be read
    /// again: the row then holds NaNs, which no search finds.
    ///
    /// # Errors
    /// [`VectorError::Length`] and [`VectorError::NotFinite`] for embeddings that are refused,
    /// [`StoreError::NoSuchPair`] after the last row; [`MemoryError::Io`] and the like when writing fails.
    pub fn push(&mut self, image: Option<&[f32]>, text: &[f32]) -> Result<()> {
        self.check_usable()?;
        let PartInfo { number, rows, .. } = self.part_at_hand()?;
        let id = self.next_row().unwrap_or_else(|| self.memory.len());
        let caption = self.memory.caption(id)?;
        match image {
            Some(image) => to_f16("image embedding", image, id, &mut self.image_row)?,
            None => self.image_row.fill(f16::NAN),
        }
        to_f16("text embedding", text, id, &mut self.text_row)?;
        self.failed = true;
        self.known.add(caption, self.done);
        let images = self.info.images;
        let part = match &mut self.open {
            Some(part) => part,
            None => self.open.insert(EmbeddingSetPart::create(
                &self.staging.root,
                number,
                self.state.model.dim,
                images,
            )?),
        };
        if let Some(images) = &mut part.images {
            images.push(&self.image_row)?;
            self.state.unreadable += u64::from(image.is_none());
        }
        part.texts.push(&self.text_row)?;
        self.done += 1;
        if part.texts.rows() == rows {
            self.close_part()?;
        }
        self.failed = false;
        Ok(())
    }

    fn close_part(&mut self) -> Result<()> {
        let Some(EmbeddingSetPart { images, texts }) = self.open.take() else { return Ok(()) };
        let (root, dim) = (&self.staging.root, self.state.model.dim);
        let (number, rows) = (self.part_at_hand()?.number, texts.rows());
        texts.finish()?;
        if let Some(images) = images {
            images.finish()?;
            write_codes(root, number, Modality::Image, rows, dim)?;
        }
        write_codes(root, number, Modality::Text, rows, dim)?;
        self.closed_texts.push(NpyMatrix::open(&TEXTS.path(root, number), rows, dim)?);
        self.state.parts.push(PartInfo {
            number,
            rows,
            sha256: checksums(root, number, self.staging.series)?,
        });
        Ok(())
    }

    /// The memory's part that the next row belongs to.
    fn part_at_hand(&self) -> Result<PartInfo> {
        let (id, path) = (self.memory.len(), self.memory.dir());
        let len = id;
        let place = self.places.get(self.state.parts.len());
        let part = place.and_then(|&place| self.memory.manifest().parts.get(place));
        part.cloned().ok_or_else(|| StoreError::NoSuchPair { id, len, path: path.to_owned() }.into())
    }

    /// Makes what is written durable, every few seconds. `truncated` is how many captions were cut so far.
    ///
    /// # Errors
    /// [`MemoryError::Io`], [`WriteError::WriterFailed`].
    pub fn checkpoint(&mut self) -> Result<()> {
        if self.last_checkpoint.elapsed() >= self.checkpoint_every { self.save() } else { Ok(()) }
    }

    /// As [`checkpoint`](Self::checkpoint), durable when it returns.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn save(&mut self) -> Result<()> {
        self.check_usable()?;
        self.state.open = OpenRows::default();
        if let Some(open) = &mut self.open {
            let mut sha256 = Checksums::new();
            if let Some(images) = &mut open.images {
                sha256.insert(IMAGES.name.to_owned(), images.sync()?);
            }
            sha256.insert(TEXTS.name.to_owned(), open.texts.sync()?);
            self.state.open = OpenRows { rows: open.texts.rows(), journal_bytes: 0, sha256 };
        }
        self.state.cursor = Cursor { digest: what(self.info.images).to_owned(), ..Cursor::default() };
        self.staging.save(&self.state)?;
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    /// Completes the embedding set: every row must have been written.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPair`] for the first row that is missing, [`MemoryError::Io`] and the like.
    pub fn finish(mut self) -> Result<Manifest> {
        self.save()?;
        let dir = self.memory.dir().to_owned();
        if let Some(id) = self.next_row() {
            return Err(StoreError::NoSuchPair { id, len: id, path: dir }.into());
        }
        let again = &self.state.again;
        let before: u64 = self
            .unreadable()?
            .iter()
            .filter(|(place, _)| again.contains(place))
            .map(|(_, ids)| ids.len() as u64)
            .sum();
        let mut manifest = self.memory.manifest().clone().updated(&dir)?;
        let mut info = self.info;
        info.parts.resize_with(manifest.parts.len(), Checksums::new);
        for (&place, part) in self.places.iter().zip(&self.state.parts) {
            info.parts[place] = part.sha256.clone();
        }
        info.unreadable = info.unreadable.saturating_sub(before) + self.state.unreadable;
        let into = Path::new(EMBEDDING_SETS_DIR).join(&info.name);
        match manifest.embedding_sets.iter_mut().find(|c| c.name == info.name) {
            Some(set) => *set = info,
            None => manifest.embedding_sets.push(info),
        }
        publish(&dir, &self.staging, &Publication { into, ..Publication::default() }, &manifest)?;
        Ok(manifest)
    }

    /// Gives up what was written: the memory is as it was.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn discard(self) -> Result<()> {
        remove_dir_if_there(&self.staging.root)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            Err(WriteError::WriterFailed { path: self.memory.dir().to_owned() }.into())
        } else {
            Ok(())
        }
    }
}

/// What a staging folder was begun for.
fn what(images: bool) -> &'static str {
    if images { "images and captions" } else { "captions" }
}
