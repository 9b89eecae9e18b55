//! Bytes of images, wherever they are; what was opened is kept, so that a memory's images are read in one pass.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use xmore_files::image::MAX_FILE_BYTES;
use xmore_files::{Reason, open_regular, path_from_bytes, read_bounded};

use super::image_ref::{ImageRef, Span};
use super::parquet::{Cell, Cursor, Leaf, ParquetFile};
use super::{is_image_name, parquet, tar_members};
use crate::error::{MemoryError, Result};

/// Largest image that is read, in bytes.
pub const MAX_IMAGE_BYTES: u64 = MAX_FILE_BYTES;

/// Tars and parquet files that are kept open: images come in the order of their sources.
const KEPT_FILES: usize = 8;

/// Places in a parquet file that are kept: at least as many as threads that read one file side by side.
const KEPT_CURSORS: usize = 16;

/// Most bytes of pages that the places in a parquet file hold together.
const KEPT_PAGE_BYTES: usize = 256 << 20;

/// Reads the bytes of images. Share one among threads: it keeps what it learned of tars and parquet files.
#[derive(Default)]
pub struct ImageReader {
    tars: Cache<HashMap<Vec<u8>, Span>>,
    parquets: Cache<ParquetImages>,
}

impl ImageReader {
    /// A reader that has nothing open.
    pub fn new() -> ImageReader {
        ImageReader::default()
    }

    /// Reads an image's bytes as they are stored, at most [`MAX_IMAGE_BYTES`] of them.
    ///
    /// # Errors
    /// [`MemoryError::Image`], with the image and what is wrong: its file or member is missing, cut off, or too large.
    pub fn read(&self, image: &ImageRef) -> Result<Vec<u8>> {
        let read = match image {
            ImageRef::File(path) => read_file(path),
            ImageRef::TarMember { tar, name, span } => match span {
                Some(span) => read_span(tar, *span),
                None => self.find_member(tar, name).and_then(|span| read_span(tar, span)),
            },
            ImageRef::ParquetCell { file, row } => self.read_cell(file, *row),
        };
        read.map_err(|Failure { reason, why }| MemoryError::Image { image: image.to_string(), reason, why })
    }

    fn find_member(&self, tar: &Arc<Path>, name: &[u8]) -> Result<Span, Failure> {
        let members = self.tars.get(tar, || image_members(tar))?;
        members.get(name).copied().ok_or_else(|| "the tar has no such member".to_owned().into())
    }

    fn read_cell(&self, file: &Arc<Path>, row: u64) -> Result<Vec<u8>, Failure> {
        self.parquets.get(file, || ParquetImages::open(file))?.read(row)
    }
}

impl std::fmt::Debug for ImageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageReader").finish_non_exhaustive()
    }
}

/// Why an image's bytes are not read.
struct Failure {
    reason: String,
    why: Reason,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure { reason, why: Reason::Unreadable }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match Reason::of_io(&error) {
            Reason::TooLarge => too_large(),
            why => Failure { reason: error.to_string(), why },
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    Ok(read_bounded(path, MAX_IMAGE_BYTES)?)
}

fn read_span(path: &Path, span: Span) -> Result<Vec<u8>, Failure> {
    check_size(span.len)?;
    let mut file = open_regular(path)?;
    file.seek(SeekFrom::Start(span.offset))?;
    let mut bytes = Vec::new();
    file.take(span.len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != span.len {
        return Err(format!("the file ends after {} of its {} bytes", bytes.len(), span.len).into());
    }
    Ok(bytes)
}

fn check_size(bytes: u64) -> Result<(), Failure> {
    if bytes > MAX_IMAGE_BYTES { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Failure {
    Failure { reason: format!("it is larger than {} MiB", MAX_IMAGE_BYTES >> 20), why: Reason::TooLarge }
}

/// Names and places of a tar's images, of a damaged one those before the damage.
fn image_members(tar: &Path) -> Result<HashMap<Vec<u8>, Span>, String> {
    let mut members = HashMap::new();
    let walked = tar_members::walk(tar, &mut |member, _| {
        if !member.indirect && is_image_name(&path_from_bytes(member.name)) {
            // Of two members of one name the source takes the first.
            members.entry(member.name.to_owned()).or_insert(member.span);
        }
        Ok(())
    });
    walked.map_err(|e| e.to_string())?;
    Ok(members)
}

/// The image column of an open parquet file.
struct ParquetImages {
    file: Arc<ParquetFile>,
    leaf: Leaf,
    /// Places that are not being read from, the one used last at the end.
    cursors: Mutex<Vec<Cursor>>,
}

impl ParquetImages {
    fn open(path: &Path) -> Result<ParquetImages, String> {
        let file = ParquetFile::open(path).map_err(|e| e.to_string())?;
        let leaf = parquet::image_bytes_leaf(&file).ok_or("the file has no column of image bytes")?;
        Ok(ParquetImages { file, leaf, cursors: Mutex::default() })
    }

    fn read(&self, row: u64) -> Result<Vec<u8>, Failure> {
        let cursors = || self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let nearest = {
            let mut cursors = cursors();
            let reaching = cursors.iter().enumerate().filter(|(_, c)| c.is_before(row));
            reaching.max_by_key(|(_, c)| c.next_row()).map(|(i, _)| i).map(|i| cursors.remove(i))
        };
        let read = || -> Result<_> {
            let cursor = match nearest {
                Some(mut cursor) => cursor.skip_to(row).map(|()| Some(cursor))?,
                None => Cursor::at(&self.file, self.leaf, MAX_IMAGE_BYTES as usize, row)?,
            };
            let Some(mut cursor) = cursor else { return Ok(None) };
            Ok(Some((cursor.read(1)?, cursor)))
        };
        let Some((rows, cursor)) = read().map_err(|e| e.to_string())? else {
            return Err(format!("the file has {} rows", self.file.rows()).into());
        };
        let bytes = match rows.first(0) {
            Cell::Null => Err("its cell is empty".to_owned().into()),
            Cell::Bytes(bytes) => Ok(bytes.to_vec()),
            Cell::TooLong(length) => check_size(length as u64).map(|()| Vec::new()),
        };
        let mut cursors = cursors();
        cursors.push(cursor);
        // The last one is kept in any case: images come in order.
        while cursors.len() > KEPT_CURSORS
            || (cursors.len() > 1 && cursors.iter().map(Cursor::held).sum::<usize>() > KEPT_PAGE_BYTES)
        {
            cursors.remove(0);
        }
        bytes
    }
}

/// What is known of the files used last. Opening one makes only those wait who want the same.
struct Cache<T>(Mutex<Vec<Kept<T>>>);

/// A file, and what is known of it once somebody has looked.
type Kept<T> = (Arc<Path>, Arc<OnceLock<Result<Arc<T>, String>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Cache(Mutex::default())
    }
}

impl<T> Cache<T> {
    fn get(&self, path: &Arc<Path>, open: impl FnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        let slot = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = match kept.iter().position(|(p, _)| p == path) {
                Some(i) => kept.remove(i),
                None => (Arc::clone(path), Arc::default()),
            };
            if kept.len() == KEPT_FILES {
                kept.remove(0);
            }
            kept.push(entry);
            Arc::clone(&kept[kept.len() - 1].1)
        };
        slot.get_or_init(|| open().map(Arc::new)).clone()
    }
}
