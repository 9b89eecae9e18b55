//! Image paths and captions of a part in a form that is mapped: one string is a look at two pages, not a parquet file.
//!
//! Layout: `XMORELK1`, the number of rows as u64, then for each row the ends of its path and of its caption as u32 within the
//! text, then the text: path, caption, path, caption, … All little-endian. It is derived from the part's metadata and can be
//! made again.

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xmore_files::open_regular;

use super::files::write_whole;
use super::metadata::Metadata;
use crate::error::{AtPath, Result};
use crate::store::StoreError;

const MAGIC: &[u8; 8] = b"XMORELK1";
const HEADER_BYTES: usize = 16;
/// Bytes of the two ends of a row.
const ENDS_BYTES: usize = 8;

/// Writes the strings of a part. They are below 4 GiB, since a part's text is bounded far below.
pub(super) fn write(path: &Path, metadata: &Metadata) -> Result<()> {
    let rows = metadata.captions.len();
    let text_bytes = metadata.image_paths.bytes() + metadata.captions.bytes();
    if u32::try_from(text_bytes).is_err() {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            expected: "paths and captions of less than 4 GiB in a part".to_owned(),
            found: format!("{text_bytes} bytes"),
        }
        .into());
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rows * ENDS_BYTES + text_bytes);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(rows as u64).to_le_bytes());
    let mut end = 0u32;
    for (image_path, caption) in metadata.image_paths.iter().zip(metadata.captions.iter()) {
        for string in [image_path, caption] {
            end += string.len() as u32;
            bytes.extend_from_slice(&end.to_le_bytes());
        }
    }
    for (image_path, caption) in metadata.image_paths.iter().zip(metadata.captions.iter()) {
        bytes.extend_from_slice(image_path.as_bytes());
        bytes.extend_from_slice(caption.as_bytes());
    }
    write_whole(path, &bytes)
}

/// The mapped strings of a part.
#[derive(Debug)]
pub(crate) struct Lookup {
    map: Mmap,
    rows: usize,
    path: PathBuf,
}

impl Lookup {
    /// Maps a file of `rows` rows; its size is checked, its strings when they are asked for.
    pub fn open(path: &Path, rows: u64) -> Result<Lookup> {
        let damaged = |expected: String, found: String| {
            StoreError::Damaged { path: path.to_owned(), expected, found }.into()
        };
        let file = open_regular(path).at("open", path)?;
        // SAFETY: the map is only ever read, and what is read is checked where it is used. Files of a memory are replaced by
        // rename, never changed in place; that no other program does is asked of the user, as for every mapped index.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.at("map", path)?;
        if map.len() < HEADER_BYTES || !map.starts_with(MAGIC) {
            return Err(damaged("a lookup file".to_owned(), format!("{} other bytes", map.len())));
        }
        let found = u64_at(&map, 8);
        if found != rows {
            return Err(damaged(format!("{rows} rows"), found.to_string()));
        }
        let ends = rows.checked_mul(ENDS_BYTES as u64).and_then(|n| n.checked_add(HEADER_BYTES as u64));
        let Some(text) = ends.filter(|&n| n <= map.len() as u64) else {
            return Err(damaged(format!("the ends of {rows} rows"), format!("{} bytes", map.len())));
        };
        let lookup = Lookup { map, rows: rows as usize, path: path.to_owned() };
        let expected = text + lookup.end(lookup.rows * 2) as u64;
        if expected != lookup.map.len() as u64 {
            return Err(damaged(format!("{expected} bytes"), lookup.map.len().to_string()));
        }
        Ok(lookup)
    }

    /// Image path of a row below the number of rows.
    pub fn image_path(&self, row: usize) -> Result<&str> {
        self.string(2 * row)
    }

    /// Caption of a row below the number of rows.
    pub fn caption(&self, row: usize) -> Result<&str> {
        self.string(2 * row + 1)
    }

    /// All of it as metadata.
    pub fn to_metadata(&self) -> Result<Metadata> {
        let mut metadata = Metadata::default();
        for row in 0..self.rows {
            metadata.image_paths.push(self.image_path(row)?);
            metadata.captions.push(self.caption(row)?);
        }
        Ok(metadata)
    }

    /// End of string `number - 1`, where string `number` begins.
    fn end(&self, number: usize) -> usize {
        match number {
            0 => 0,
            n => u32_at(&self.map, HEADER_BYTES + (n - 1) * 4) as usize,
        }
    }

    fn string(&self, number: usize) -> Result<&str> {
        assert!(number < self.rows * 2, "the caller checks the row");
        let text = &self.map[HEADER_BYTES + self.rows * ENDS_BYTES..];
        let (start, end) = (self.end(number), self.end(number + 1));
        text.get(start..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(|| {
            StoreError::Damaged {
                path: self.path.clone(),
                expected: format!("a string in row {}", number / 2),
                found: format!("bytes {start} to {end} of a text of {}", text.len()),
            }
            .into()
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(rows: &[(String, String)]) -> Metadata {
        let mut metadata = Metadata::default();
        for (path, caption) in rows {
            metadata.image_paths.push(path);
            metadata.captions.push(caption);
        }
        metadata
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_looked_up(rows in prop::collection::vec(("\\PC{0,9}", "\\PC{0,9}"), 0..30)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("lookup_0000.bin");
            write(&path, &metadata(&rows)).unwrap();
            let lookup = Lookup::open(&path, rows.len() as u64).unwrap();
            for (row, (image_path, caption)) in rows.iter().enumerate() {
                prop_assert_eq!(lookup.image_path(row).unwrap(), image_path);
                prop_assert_eq!(lookup.caption(row).unwrap(), caption);
            }
            prop_assert!(Lookup::open(&path, rows.len() as u64 + 1).is_err());
        }

        #[test]
        fn damaged_files_are_refused_or_read_but_never_panic(
            cut in prop::option::of(0.0f64..1.0),
            flips in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("lookup_0000.bin");
            let rows: Vec<_> = (0..9).map(|i| (format!("{i}.jpg"), format!("ein Bär, {i}"))).collect();
            write(&path, &metadata(&rows)).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let length = bytes.len();
            for (at, value) in flips {
                bytes[(at * length as f64) as usize] = value;
            }
            bytes.truncate(cut.map_or(length, |c| (c * length as f64) as usize));
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(lookup) = Lookup::open(&path, 9) {
                for row in 0..9 {
                    let _ = (lookup.image_path(row), lookup.caption(row));
                }
            }
        }
    }
}
