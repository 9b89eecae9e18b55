//! Which model is this? A short hash that costs no more than opening the files.
//!
//! A memory must be read with the model that wrote it. Hashing gigabytes of weights at every start would cost more than a query, so
//! of each file the length and up to 64 blocks of 4 KiB at even distances go in (small files whole). Models that were trained apart
//! differ everywhere; this is an identity check, not a defense against forgery.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};
use xmore_files::{hex, open_regular};

use crate::error::{ClipError, Result};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 64;

/// SHA-256 in hex over the named files of a folder.
pub(crate) fn fingerprint<'a>(dir: &Path, files: impl Iterator<Item = &'a str>) -> Result<String> {
    let mut hash = Sha256::new();
    for name in files {
        let path = dir.join(name);
        let io = |e| ClipError::io(&path, e);
        let mut file = open_regular(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(len.to_le_bytes());
        let blocks = len.div_ceil(BLOCK).clamp(1, BLOCKS);
        let mut buffer = Vec::new();
        for block in 0..blocks {
            let start =
                if len <= BLOCK * BLOCKS { block * BLOCK } else { (len - BLOCK) / (BLOCKS - 1) * block };
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            buffer.clear();
            file.by_ref().take(BLOCK).read_to_end(&mut buffer).map_err(io)?;
            hash.update(&buffer);
        }
    }
    Ok(hex(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_names_lengths_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let of = |names: &[&str]| fingerprint(dir.path(), names.iter().copied()).unwrap();
        write("a", &vec![1; 1_000_000]);
        write("b", b"12");
        let first = of(&["a", "b"]);
        assert_eq!(first.len(), 64);
        assert_eq!(first, of(&["a", "b"]));
        assert_ne!(first, of(&["b", "a"]));
        write("b", b"13");
        assert_ne!(first, of(&["a", "b"]));
        write("b", b"12");
        let mut end = vec![1; 1_000_000];
        end[999_999] = 2;
        // The last block ends at most 63 bytes before the end.
        end[999_900] = 2;
        write("a", &end);
        assert_ne!(first, of(&["a", "b"]));
    }
}
