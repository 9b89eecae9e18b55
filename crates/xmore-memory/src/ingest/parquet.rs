//! Pairs from parquet files: captions beside image paths, or beside the images' bytes, which are not read here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::caption::MAX_CAPTION_BYTES;
use super::columns::{Cursor, Leaf, ParquetFile, Rows};
use super::group::Grouping;
use super::table::{IMAGE_COLUMNS, no_images_hint};
use super::{ImageRef, Ingested, Pair, Skip, SkipReason};
use crate::error::{MemoryError, Result};

/// Names of a column of images' bytes: Hugging Face's, then img2dataset's, which are named after the encoding.
const BYTES_COLUMNS: &[&str] = &["image", "jpg", "jpeg", "png", "webp"];
/// All names by which images are looked for.
const ANY_IMAGE_COLUMN: &[&str] =
    &["image", "jpg", "jpeg", "png", "webp", "image_path", "filepath", "file_name"];
/// Names of the caption column: a table's, and COCO's of a list.
const PARQUET_CAPTION_COLUMNS: &[&str] = &["caption", "captions", "title", "text"];

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;

/// Where the images of a file are.
enum Images {
    /// In the file itself.
    Bytes,
    /// In files of their own, which this column names.
    Paths(Leaf),
}

/// Reads files in order. Relative image paths are relative to `image_root`, else to the file's folder.
///
/// One file alone must be readable; of several, those that are not are skipped.
pub(super) fn read(files: &[PathBuf], image_root: Option<&Path>) -> Result<Ingested> {
    let mut grouping = Grouping::default();
    let mut skipped = Vec::new();
    for path in files {
        match read_file(path, image_root, &mut grouping, &mut skipped) {
            Ok(()) => {}
            Err(error) if files.len() == 1 => return Err(error),
            Err(error) => skipped.push(Skip::file(path, &error)),
        }
    }
    Ok(Ingested { pairs: grouping.pairs, skipped, ..Ingested::default() })
}

/// The column of a file that holds images' bytes: binary, or the `bytes` of Hugging Face's struct.
pub(super) fn image_bytes_leaf(file: &ParquetFile) -> Option<Leaf> {
    let binary = |name: &&str| {
        let plain = file.leaf(&[name]).filter(|leaf| !leaf.text);
        plain.or_else(|| file.leaf(&[name, "bytes"])).filter(|leaf| !leaf.list && !file.is_all_null(*leaf))
    };
    BYTES_COLUMNS.iter().find_map(binary)
}

/// The column of a file that holds images' paths: text, or the `path` of Hugging Face's struct.
fn image_path_leaf(file: &ParquetFile) -> Option<Leaf> {
    let path = |name: &&str| {
        // Old writers do not say that a column is text; `image` might then be bytes.
        let plain = file.leaf(&[name]).filter(|leaf| leaf.text || *name != "image");
        plain.or_else(|| file.leaf(&[name, "path"])).filter(|leaf| !leaf.list)
    };
    IMAGE_COLUMNS.iter().find_map(path)
}

fn read_file(
    path: &Path,
    image_root: Option<&Path>,
    grouping: &mut Grouping,
    skipped: &mut Vec<Skip>,
) -> Result<()> {
    let file = ParquetFile::open(path)?;
    let missing = |wanted, expected| MemoryError::MissingColumn {
        path: path.to_owned(),
        wanted,
        expected,
        found: file.names(),
        hint: if wanted == "image" { no_images_hint(&file.names()) } else { String::new() },
    };
    let images = match (image_bytes_leaf(&file), image_path_leaf(&file)) {
        (Some(_), _) => Images::Bytes,
        (None, Some(leaf)) => Images::Paths(leaf),
        (None, None) => return Err(missing("image", ANY_IMAGE_COLUMN)),
    };
    let captions = PARQUET_CAPTION_COLUMNS.iter().find_map(|name| file.leaf(&[name]));
    let captions = captions.ok_or_else(|| missing("caption", PARQUET_CAPTION_COLUMNS))?;

    let folder = image_root.or(path.parent()).unwrap_or(Path::new(""));
    let mut captions = Cursor::new(&file, captions);
    let mut paths = match images {
        Images::Bytes => None,
        Images::Paths(leaf) => Some(Cursor::new(&file, leaf)),
    };
    loop {
        let start = captions.next_row();
        let mut read = || -> Result<(Rows, Option<Rows>)> {
            let rows = captions.read(BATCH_ROWS)?;
            // Batches end with the row group, in all columns alike.
            let paths = paths.as_mut().map(|paths| paths.read(rows.len())).transpose()?;
            Ok((rows, paths))
        };
        let (rows, paths) = match read() {
            Ok(batch) => batch,
            Err(error) => {
                // What was read stays.
                let message = format!("the rows from {start} on are missing: {error}");
                skipped.push(Skip { path: path.to_owned(), reason: SkipReason::Damaged(message) });
                return Ok(());
            }
        };
        if rows.len() == 0 {
            return Ok(());
        }
        for i in 0..rows.len().min(paths.as_ref().map_or(usize::MAX, Rows::len)) {
            let row = start + i as u64;
            let add = row_captions(&rows, i).and_then(|captions| match &paths {
                None => {
                    let image = ImageRef::ParquetCell { file: Arc::clone(file.path()), row };
                    grouping.pairs.push(Pair { image, captions });
                    Ok(())
                }
                Some(paths) => {
                    grouping.add(folder.join(image_path(paths.first(i))?), captions);
                    Ok(())
                }
            });
            if let Err(what) = add {
                skipped.push(Skip { path: path.to_owned(), reason: SkipReason::ParquetRow { row, what } });
            }
        }
        if let Some(paths) = paths.filter(|paths| paths.len() < rows.len()) {
            let message = format!("the image column ends at row {}", start + paths.len() as u64);
            skipped.push(Skip { path: path.to_owned(), reason: SkipReason::Damaged(message) });
            return Ok(());
        }
    }
}

/// The captions of a row that are not blank, or what is wrong with it.
fn row_captions(rows: &Rows, row: usize) -> Result<Vec<String>, String> {
    let mut captions = Vec::new();
    for value in rows.get(row) {
        if value.len() > MAX_CAPTION_BYTES {
            return Err(format!("a caption is longer than {MAX_CAPTION_BYTES} bytes"));
        }
        let caption = String::from_utf8_lossy(value.data()).trim().to_owned();
        if !caption.is_empty() {
            captions.push(caption);
        }
    }
    if captions.is_empty() { Err("the caption is empty".to_owned()) } else { Ok(captions) }
}

fn image_path(value: Option<&[u8]>) -> Result<&str, String> {
    let path = value.filter(|path| !path.is_empty()).ok_or("the image path is empty")?;
    if path.len() > MAX_CAPTION_BYTES {
        return Err(format!("the image path is longer than {MAX_CAPTION_BYTES} bytes"));
    }
    std::str::from_utf8(path).map_err(|_| "the image path is not UTF-8".to_owned())
}
