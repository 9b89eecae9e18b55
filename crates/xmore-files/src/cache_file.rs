//! Files of a cache: what can be made again, each with a checksum over its content and its name, verified whenever it is read.
//!
//! A file is its content, then 8 bytes `XMORESUM` and the SHA-256 of the file's name within its cache and the content. Readers of the
//! content's own format, such as numpy's of an `.npy`, ignore what follows it.

use std::io::{self, Write};
use std::path::Path;

use crate::{read_bounded, replace_file};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"XMORESUM";
const SUM_BYTES: usize = 32;
/// Bytes of a file after its content.
pub const TRAILER_BYTES: usize = MAGIC.len() + SUM_BYTES;

/// What the cache has under a name.
#[derive(Debug, PartialEq, Eq)]
pub enum CacheFile {
    /// The content, as it was written.
    Whole(Vec<u8>),
    /// A file that is not what was written under that name, or cannot be read.
    Damaged,
    /// No file.
    Missing,
}

/// Reads a file. `name` is part of the checksum, so that a file in another's place is noticed; `max` bounds its content.
pub fn read(path: &Path, name: &str, max: u64) -> CacheFile {
    let mut bytes = match read_bounded(path, max + TRAILER_BYTES as u64) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return CacheFile::Missing,
        Err(_) => return CacheFile::Damaged,
    };
    let Some(end) = bytes.len().checked_sub(TRAILER_BYTES) else { return CacheFile::Damaged };
    let (content, trailer) = bytes.split_at(end);
    if trailer.strip_prefix(MAGIC) != Some(&sum(name, content)) {
        return CacheFile::Damaged;
    }
    bytes.truncate(end);
    CacheFile::Whole(bytes)
}

/// Writes a file in one step: a reader sees the old one or the new one.
///
/// # Errors
/// What the operating system says.
pub fn write(path: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    replace_file(path, |file| {
        file.write_all(content)?;
        file.write_all(MAGIC)?;
        file.write_all(&sum(name, content))
    })
}

fn sum(name: &str, content: &[u8]) -> [u8; SUM_BYTES] {
    let mut hash = Sha256::new();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(content);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(read(&path, "a", 100), CacheFile::Missing);
        write(&path, "a", b"content").unwrap();
        assert_eq!(read(&path, "a", 100), CacheFile::Whole(b"content".to_vec()));
        assert_eq!(read(&path, "a", 7), CacheFile::Whole(b"content".to_vec()));
        assert_eq!(read(&path, "b", 100), CacheFile::Damaged, "another's file");
        assert_eq!(read(&path, "a", 6), CacheFile::Damaged, "too long");
        assert_eq!(read(dir.path(), "a", 100), CacheFile::Damaged, "a folder");
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            assert_eq!(read(&path, "a", 100), CacheFile::Damaged, "bit {bit}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path, "a", 100), CacheFile::Damaged, "{length} bytes");
        }
    }
}
