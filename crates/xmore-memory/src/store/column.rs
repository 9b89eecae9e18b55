//! A further column: embeddings of a memory's rows by another model, written in the rows' order and resumable like a build.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::lock::Lock;
use super::manifest::{Checksums, ColumnInfo, Manifest, ModelIdentity, PartInfo, column_name};
use super::npy::{NpyMatrix, NpyWriter};
use super::open_part::{checksums, write_codes};
use super::publish::{Publication, publish, roll_forward};
use super::reader::Memory;
use super::repair::open_with_checksums;
use super::staging::{Checkpoint, Cursor, Mode, OpenRows, Staging, unfinished_is_damaged};
use super::texts::{KnownTexts, read_closed};
use super::writer::to_f16;
use super::{COLUMNS_DIR, IMAGES, MANIFEST_FILE, Modality, Series, TEXTS, checksum};
use crate::error::{MemoryError, Result};

/// Where the parts of a column are built.
pub(super) const EMBEDDING_DIR: &str = ".xmore-embedding";
/// As in building a memory.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Writes a column of embeddings, a row for each row of the memory, in order.
///
/// It becomes visible with [`finish`](Self::finish). One that ends before is taken up by [`open`](Self::open). A column that
/// is there already is continued where the memory has grown since.
pub struct ColumnWriter {
    memory: Memory,
    staging: Staging,
    /// Keeps other processes out.
    _lock: Lock,
    info: ColumnInfo,
    /// `skipped` counts unreadable images.
    state: Checkpoint,
    open: Option<ColumnPart>,
    closed_texts: Vec<NpyMatrix>,
    /// Rows by caption, of those written in this run of the column.
    known: KnownTexts,
    /// Id of the next row.
    next: u64,
    /// Id of the first row of the first new part.
    first_id: u64,
    checkpoint_every: Duration,
    last_checkpoint: Instant,
    image_row: Vec<f16>,
    text_row: Vec<f16>,
    failed: bool,
}

/// The part that rows go to.
struct ColumnPart {
    images: Option<NpyWriter>,
    texts: NpyWriter,
}

impl ColumnPart {
    fn create(root: &Path, number: usize, dim: usize, images: bool) -> Result<ColumnPart> {
        let create = |series: Series| NpyWriter::create(series.path(root, number), dim);
        Ok(ColumnPart { images: images.then(|| create(IMAGES)).transpose()?, texts: create(TEXTS)? })
    }

    fn resume(root: &Path, number: usize, dim: usize, images: bool, left: &OpenRows) -> Result<ColumnPart> {
        let resume = |series: Series| {
            NpyWriter::resume(series.path(root, number), dim, left.rows, left.sha256(series.name))
        };
        Ok(ColumnPart { images: images.then(|| resume(IMAGES)).transpose()?, texts: resume(TEXTS)? })
    }
}

impl ColumnWriter {
    /// Opens the memory in `dir` for a column by `model`; `images` says whether images are embedded or captions only.
    ///
    /// # Errors
    /// Those of [`Memory::open`]; [`MemoryError::Busy`]; [`MemoryError::ColumnExists`] if the column is whole, or is the
    /// memory's own, or has been made with images and is now to be without or the other way round.
    pub fn open(dir: impl AsRef<Path>, model: ModelIdentity, images: bool) -> Result<ColumnWriter> {
        let dir = dir.as_ref();
        // Refuses what is no memory before a lock file is made in it.
        Memory::open(dir)?;
        let lock = Lock::take(dir)?;
        roll_forward(dir)?;
        let memory = open_with_checksums(dir)?;
        let manifest = memory.manifest();
        let same = |other: &ModelIdentity| (&other.sha256, other.dim) == (&model.sha256, model.dim);
        let there = manifest.columns.iter().find(|c| same(&c.model));
        let whole = there.is_some_and(|c| c.parts.len() == manifest.parts.len() || c.images != images);
        if same(&manifest.model) || whole {
            return Err(MemoryError::ColumnExists { path: dir.to_owned(), model: model.name });
        }
        let info = there.cloned().unwrap_or_else(|| ColumnInfo {
            name: free_name(manifest, &model.name),
            model: model.clone(),
            images,
            parts: Vec::new(),
            unreadable: 0,
        });
        let staging = Staging { root: dir.join(EMBEDDING_DIR), series: info.series() };
        let base = checksum::of_file(&dir.join(MANIFEST_FILE))?;
        let first_part = info.parts.len();
        let first_id = manifest.parts[..first_part].iter().map(|p| p.rows).sum();
        let dim = model.dim;
        let mut writer = ColumnWriter {
            memory,
            staging,
            _lock: lock,
            info,
            state: Checkpoint::start(Mode::Append, base, model, first_part),
            open: None,
            closed_texts: Vec::new(),
            known: KnownTexts::default(),
            next: first_id,
            first_id,
            checkpoint_every: CHECKPOINT_EVERY,
            last_checkpoint: Instant::now(),
            image_row: vec![f16::ZERO; dim],
            text_row: vec![f16::ZERO; dim],
            failed: false,
        };
        match writer.staging.checkpoint()? {
            Some(left)
                if left.base == writer.state.base
                    && left.model == writer.state.model
                    && left.cursor.digest == what(images) =>
            {
                writer.resume(left).map_err(|error| unfinished_is_damaged(error, &writer.staging.root))?;
            }
            _ => writer.staging.start()?,
        }
        Ok(writer)
    }

    fn resume(&mut self, left: Checkpoint) -> Result<()> {
        let (root, dim, images) = (self.staging.root.clone(), left.model.dim, self.info.images);
        let place = left.first_part + left.parts.len();
        let number = self.memory.manifest().parts.get(place).map_or(0, |part| part.number);
        let growing: Vec<PathBuf> = [IMAGES, TEXTS]
            .iter()
            .map(|series| series.path(&root, number))
            .flat_map(|path| [path.with_extension("npy.tmp"), path])
            .filter(|_| left.open.rows > 0)
            .collect();
        self.staging.clean(&left, &growing)?;
        self.staging.check_closed(&left)?;
        for part in &left.parts {
            self.closed_texts.push(NpyMatrix::open(&TEXTS.path(&root, part.number), part.rows, dim)?);
        }
        if left.open.rows > 0 {
            self.open = Some(ColumnPart::resume(&root, number, dim, images, &left.open)?);
        }
        self.next = self.first_id + left.parts.iter().map(|p| p.rows).sum::<u64>() + left.open.rows;
        for id in self.first_id..self.next {
            self.known.add(self.memory.caption(id)?, id);
        }
        self.state = left;
        Ok(())
    }

    /// The memory whose rows are embedded.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Id of the next row to embed; the memory's length when all are done.
    pub fn next_row(&self) -> u64 {
        self.next
    }

    /// How often [`checkpoint`](Self::checkpoint) really writes one; zero is always.
    #[must_use]
    pub fn with_checkpoint_every(mut self, every: Duration) -> ColumnWriter {
        self.checkpoint_every = every;
        self
    }

    /// The embedding of a caption that this run of the column has already, as it was stored.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn known_text(&mut self, caption: &str) -> Result<Option<Vec<f32>>> {
        let Some(id) = self.known.row(caption) else { return Ok(None) };
        let mut out = vec![0.0; self.state.model.dim];
        let Err(row) = read_closed(&self.closed_texts, id - self.first_id, &mut out) else {
            return Ok(Some(out));
        };
        let Some(open) = &mut self.open else { return Ok(None) };
        open.texts.read_row(row, &mut self.text_row)?;
        self.text_row.convert_to_f32_slice(&mut out);
        Ok(Some(out))
    }

    /// Writes the embeddings of the next row. `image` is `None` in a column of captions, and where the image cannot be read
    /// again: the row then holds NaNs, which no search finds.
    ///
    /// # Errors
    /// [`MemoryError::Length`] and [`MemoryError::NotFinite`] for embeddings that are refused,
    /// [`MemoryError::NoSuchPair`] after the last row; [`MemoryError::Io`] and the like when writing fails.
    pub fn push(&mut self, image: Option<&[f32]>, text: &[f32]) -> Result<()> {
        self.check_usable()?;
        let id = self.next;
        let caption = self.memory.caption(id)?;
        match image {
            Some(image) => to_f16("image embedding", image, id, &mut self.image_row)?,
            None => self.image_row.fill(f16::NAN),
        }
        to_f16("text embedding", text, id, &mut self.text_row)?;
        self.failed = true;
        self.known.add(caption, id);
        let PartInfo { number, rows, .. } = self.part_at_hand()?;
        let images = self.info.images;
        let part = match &mut self.open {
            Some(part) => part,
            None => self.open.insert(ColumnPart::create(
                &self.staging.root,
                number,
                self.state.model.dim,
                images,
            )?),
        };
        if let Some(images) = &mut part.images {
            images.push(&self.image_row)?;
            self.state.skipped += u64::from(image.is_none());
        }
        part.texts.push(&self.text_row)?;
        self.next += 1;
        if part.texts.rows() == rows {
            self.close_part()?;
        }
        self.failed = false;
        Ok(())
    }

    fn close_part(&mut self) -> Result<()> {
        let Some(ColumnPart { images, texts }) = self.open.take() else { return Ok(()) };
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
        let place = self.state.first_part + self.state.parts.len();
        let (id, len, path) = (self.next, self.memory.len(), self.memory.dir());
        let part = self.memory.manifest().parts.get(place);
        part.cloned().ok_or_else(|| MemoryError::NoSuchPair { id, len, path: path.to_owned() })
    }

    /// Makes what is written durable, every few seconds. `truncated` is how many captions were cut so far.
    ///
    /// # Errors
    /// [`MemoryError::Io`], [`MemoryError::WriterFailed`].
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

    /// Completes the column: every row must have been written.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPair`] for the first row that is missing, [`MemoryError::Io`] and the like.
    pub fn finish(mut self) -> Result<Manifest> {
        self.save()?;
        let dir = self.memory.dir().to_owned();
        if self.next != self.memory.len() {
            return Err(MemoryError::NoSuchPair { id: self.next, len: self.next, path: dir });
        }
        let mut info = self.info;
        info.parts.extend(self.state.parts.iter().map(|part| part.sha256.clone()));
        info.unreadable += self.state.skipped;
        let mut manifest = self.memory.manifest().clone().updated(&dir)?;
        let into = Path::new(COLUMNS_DIR).join(&info.name);
        match manifest.columns.iter_mut().find(|c| c.name == info.name) {
            Some(column) => *column = info,
            None => manifest.columns.push(info),
        }
        publish(&dir, &self.staging, &Publication { into, ..Publication::default() }, &manifest)?;
        Ok(manifest)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            Err(MemoryError::WriterFailed { path: self.memory.dir().to_owned() })
        } else {
            Ok(())
        }
    }
}

/// What a staging folder was begun for.
fn what(images: bool) -> &'static str {
    if images { "images and captions" } else { "captions" }
}

/// A name for the column of a model that no other column has.
fn free_name(manifest: &Manifest, model: &str) -> String {
    let name = column_name(model);
    let taken = |name: &str| manifest.columns.iter().any(|c| c.name == name);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(name)
}
