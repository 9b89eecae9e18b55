//! Rows that are done before the output is: a file beside it to which each batch is appended, so that an interrupted command goes on.
//!
//! A line of JSON says what the rows were made with. Records of one length follow: a hash that names the image by its path, size and time of
//! change, the row as float32, and a hash of both. A truncated or damaged record is ignored; its image is encoded again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use xmore_files::lock_file;

/// What tells one state of an image file from any other.
pub(super) type Key = [u8; 16];

/// Bytes of a record's hash.
const CHECK: usize = 8;
/// A longer first line is not ours.
const MAX_HEADER: u64 = 4096;

/// Rows that are done.
pub(super) struct Partial {
    file: File,
    /// Where it is, if it stays after an interruption.
    path: Option<PathBuf>,
    dim: usize,
    /// Offset of each row.
    rows: HashMap<Key, u64>,
    end: u64,
}

impl Partial {
    /// Rows for an output that an interruption may leave unfinished: those from before, if they were made with the same `made_with`.
    pub(super) fn beside(output: &Path, made_with: &str, dim: usize) -> io::Result<Self> {
        let mut name = output.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match lock_file(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another command is writing to it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut partial = Self { file, path: Some(path), dim, rows: HashMap::new(), end: 0 };
        partial.load(made_with)?;
        Ok(partial)
    }

    /// Rows for an output that cannot be resumed, in a temporary file.
    pub(super) fn unnamed(made_with: &str, dim: usize) -> io::Result<Self> {
        let mut partial = Self { file: tempfile::tempfile()?, path: None, dim, rows: HashMap::new(), end: 0 };
        partial.load(made_with)?;
        Ok(partial)
    }

    /// Keeps the rows for the next run, where the output could not be finished. Returns their file, if there are any.
    pub(super) fn keep(self) -> io::Result<Option<PathBuf>> {
        if self.rows.is_empty() {
            return self.remove().map(|()| None);
        }
        Ok(self.path)
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.rows.contains_key(key)
    }

    /// Adds rows; they stay if the program ends.
    pub(super) fn push<'a>(&mut self, rows: impl Iterator<Item = (Key, &'a [f32])>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut offset = self.end;
        let mut added = Vec::new();
        for (key, row) in rows {
            let start = bytes.len();
            bytes.extend_from_slice(&key);
            row.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
            let check = check(&bytes[start..]);
            bytes.extend_from_slice(&check);
            added.push((key, offset + key.len() as u64));
            offset += self.record() as u64;
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&bytes)?;
        self.end = offset;
        self.rows.extend(added);
        Ok(())
    }

    /// Writes the row of an image that [`Partial::has`] as little-endian float32.
    pub(super) fn copy_row(&mut self, key: &Key, to: &mut dyn Write) -> io::Result<()> {
        let offset = self.rows.get(key).copied().ok_or(io::ErrorKind::NotFound)?;
        self.file.seek(SeekFrom::Start(offset))?;
        let mut row = vec![0; self.dim * size_of::<f32>()];
        self.file.read_exact(&mut row)?;
        to.write_all(&row)
    }

    /// Removes the file: the output has all of it.
    pub(super) fn remove(self) -> io::Result<()> {
        self.path.map_or(Ok(()), fs::remove_file)
    }

    fn record(&self) -> usize {
        size_of::<Key>() + self.dim * size_of::<f32>() + CHECK
    }

    /// Reads what is there, up to the first damage; what was made with anything else is dropped.
    fn load(&mut self, made_with: &str) -> io::Result<()> {
        let header = format!("{}\n", serde_json::json!({ "made_with": made_with, "dim": self.dim }));
        let record = self.record();
        let mut file = BufReader::new(&self.file);
        let mut line = Vec::new();
        (&mut file).take(MAX_HEADER).read_until(b'\n', &mut line)?;
        if line != header.as_bytes() {
            drop(file);
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(header.as_bytes())?;
            self.end = header.len() as u64;
            return Ok(());
        }
        let (mut end, mut rows) = (header.len() as u64, HashMap::new());
        let mut bytes = vec![0; record];
        while let Ok(()) = file.read_exact(&mut bytes) {
            let (content, found) = bytes.split_at(record - CHECK);
            if check(content) != *found {
                break;
            }
            let mut key = Key::default();
            key.copy_from_slice(&content[..size_of::<Key>()]);
            rows.insert(key, end + size_of::<Key>() as u64);
            end += record as u64;
        }
        drop(file);
        self.file.set_len(end)?;
        (self.end, self.rows) = (end, rows);
        Ok(())
    }
}

/// The key of an image file in its present state; a file that cannot be read has none.
pub(super) fn key(path: &Path) -> io::Result<Key> {
    let metadata = fs::metadata(path)?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let mut hash = Sha256::new();
    let name = path.as_os_str().as_encoded_bytes();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(metadata.len().to_le_bytes());
    hash.update(changed.to_le_bytes());
    let mut key = Key::default();
    let length = key.len();
    key.copy_from_slice(&hash.finalize()[..length]);
    Ok(key)
}

fn check(content: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(&Sha256::digest(content)[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, made_with: &str) -> Partial {
        Partial::beside(&dir.join("out.npy"), made_with, 2).unwrap()
    }

    fn row(partial: &mut Partial, key: u8) -> Vec<u8> {
        let mut row = Vec::new();
        partial.copy_row(&[key; 16], &mut row).unwrap();
        row
    }

    #[test]
    fn rows_stay_up_to_the_first_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.npy.partial");
        let values: [[f32; 2]; 3] = [[1.0, -0.0], [2.5, 3.0], [f32::MIN, f32::MAX]];
        let mut partial = open(dir.path(), "m");
        partial.push((1..).map(|n| [n; 16]).zip(values.iter().map(|row| &row[..]))).unwrap();
        assert!(Partial::beside(&dir.path().join("out.npy"), "m", 2).is_err(), "it is in use");
        drop(partial);
        let mut partial = open(dir.path(), "m");
        for (n, value) in (1..).zip(values) {
            assert_eq!(row(&mut partial, n), value.map(f32::to_le_bytes).concat());
        }
        drop(partial);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let partial = open(dir.path(), "m");
            let records = cut.saturating_sub(whole.len() - 3 * 32) / 32;
            assert_eq!(partial.rows.len(), records, "{cut} bytes");
        }
        for flip in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[flip] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let mut partial = open(dir.path(), "m");
            assert!(partial.rows.len() < 3);
            // What is pushed next is found again.
            partial.push([([9; 16], &[7.0, 8.0][..])].into_iter()).unwrap();
            drop(partial);
            let mut partial = open(dir.path(), "m");
            assert_eq!(row(&mut partial, 9), [7.0f32, 8.0].map(f32::to_le_bytes).concat());
        }
        assert!(open(dir.path(), "another").rows.is_empty());
    }

    #[test]
    fn a_key_changes_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "x").unwrap();
        fs::copy(&a, &b).unwrap();
        let first = key(&a).unwrap();
        assert_eq!(first, key(&a).unwrap());
        assert_ne!(first, key(&b).unwrap());
        fs::write(&a, "xy").unwrap();
        assert_ne!(first, key(&a).unwrap());
        assert!(key(&dir.path().join("none")).is_err());
    }
}
