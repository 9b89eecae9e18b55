//! Checking a file against the size and SHA-256 it must have, and copying a stream while hashing it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use xmore_files::hex;

/// A file known exactly beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// File name, without folder.
    pub name: &'static str,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: &'static str,
}

/// How a file differs from the known one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub expected: String,
    pub found: String,
}

impl Known {
    /// Compares a size and hash with the known ones.
    pub fn compare(&self, size: u64, sha256: &str) -> Result<(), Mismatch> {
        if size != self.size {
            Err(Mismatch { expected: format!("{} bytes", self.size), found: format!("{size} bytes") })
        } else if sha256 != self.sha256 {
            Err(Mismatch { expected: format!("SHA-256 {}", self.sha256), found: format!("SHA-256 {sha256}") })
        } else {
            Ok(())
        }
    }

    /// Reads `file` to the end and rewinds it. The size is looked at first, so a wrong one costs no reading.
    pub fn check(&self, file: &mut File) -> io::Result<Result<(), Mismatch>> {
        let size = file.metadata()?.len();
        if size != self.size {
            return Ok(self.compare(size, ""));
        }
        let (size, sha256) = match copy_hashed(file, &mut io::sink(), self.size, &mut |_| ()) {
            Ok(done) => done,
            Err(CopyError::Read(e) | CopyError::Write(e)) => return Err(e),
        };
        file.rewind()?;
        Ok(self.compare(size, &sha256))
    }

    /// Whether `path` is the known file. Anything unreadable is not.
    pub fn is_at(&self, path: &Path) -> bool {
        path.is_file() && File::open(path).and_then(|mut file| self.check(&mut file)).is_ok_and(|v| v.is_ok())
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// Reading.
    Read(io::Error),
    /// Writing.
    Write(io::Error),
}

/// Copies at most `limit + 1` bytes (one more distinguishes "too long" from "right") and returns their number and SHA-256.
/// `tick` is called with the number of bytes so far.
///
/// # Errors
/// Which side failed, and how.
pub fn copy_hashed(
    from: &mut impl Read,
    to: &mut impl Write,
    limit: u64,
    tick: &mut dyn FnMut(u64),
) -> Result<(u64, String), CopyError> {
    let mut from = from.take(limit.saturating_add(1));
    let mut buffer = vec![0u8; 256 * 1024];
    let (mut hash, mut total) = (Sha256::new(), 0u64);
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyError::Read(e)),
        };
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n]).map_err(CopyError::Write)?;
        total += n as u64;
        tick(total);
    }
    Ok((total, hex(hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    // SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    const ABC: Known = Known {
        name: "abc",
        size: 3,
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    #[test]
    fn the_known_file_and_its_neighbors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let verdict = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            ABC.check(&mut File::open(&path).unwrap()).unwrap()
        };
        assert_eq!(verdict(b"abc"), Ok(()));
        assert!(ABC.is_at(&path));
        assert_eq!(verdict(b"ab").unwrap_err().found, "2 bytes");
        assert_eq!(verdict(b"abcd").unwrap_err().found, "4 bytes");
        assert!(verdict(b"abd").unwrap_err().found.starts_with("SHA-256 a52d"));
        assert!(!ABC.is_at(dir.path()));
        assert!(!ABC.is_at(&dir.path().join("none")));
    }

    #[test]
    fn a_check_rewinds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"abc").unwrap();
        let mut file = File::open(dir.path().join("f")).unwrap();
        ABC.check(&mut file).unwrap().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn an_endless_stream_stops_one_past_the_limit() {
        let mut out = Vec::new();
        let (n, _) = copy_hashed(&mut io::repeat(7), &mut out, 1000, &mut |_| ()).unwrap();
        assert_eq!((n, out.len()), (1001, 1001));
    }
}
