//! Checksums of files: SHA-256 in hexadecimal, as `sha256sum` prints it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xmore_files::{hex, open_regular};

use crate::error::{AtPath, Result};
use crate::store::StoreError;

/// Bytes read at a time.
const CHUNK: usize = 1 << 18;

/// Checksum of a file's whole content.
pub(super) fn of_file(path: &Path) -> Result<String> {
    let mut file = open_regular(path).at("open", path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).at("read", path)? {
            0 => return Ok(hex(hasher.finalize())),
            n => hasher.update(&chunk[..n]),
        }
    }
}

/// Reads a file and compares it with its recorded checksum; one without has changed.
///
/// # Errors
/// [`StoreError::Damaged`], [`MemoryError::Io`](crate::MemoryError::Io).
pub(super) fn check(path: PathBuf, recorded: Option<&String>) -> Result<()> {
    let found = of_file(&path)?;
    if recorded == Some(&found) {
        return Ok(());
    }
    let expected = format!("SHA-256 {}", recorded.map_or("none", String::as_str));
    Err(StoreError::Damaged { path, expected, found }.into())
}

/// The checksum of what has been written to a file so far.
#[derive(Clone, Default)]
pub(super) struct Running(Sha256);

impl Running {
    /// Adds what is written next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum now.
    pub fn value(&self) -> String {
        hex(self.0.clone().finalize())
    }

    /// That of the next `bytes` bytes of a file, which is at `path`; fewer if it ends before.
    pub fn of_next(file: &mut File, bytes: u64, path: &Path) -> Result<Running> {
        let (mut running, mut file) = (Running::default(), file.take(bytes));
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk).at("read", path)? {
                0 => return Ok(running),
                n => running.update(&chunk[..n]),
            }
        }
    }
}

/// Checksum of bytes in memory.
pub(super) fn of_bytes(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// Whether a text has the form of a checksum.
pub(super) fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_sha256sum_prints() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(&path).unwrap(), known);
        assert_eq!(of_bytes(b"abc"), known);
        assert!(is_checksum(known) && !is_checksum(&known[1..]) && !is_checksum(&known.to_uppercase()));
    }
}
