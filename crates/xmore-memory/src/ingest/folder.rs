//! Pairs from a folder: every image, with the captions that a `metadata` table or a file beside it has for it.

use std::path::Path;

use xmore_files::table::TableKind;
use xmore_files::{WalkOptions, walk_images};

use super::column_names::ColumnNames;
use super::image_folder::Metadata;
use super::sidecar::Sidecars;
use super::{ImageRef, Ingested, Note, NoteKind, Pair, Skip, SkipReason, extension};
use crate::error::{AtPath, Result};

/// Reads a folder and its sub-folders. Pairs are sorted by path, so that ids do not depend on the file system.
pub(super) fn read(folder: &Path, options: &WalkOptions, names: &ColumnNames) -> Result<Ingested> {
    let walked = walk_images(folder, options).at("read", folder)?;
    let mut sidecars = Sidecars::default();
    let mut metadata = Metadata::read(folder, &walked.files, &mut sidecars, names);
    let mut ingested = Ingested {
        skipped: std::mem::take(&mut metadata.skipped),
        notes: std::mem::take(&mut metadata.notes),
        left_out: walked.left_out,
        ..Ingested::default()
    };
    for (path, error) in walked.unlisted {
        ingested.skipped.push(Skip::of(&path, SkipReason::Unreadable(error.to_string())));
    }
    let images = walked.files.len() as u64;
    for image in walked.files {
        let captions = match metadata.take(&image) {
            Some(captions) => Ok(captions),
            None => sidecars.captions_of(&image),
        };
        match captions {
            Ok(captions) => ingested.pairs.push(Pair { image: ImageRef::File(image), captions }),
            Err(reason) => ingested.skipped.push(Skip::of(&image, reason)),
        }
    }
    let missing = metadata.missing().map(|(image, captions)| Pair { image: ImageRef::File(image), captions });
    ingested.pairs.extend(missing);
    ingested.notes.extend(sidecars.conversions.note(folder));
    if ingested.pairs.is_empty() {
        let kind = NoteKind::NoPairs { images, tables: tables(folder) };
        ingested.notes.push(Note { path: folder.to_owned(), kind });
    }
    Ok(ingested)
}

/// Names of tables in a folder that could be given in its place.
fn tables(folder: &Path) -> Vec<String> {
    const SHOWN: usize = 3;
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_table = |name: &String| {
        let path = Path::new(name);
        TableKind::of_name(path).is_some() || ["parquet", "json", "tar"].contains(&extension(path).as_str())
    };
    let mut names: Vec<String> =
        names.map(|name| name.to_string_lossy().into_owned()).filter(is_table).collect();
    names.sort();
    names.truncate(SHOWN);
    names
}

#[cfg(test)]
mod tests {
    use super::super::caption;
    use super::*;
    use std::fs;

    fn read(folder: &Path) -> Result<Ingested> {
        super::read(folder, &WalkOptions::default(), &ColumnNames::default())
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
        let expected =
            [("a.Png", "with a mark"), ("b/c/y.JPEG", "two words"), ("b/x.webp", "café"), ("z.jpg", "last")];
        assert_eq!(pairs(&ingested, root), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let skipped: Vec<_> = ingested.skipped.iter().map(|s| (s.path.clone(), s.reason.clone())).collect();
        let text = |name: &str| root.join(name).display().to_string();
        assert_eq!(
            skipped,
            [
                (text("bare.png"), SkipReason::NoCaption),
                (text("clip.gif"), SkipReason::NoCaption),
                (text("empty.jpg"), SkipReason::EmptyCaption)
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
    fn hugging_faces_metadata_gives_captions_and_sidecars_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for image in ["a.jpg", "b.jpg", "train/c.jpg", "train/deep/d.jpg", "train/deep/e.jpg", "test/f.jpg"] {
            write(image, "");
        }
        write("Metadata.CSV", "file_name,text\na.jpg,one\na.jpg,uno\n./train/c.jpg,three\ngone.jpg,gone\n");
        write("metadata.jsonl", "{\"file_name\": \"a.jpg\", \"text\": \"one\"}\n{\"file_name\": 5}\n");
        write("train/metadata.jsonl", "{\"file_name\": \"deep/d.jpg\", \"text\": \"four\"}\n");
        write("test/metadata.csv", "file_name,label\nf.jpg,3\n");
        write("a.txt", "not taken");
        write("b.txt", "two");
        let ingested = read(dir.path()).unwrap();
        let found: Vec<String> = ingested
            .pairs
            .iter()
            .map(|pair| {
                let path = pair.image.to_string();
                let path = path.strip_prefix(&format!("{}/", dir.path().display())).unwrap();
                format!("{path}: {}", pair.captions.join("|"))
            })
            .collect();
        assert_eq!(
            found,
            [
                "a.jpg: one|uno",
                "b.jpg: two",
                "train/c.jpg: three",
                "train/deep/d.jpg: four",
                "gone.jpg: gone"
            ]
        );
        let skipped: Vec<String> = ingested.skipped.iter().map(Skip::to_string).collect();
        assert_eq!(skipped.len(), 4, "{skipped:?}");
        assert!(skipped[0].ends_with("metadata.jsonl: line 2: the caption is empty"), "{}", skipped[0]);
        assert!(skipped[1].contains("test/metadata.csv: has no caption column"), "{}", skipped[1]);
        assert!(skipped[2].contains("test/f.jpg: no caption"), "{}", skipped[2]);
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
        let ingested = super::read(dir.path(), &options, &ColumnNames::default()).unwrap();
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
