//! Pairs from a folder: every image, with the first line of the `.txt` of the same stem as its caption.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use walkdir::WalkDir;

use super::{Ingested, Pair, Skip, SkipReason, is_image_name};
use crate::error::{AtPath, Result};

/// Most bytes read of a `.txt`: a first line longer than this is cut.
const MAX_CAPTION_BYTES: u64 = 64 * 1024;

/// Reads a folder and its sub-folders. Pairs are sorted by path, so that ids do not depend on the file system.
pub(super) fn read(folder: &Path) -> Result<Ingested> {
    // WalkDir reports an unreadable root as one more entry, which would be skipped; it must be an error.
    std::fs::read_dir(folder).at("read", folder)?;

    let mut images = Vec::new();
    let mut ingested = Ingested::default();
    for entry in WalkDir::new(folder).follow_links(true) {
        match entry {
            Ok(entry) => {
                if is_image_name(entry.path()) && entry.file_type().is_file() {
                    images.push(entry.into_path());
                }
            }
            Err(error) => ingested.skipped.push(Skip {
                path: error.path().unwrap_or(folder).to_owned(),
                reason: SkipReason::Unreadable(error.to_string()),
            }),
        }
    }
    images.sort();

    for image_path in images {
        match caption_of(&image_path) {
            Ok(caption) => ingested.pairs.push(Pair { image_path, captions: vec![caption] }),
            Err(reason) => ingested.skipped.push(Skip { path: image_path, reason }),
        }
    }
    Ok(ingested)
}

/// The first line of the image's `.txt`, trimmed.
fn caption_of(image_path: &Path) -> Result<String, SkipReason> {
    if image_path.to_str().is_none() {
        return Err(SkipReason::PathNotUtf8);
    }
    let text_path = image_path.with_extension("txt");
    let mut bytes = Vec::new();
    match File::open(&text_path).and_then(|file| file.take(MAX_CAPTION_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SkipReason::NoCaption),
        Err(error) => return Err(SkipReason::Unreadable(format!("{}: {error}", text_path.display()))),
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let line = bytes.split(|&b| b == b'\n' || b == b'\r').next().unwrap_or_default();
    let caption = String::from_utf8_lossy(line).trim().to_owned();
    if caption.is_empty() { Err(SkipReason::EmptyCaption) } else { Ok(caption) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pairs(ingested: &Ingested, root: &Path) -> Vec<(String, String)> {
        ingested
            .pairs
            .iter()
            .map(|p| {
                assert_eq!(p.captions.len(), 1);
                let path = p.image_path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                (path, p.captions[0].clone())
            })
            .collect()
    }

    #[test]
    fn images_are_paired_with_the_first_line_of_their_text() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        for (name, text) in [
            ("z.jpg", &b"last\n"[..]),
            ("b/c/y.JPEG", b"  two words \r\nsecond line"),
            ("b/x.webp", b"caf\xe9"),
            ("a.Png", b"\xef\xbb\xbfwith a mark"),
            ("empty.jpg", b"\nsecond line"),
        ] {
            fs::write(root.join(name), "").unwrap();
            fs::write(root.join(name).with_extension("txt"), text).unwrap();
        }
        fs::write(root.join("bare.png"), "").unwrap();
        fs::write(root.join("notes.txt"), "no image").unwrap();
        fs::write(root.join("clip.gif"), "").unwrap();

        let ingested = read(root).unwrap();
        let expected = [
            ("a.Png", "with a mark"),
            ("b/c/y.JPEG", "two words"),
            ("b/x.webp", "caf\u{fffd}"),
            ("z.jpg", "last"),
        ];
        assert_eq!(pairs(&ingested, root), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let skipped: Vec<_> = ingested.skipped.iter().map(|s| (s.path.clone(), s.reason.clone())).collect();
        assert_eq!(
            skipped,
            [
                (root.join("bare.png"), SkipReason::NoCaption),
                (root.join("empty.jpg"), SkipReason::EmptyCaption)
            ]
        );
    }

    #[test]
    fn a_huge_text_is_read_only_at_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jpg"), "").unwrap();
        fs::write(dir.path().join("a.txt"), "x".repeat(1 << 20)).unwrap();
        let ingested = read(dir.path()).unwrap();
        assert_eq!(ingested.pairs[0].captions[0].len() as u64, MAX_CAPTION_BYTES);
    }

    #[test]
    fn an_absent_folder_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let message = read(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(message.contains("gone"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_is_skipped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        fs::write(dir.path().join("a.jpg"), "").unwrap();
        fs::write(dir.path().join("a.txt"), "a").unwrap();
        let ingested = read(dir.path()).unwrap();
        assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (1, 1));
    }
}
