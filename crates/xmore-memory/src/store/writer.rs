//! Writing a memory: rows go to the part at hand, the manifest last.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::manifest::{Manifest, ModelIdentity, PartInfo};
use super::metadata::Metadata;
use super::npy::{NpyMatrix, NpyWriter};
use super::{
    ALL_SERIES, BUILDING_DIR, IMAGE_CODES, IMAGES, MANIFEST_FILE, MAX_DIM, METADATA, TEXT_CODES, TEXTS,
    sync_dir,
};
use crate::error::{AtPath, MemoryError, Result};
use crate::search::codes;

/// Rows of a full part.
const PART_ROWS: u64 = 65_536;
/// A part is closed early when its paths and captions, which are held until then, take this many bytes.
const PART_TEXT_BYTES: usize = 64 << 20;
/// Part numbers have four digits.
const MAX_PARTS: usize = 10_000;
/// Held locked while a memory is built; the system unlocks it when the process ends, however it ends.
const LOCK_FILE: &str = "lock";

/// Writes a memory row by row.
///
/// Embeddings are written as they come and strings a part at a time, so little memory is used however many pairs
/// there are. The memory becomes visible only with [`finish`](Self::finish); a writer dropped before that leaves
/// an incomplete memory, which [`Memory::open`](super::Memory::open) refuses and `create` replaces.
pub struct MemoryWriter {
    dir: PathBuf,
    building: PathBuf,
    /// Keeps other processes out.
    lock: File,
    model: ModelIdentity,
    part_rows: u64,
    part: Option<OpenPart>,
    parts: Vec<PartInfo>,
    pairs: u64,
    skipped: u64,
    images: DistinctCount,
    /// Row buffers, `[dim]` each.
    image_row: Vec<f16>,
    text_row: Vec<f16>,
    /// Set while a part is being changed, so that an error in between is remembered.
    failed: bool,
}

/// The part that rows go to.
struct OpenPart {
    images: NpyWriter,
    texts: NpyWriter,
    metadata: Metadata,
}

impl MemoryWriter {
    /// Starts a memory in `dir`, which is created if need be. The remains of an interrupted build are replaced.
    ///
    /// # Errors
    /// [`MemoryError::AlreadyExists`] over a complete memory, [`MemoryError::NotEmpty`] over anything else,
    /// [`MemoryError::Busy`] if another process is building here, [`MemoryError::Dim`], [`MemoryError::Io`].
    pub fn create(dir: impl AsRef<Path>, model: ModelIdentity) -> Result<MemoryWriter> {
        Self::start(dir.as_ref(), model, false)
    }

    /// As [`create`](Self::create), but replaces a complete memory, which stays readable until
    /// [`finish`](Self::finish). A directory that holds something else is refused all the same.
    ///
    /// # Errors
    /// As [`create`](Self::create), without [`MemoryError::AlreadyExists`].
    pub fn create_overwriting(dir: impl AsRef<Path>, model: ModelIdentity) -> Result<MemoryWriter> {
        Self::start(dir.as_ref(), model, true)
    }

    fn start(dir: &Path, model: ModelIdentity, overwrite: bool) -> Result<MemoryWriter> {
        if !(1..=MAX_DIM).contains(&model.dim) {
            return Err(MemoryError::Dim { model: model.name, found: model.dim, max: MAX_DIM });
        }
        fs::create_dir_all(dir).at("create", dir)?;
        let building = dir.join(BUILDING_DIR);
        let complete = dir.join(MANIFEST_FILE).exists();
        if complete && !overwrite {
            return Err(MemoryError::AlreadyExists { path: dir.to_owned() });
        }
        if !complete
            && !building.exists()
            && let Some(entry) = fs::read_dir(dir).at("read", dir)?.next()
        {
            let found = entry.at("read", dir)?.file_name().to_string_lossy().into_owned();
            return Err(MemoryError::NotEmpty { path: dir.to_owned(), found });
        }

        fs::create_dir_all(&building).at("create", &building)?;
        let lock_path = building.join(LOCK_FILE);
        let lock = File::create(&lock_path).at("create", &lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(MemoryError::Busy { path: dir.to_owned() }),
            // Some network file systems have no locks; building there is still better than not building.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &lock_path),
        }
        for series in ALL_SERIES {
            let path = building.join(series.name);
            remove_dir_if_there(&path)?;
            fs::create_dir(&path).at("create", &path)?;
        }

        let dim = model.dim;
        Ok(MemoryWriter {
            dir: dir.to_owned(),
            building,
            lock,
            model,
            part_rows: PART_ROWS,
            part: None,
            parts: Vec::new(),
            pairs: 0,
            skipped: 0,
            images: DistinctCount::default(),
            image_row: vec![f16::ZERO; dim],
            text_row: vec![f16::ZERO; dim],
            failed: false,
        })
    }

    /// Makes parts of `rows` rows, so that tests need not write 65,536.
    #[cfg(test)]
    pub(crate) fn with_part_rows(mut self, rows: u64) -> MemoryWriter {
        self.part_rows = rows;
        self
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
        let part = match &mut self.part {
            Some(part) => part,
            None => {
                let number = self.parts.len();
                if number >= MAX_PARTS {
                    return Err(MemoryError::TooManyParts { path: self.dir.clone(), max: MAX_PARTS });
                }
                let npy = |series: super::Series| {
                    let path = self.building.join(series.name).join(series.file_name(number));
                    NpyWriter::create(path, self.model.dim)
                };
                let (images, texts) = (npy(IMAGES)?, npy(TEXTS)?);
                self.part.insert(OpenPart { images, texts, metadata: Metadata::default() })
            }
        };
        part.images.push(&self.image_row)?;
        part.texts.push(&self.text_row)?;
        part.metadata.image_paths.push(image_path);
        part.metadata.captions.push(caption);
        self.images.add(image_path);
        self.pairs += 1;
        let text_bytes = part.metadata.image_paths.bytes() + part.metadata.captions.bytes();
        if part.metadata.captions.len() as u64 >= self.part_rows || text_bytes >= PART_TEXT_BYTES {
            self.close_part()?;
        }
        Ok(())
    }

    fn close_part(&mut self) -> Result<()> {
        let Some(OpenPart { images, texts, metadata }) = self.part.take() else { return Ok(()) };
        let name = METADATA.file_name(self.parts.len());
        let rows = metadata.captions.len() as u64;
        images.finish()?;
        texts.finish()?;
        for (series, codes) in [(IMAGES, IMAGE_CODES), (TEXTS, TEXT_CODES)] {
            let place = |s: super::Series| self.building.join(s.name).join(s.file_name(self.parts.len()));
            let matrix = NpyMatrix::open(&place(series), rows, self.model.dim)?;
            codes::write(&place(codes), matrix.data(), self.model.dim)?;
        }
        metadata.write(&self.building.join(METADATA.name).join(name))?;
        self.parts.push(PartInfo { rows });
        Ok(())
    }

    /// Records how many things of the source were skipped.
    pub fn set_skipped(&mut self, skipped: u64) {
        self.skipped = skipped;
    }

    /// Number of pairs pushed so far.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Completes the memory: closes the last part, puts the parts in place, writes the manifest last.
    ///
    /// # Errors
    /// [`MemoryError::Io`], [`MemoryError::Parquet`], or [`MemoryError::WriterFailed`] after a failed `push`.
    pub fn finish(mut self) -> Result<Manifest> {
        self.check_usable()?;
        self.close_part()?;
        for series in ALL_SERIES {
            sync_dir(&self.building.join(series.name))?;
        }
        let manifest = Manifest::new(self.model, self.pairs, self.images.count(), self.parts, self.skipped);
        let staged = self.building.join(MANIFEST_FILE);
        manifest.write(&staged)?;

        // From here to the last rename the directory has no manifest, so it counts as incomplete.
        let published = self.dir.join(MANIFEST_FILE);
        match fs::remove_file(&published) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at("remove", &published),
            _ => sync_dir(&self.dir)?,
        }
        for series in ALL_SERIES {
            let place = self.dir.join(series.name);
            remove_dir_if_there(&place)?;
            fs::rename(self.building.join(series.name), &place).at("rename to", &place)?;
        }
        sync_dir(&self.dir)?;
        fs::rename(&staged, &published).at("rename to", &published)?;
        sync_dir(&self.dir)?;

        // The memory is complete; an emptied directory that cannot be removed does not change that.
        drop(self.lock);
        let _ = fs::remove_dir_all(&self.building);
        Ok(manifest)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed { Err(MemoryError::WriterFailed { path: self.dir.clone() }) } else { Ok(()) }
    }
}

/// Checks an embedding and rounds it into `out`, `[dim]`.
fn to_f16(what: &'static str, row: &[f32], number: u64, out: &mut [f16]) -> Result<()> {
    if row.len() != out.len() {
        return Err(MemoryError::Length { what, expected: out.len(), found: row.len() });
    }
    out.convert_from_f32_slice(row);
    match out.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(position) => Err(MemoryError::NotFinite { what, row: number, position, value: row[position] }),
    }
}

fn remove_dir_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

/// Counts distinct strings by their 64-bit hash: 8 bytes each, and a miscount by one has a chance below 10⁻⁵
/// for ten million.
#[derive(Default)]
struct DistinctCount {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl DistinctCount {
    fn add(&mut self, string: &str) {
        self.seen.insert(self.hasher.hash_one(string));
    }

    fn count(&self) -> u64 {
        self.seen.len() as u64
    }
}
