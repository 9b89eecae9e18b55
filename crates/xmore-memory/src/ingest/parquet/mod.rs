//! Pairs from parquet files: captions beside image paths, or beside the images' bytes, which are not read here.

mod cursor;
mod damage;
mod file;
mod footer;
mod grammar;
mod guarded;
mod pages;
mod thrift;
mod unpack;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore_files::path_from_bytes;
use xmore_files::table::{Found, Role, find, image_path, same_name};
use xmore_files::text::decode_text;

pub(super) use cursor::{Cell, Cursor, Rows};
pub(super) use file::{Leaf, ParquetFile};
pub use guarded::catches_panics;

use super::caption::MAX_CAPTION_BYTES;
use super::column_names::ColumnNames;
use super::group::Grouping;
use super::note::{self, Conversions};
use super::skips::Skips;
use super::table::{missing_column, no_images_hint};
use super::{ImageRef, Ingested, Note, Pair, Skip, SkipReason};
use crate::error::{MemoryError, Result};
use crate::ingest::SourceError;

/// Names of a column of images' bytes: Hugging Face's, then img2dataset's, which are named after the encoding.
const BYTES_COLUMNS: [&str; 5] = ["image", "jpg", "jpeg", "png", "webp"];

/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;
/// Rows by which a column without statistics is judged to hold nothing.
const PROBED_ROWS: usize = 16;

/// Most bytes that the pairs of some files may take in memory: a file of 20 kB can hold the same long caption millions of times.
const MAX_LISTED_BYTES: u64 = 256 << 20;
/// Files may take more where they are large themselves, by this factor.
const MAX_LISTED_GROWTH: u64 = 64;
/// What a pair takes beside its texts.
const PAIR_BYTES: u64 = 128;

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
pub(super) fn read(files: &[PathBuf], image_root: Option<&Path>, names: &ColumnNames) -> Result<Ingested> {
    let mut listing = Listing::default();
    let mut grouping = Grouping::default();
    for path in files {
        let folder = image_root.or(path.parent()).unwrap_or(Path::new(""));
        let mut add = |image: Image, captions| match image {
            Image::Cell(row) => {
                let image = ImageRef::ParquetCell { file: path.as_path().into(), row };
                grouping.pairs.push(Pair { image, captions });
            }
            Image::File(path) => grouping.add(path, captions),
        };
        match read_file(path, folder, names, &mut listing, &mut add) {
            Ok(()) => {}
            Err(error) if files.len() == 1 => return Err(error),
            Err(error) => listing.skipped.push(Skip::file(path, &error)),
        }
    }
    let Listing { skipped, notes, .. } = listing;
    Ok(Ingested { pairs: grouping.pairs, skipped, notes, ..Ingested::default() })
}

/// An image that a row names.
pub(super) enum Image {
    /// It is in this row itself.
    Cell(u64),
    /// It is a file.
    File(PathBuf),
}

/// What is said of files, and how much of them is listed.
#[derive(Default)]
pub(super) struct Listing {
    pub skipped: Vec<Skip>,
    pub notes: Vec<Note>,
    stored: u64,
    listed: u64,
}

impl Listing {
    /// Counts a pair; says whether it is within the limit.
    fn has_room(&mut self, bytes: u64) -> bool {
        self.listed += bytes + PAIR_BYTES;
        self.listed <= self.limit()
    }

    fn limit(&self) -> u64 {
        MAX_LISTED_BYTES.max(self.stored.saturating_mul(MAX_LISTED_GROWTH))
    }
}

/// The column of a file that holds images' bytes: binary of a usual name, or the `bytes` of Hugging Face's struct of any name.
pub(super) fn image_bytes_leaf(file: &Arc<ParquetFile>) -> Option<Leaf> {
    let usual = BYTES_COLUMNS.iter().find_map(|name| bytes_leaf(file, name));
    usual.or_else(|| {
        let names = file.names();
        let images = |name: &&String| Role::Image.column_names().iter().any(|usual| same_name(name, usual));
        if names.iter().filter(images).any(|name| path_leaf(file, name).is_some()) {
            return None;
        }
        let is_struct = |name: &&String| file.leaf(&[name, "bytes"]).is_some();
        let mut named = names.iter().filter(images).chain(names.iter().filter(is_struct));
        named.find_map(|name| bytes_leaf(file, name))
    })
}

fn bytes_leaf(file: &Arc<ParquetFile>, name: &str) -> Option<Leaf> {
    // Old writers do not say that a column is text; a name that means a path is believed.
    let plain = file.leaf(&[name]).filter(|leaf| !leaf.text && !names_a_path(name));
    let leaf = plain.or_else(|| file.leaf(&[name, "bytes"]));
    leaf.filter(|leaf| !leaf.list && !is_all_null(file, *leaf))
}

/// The column that holds images' paths: text, or the `path` of Hugging Face's struct.
fn path_leaf(file: &Arc<ParquetFile>, name: &str) -> Option<Leaf> {
    let plain = file.leaf(&[name]).filter(|leaf| leaf.text || names_a_path(name));
    let leaf = plain.or_else(|| file.leaf(&[name, "path"]));
    leaf.filter(|leaf| !leaf.list && !is_all_null(file, *leaf))
}

/// Whether a column of this name holds paths where the file does not say that it is text.
fn names_a_path(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["path", "file", "name"].iter().any(|part| name.contains(part))
}

/// Whether a column holds nothing, by the file's statistics or else by its first rows.
fn is_all_null(file: &Arc<ParquetFile>, leaf: Leaf) -> bool {
    file.is_all_null(leaf).unwrap_or_else(|| {
        let rows = Cursor::new(file, leaf, 0).read(PROBED_ROWS);
        rows.is_ok_and(|rows| rows.len() > 0 && (0..rows.len()).all(|row| rows.first(row) == Cell::Null))
    })
}

/// Where the images are; a note if there is a choice.
fn find_images(file: &Arc<ParquetFile>, path: &Path, wanted: Option<&str>) -> Result<(Images, Option<Note>)> {
    let names = file.names();
    let found = find(&names, Role::Image, wanted);
    let candidates: Vec<usize> = match &found {
        Ok(found) => std::iter::once(found.index).chain(found.others.iter().copied()).collect(),
        Err(_) => Vec::new(),
    };
    let bytes = image_bytes_leaf(file);
    if bytes.is_some()
        && (wanted.is_none() || candidates.iter().any(|&i| bytes_leaf(file, &names[i]) == bytes))
    {
        return Ok((Images::Bytes, None));
    }
    let usable = candidates.iter().position(|&index| path_leaf(file, &names[index]).is_some());
    if let (Some(at), Ok(found)) = (usable, &found) {
        let leaf = path_leaf(file, &names[candidates[at]]).expect("it was found");
        let others =
            candidates[at + 1..].iter().copied().filter(|&index| path_leaf(file, &names[index]).is_some());
        let taken = Found { index: candidates[at], others: others.collect() };
        let note =
            if found.others.is_empty() { None } else { note::of_columns(path, Role::Image, &taken, &names) };
        return Ok((Images::Paths(leaf), note));
    }
    if let (Some(wanted), true) = (wanted, candidates.iter().any(|&i| bytes_leaf(file, &names[i]).is_some()))
    {
        let reason = "images' bytes are read from another column, which comes first".to_owned();
        return Err(unusable(path, Role::Image, vec![(wanted.to_owned(), reason)]));
    }
    let bytes_names = names
        .iter()
        .enumerate()
        .filter(|(_, name)| BYTES_COLUMNS.iter().any(|usual| name.eq_ignore_ascii_case(usual)));
    let mut reasons: Vec<usize> = candidates;
    if wanted.is_none() {
        reasons.extend(bytes_names.map(|(index, _)| index));
    }
    reasons.dedup();
    match found {
        Err(missing) if reasons.is_empty() => {
            let hint = no_images_hint(&names);
            Err(missing_column(path, missing, hint))
        }
        _ => Err(unusable(path, Role::Image, described(file, &names, &reasons))),
    }
}

fn find_captions(file: &Arc<ParquetFile>, path: &Path, wanted: Option<&str>) -> Result<(Leaf, Option<Note>)> {
    let names = file.names();
    let found = find(&names, Role::Caption, wanted)
        .map_err(|missing| missing_column(path, missing, String::new()))?;
    let candidates: Vec<usize> = std::iter::once(found.index).chain(found.others).collect();
    let leaf = |index: usize| file.leaf(&[&names[index]]).filter(|leaf| !is_all_null(file, *leaf));
    let usable: Vec<(usize, Leaf)> =
        candidates.iter().filter_map(|&index| Some((index, leaf(index)?))).collect();
    let Some(&(index, leaf)) = usable.first() else {
        return Err(unusable(path, Role::Caption, described(file, &names, &candidates)));
    };
    let others = usable[1..].iter().map(|(index, _)| *index).collect();
    let note = note::of_columns(path, Role::Caption, &Found { index, others }, &names);
    Ok((leaf, note))
}

/// Why columns are of no use.
fn described(file: &Arc<ParquetFile>, names: &[String], columns: &[usize]) -> Vec<(String, String)> {
    let why = |name: &str| {
        let leaves = [file.leaf(&[name]), file.leaf(&[name, "bytes"]), file.leaf(&[name, "path"])];
        let empty = leaves.into_iter().flatten().any(|leaf| is_all_null(file, leaf));
        if empty { "nothing but nulls".to_owned() } else { file.type_of(name) }
    };
    columns.iter().map(|&index| (names[index].clone(), why(&names[index]))).collect()
}

fn unusable(path: &Path, role: Role, columns: Vec<(String, String)>) -> MemoryError {
    SourceError::UnusableColumn { path: path.to_owned(), wanted: role.name(), columns }.into()
}

/// Calls `add` with the image and the captions of each row of a file. Relative paths are relative to `folder`.
pub(super) fn read_file(
    path: &Path,
    folder: &Path,
    names: &ColumnNames,
    listing: &mut Listing,
    add: &mut dyn FnMut(Image, Vec<String>),
) -> Result<()> {
    let file = ParquetFile::open(path)?;
    let (images, image_note) = find_images(&file, path, names.image.as_deref())?;
    let (captions, caption_note) = find_captions(&file, path, names.caption.as_deref())?;
    listing.notes.extend([image_note, caption_note].into_iter().flatten());
    file.check_codec(captions)?;
    if let Images::Paths(leaf) = images {
        file.check_codec(leaf)?;
    }
    listing.stored += file.bytes();

    let mut captions = Cursor::new(&file, captions, MAX_CAPTION_BYTES);
    let mut paths = match images {
        Images::Bytes => None,
        Images::Paths(leaf) => Some(Cursor::new(&file, leaf, MAX_CAPTION_BYTES)),
    };
    let mut skips = Skips::of(path);
    let mut conversions = Conversions::default();
    let mut end = None;
    while end.is_none() {
        let start = captions.next_row();
        let mut read = || -> Result<(Rows, Option<Rows>)> {
            let rows = captions.read(BATCH_ROWS)?;
            // Batches end with the row group, in all columns alike.
            let paths = paths.as_mut().map(|paths| paths.read(rows.len())).transpose()?;
            Ok((rows, paths))
        };
        let (rows, paths) = match read() {
            Ok(batch) => batch,
            // What was read stays.
            Err(error) => {
                end = Some(SkipReason::Damaged(format!("the rows from {start} on are missing: {error}")));
                break;
            }
        };
        if rows.len() == 0 {
            break;
        }
        for i in 0..rows.len().min(paths.as_ref().map_or(usize::MAX, Rows::len)) {
            let row = start + i as u64;
            let pair = row_captions(&rows, i, &mut conversions).and_then(|captions| match &paths {
                None => Ok((Image::Cell(row), captions)),
                Some(paths) => Ok((Image::File(row_path(folder, paths.first(i))?), captions)),
            });
            match pair {
                Ok((image, captions)) => {
                    let path_length = if let Image::File(path) = &image { path.as_os_str().len() } else { 0 };
                    let bytes = captions.iter().map(String::len).sum::<usize>() + path_length;
                    if !listing.has_room(bytes as u64) {
                        let (limit, stored) = (listing.limit(), listing.stored);
                        end = Some(SkipReason::TooMuchListed { row, limit, stored });
                        break;
                    }
                    add(image, captions);
                }
                Err(what) => skips.add(SkipReason::ParquetRow { row, what }),
            }
        }
        if let Some(paths) = paths.filter(|paths| paths.len() < rows.len()) {
            let message = format!("the image column ends at row {}", start + paths.len() as u64);
            end = end.or(Some(SkipReason::Damaged(message)));
        }
    }
    if let Some(reason) = end {
        skips.add_last(reason);
    }
    listing.skipped.extend(skips.finish());
    listing.notes.extend(conversions.note(path));
    Ok(())
}

/// The captions of a row that are not blank, or what is wrong with it.
fn row_captions(rows: &Rows, row: usize, conversions: &mut Conversions) -> Result<Vec<String>, String> {
    let (mut captions, mut values) = (Vec::new(), 0);
    for cell in rows.get(row) {
        values += 1;
        let bytes = match cell {
            Cell::Bytes(bytes) => bytes,
            Cell::Null => continue,
            Cell::TooLong(length) => {
                return Err(format!("a caption of {length} bytes is longer than {MAX_CAPTION_BYTES}"));
            }
        };
        let caption = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => {
                let decoded = decode_text(bytes);
                conversions.add(decoded.conversion);
                decoded.text.trim().to_owned()
            }
        };
        if !caption.is_empty() {
            captions.push(caption);
        }
    }
    match captions.is_empty() {
        true if values == 0 => Err("the caption is null".to_owned()),
        true => Err("the caption is empty".to_owned()),
        false => Ok(captions),
    }
}

/// The image that a cell names; bytes that are not UTF-8 are its name as they are.
fn row_path(folder: &Path, value: Cell<'_>) -> Result<PathBuf, String> {
    match value {
        Cell::Null => Err("the image path is null".to_owned()),
        Cell::Bytes([]) => Err("the image path is empty".to_owned()),
        Cell::Bytes(path) => Ok(match std::str::from_utf8(path) {
            Ok(text) => image_path(folder, text),
            Err(_) => folder.join(path_from_bytes(path)),
        }),
        Cell::TooLong(length) => {
            Err(format!("an image path of {length} bytes is longer than {MAX_CAPTION_BYTES}"))
        }
    }
}
