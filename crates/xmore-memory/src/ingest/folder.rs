//! Pairs from a folder: every image, with the caption in the `.txt` or `.json` of the same stem.

use std::fs::File;
use std::io;
use std::path::Path;

use xmore_files::{WalkOptions, open_regular, walk_images};

use super::caption::{self, Lines};
use super::{ImageRef, Ingested, Pair, Skip, SkipReason};
use crate::error::{AtPath, Result};

/// Reads a folder and its sub-folders. Pairs are sorted by path, so that ids do not depend on the file system.
pub(super) fn read(folder: &Path, options: &WalkOptions) -> Result<Ingested> {
    let walked = walk_images(folder, options).at("read", folder)?;
    let mut ingested = Ingested { left_out: walked.left_out, ..Ingested::default() };
    for (path, error) in walked.unlisted {
        ingested.skipped.push(Skip { path, reason: SkipReason::Unreadable(error.to_string()) });
    }
    for image_path in walked.files {
        match captions_of(&image_path) {
            Ok(captions) => ingested.pairs.push(Pair { image: ImageRef::File(image_path), captions }),
            Err(reason) => ingested.skipped.push(Skip { path: image_path, reason }),
        }
    }
    Ok(ingested)
}

/// The first line of the image's `.txt`; where that gives nothing, the captions in its `.json`.
fn captions_of(image_path: &Path) -> Result<Vec<String>, SkipReason> {
    if image_path.to_str().is_none() {
        return Err(SkipReason::PathNotUtf8);
    }
    let text = beside(image_path, "txt", |file| caption::of_text(file, Lines::First));
    let json = match &text {
        Some(Ok(_)) => None,
        _ => beside(image_path, "json", caption::of_json),
    };
    caption::choose(text, json)
}

/// What `read` gives of the file of the same stem, `None` if there is none.
fn beside<T>(
    image_path: &Path,
    extension: &str,
    read: impl FnOnce(File) -> io::Result<Result<T, SkipReason>>,
) -> Option<Result<T, SkipReason>> {
    let path = image_path.with_extension(extension);
    match open_regular(&path).and_then(read) {
        Ok(captions) => Some(captions),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(SkipReason::Unreadable(format!("{}: {error}", path.display())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(folder: &Path) -> Result<Ingested> {
        super::read(folder, &WalkOptions::default())
    }

    fn pairs(ingested: &Ingested, root: &Path) -> Vec<(String, String)> {
        ingested
            .pairs
            .iter()
            .map(|p| {
                assert_eq!(p.captions.len(), 1);
                let path =
                    p.image.to_string().strip_prefix(&format!("{}/", root.display())).unwrap().to_owned();
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
                (root.join("clip.gif"), SkipReason::NoCaption),
                (root.join("empty.jpg"), SkipReason::EmptyCaption)
            ]
        );
    }

    /// As img2dataset's output_format "files" leaves it.
    #[test]
    fn captions_come_from_img2datasets_json_where_there_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("00000");
        fs::create_dir(&shard).unwrap();
        fs::write(dir.path().join("00000.parquet"), "PAR1").unwrap();
        fs::write(dir.path().join("00000_stats.json"), r#"{"count": 5}"#).unwrap();
        let json = |caption: &str| {
            format!(r#"{{"url": "u", "caption": {caption}, "key": "k", "status": "success"}}"#)
        };
        for (key, text, caption) in [
            ("000000000", Some("from the text"), "\"from the json\""),
            ("000000001", None, "\"from the json\""),
            ("000000002", Some(""), "\"the text is blank\""),
            ("000000003", Some(""), "null"),
            ("000000004", None, "null"),
        ] {
            fs::write(shard.join(key).with_extension("jpg"), "").unwrap();
            fs::write(shard.join(key).with_extension("json"), json(caption)).unwrap();
            if let Some(text) = text {
                fs::write(shard.join(key).with_extension("txt"), text).unwrap();
            }
        }
        let ingested = read(dir.path()).unwrap();
        let expected = [
            ("00000/000000000.jpg", "from the text"),
            ("00000/000000001.jpg", "from the json"),
            ("00000/000000002.jpg", "the text is blank"),
        ];
        assert_eq!(pairs(&ingested, dir.path()), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let reasons: Vec<_> = ingested.skipped.iter().map(|s| s.reason.clone()).collect();
        assert_eq!(reasons, [SkipReason::EmptyCaption, SkipReason::NoCaption]);
    }

    #[test]
    fn a_huge_text_is_read_only_at_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jpg"), "").unwrap();
        fs::write(dir.path().join("a.txt"), "x".repeat(1 << 20)).unwrap();
        let ingested = read(dir.path()).unwrap();
        assert_eq!(ingested.pairs[0].captions[0].len(), caption::MAX_CAPTION_BYTES);
    }

    #[test]
    fn an_absent_folder_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let message = read(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(message.contains("gone"), "{message}");
    }

    #[test]
    fn what_the_walk_leaves_out_is_counted_and_gives_no_pair() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.jpg", ".hidden.jpg", "b.heic", "raw/c.jpg"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::write(path.with_extension("txt"), "a").unwrap();
        }
        let options = WalkOptions { exclude: vec!["raw".parse().unwrap()], ..WalkOptions::default() };
        let ingested = super::read(dir.path(), &options).unwrap();
        assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (1, 0));
        let expected = "left out: 3 files: 1 HEIC (not read yet), 1 hidden, 1 excluded";
        assert_eq!(ingested.left_out.to_string(), expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        fs::write(dir.path().join("a.jpg"), "").unwrap();
        fs::write(dir.path().join("a.txt"), "a").unwrap();
        let ingested = read(dir.path()).unwrap();
        assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (1, 0));
        assert!(ingested.left_out.is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_caption_that_is_no_regular_file_is_skipped_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(path(name).with_extension("jpg"), "").unwrap();
        }
        let _socket = std::os::unix::net::UnixListener::bind(path("a.txt")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("b.json")).unwrap();
        fs::write(path("c.txt"), "c").unwrap();
        let ingested = read(dir.path()).unwrap();
        let reasons: Vec<String> = ingested.skipped.iter().map(|skip| skip.reason.to_string()).collect();
        assert_eq!((ingested.pairs.len(), reasons.len()), (1, 2));
        assert!(reasons[0].contains("a.txt: not a regular file: socket"), "{}", reasons[0]);
        assert!(reasons[1].contains("b.json: not a regular file: character device"), "{}", reasons[1]);
    }
}
