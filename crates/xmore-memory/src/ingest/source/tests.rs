//! What a path is taken for, and what is said of what it cannot be.

use super::*;

fn detect(path: &Path, format: InputFormat) -> Result<Source> {
    Source::detect(path, format, &SourceOptions::default())
}

fn of_files(folder: &Path) -> Source {
    Source::Folder { path: folder.to_owned(), walk: WalkOptions::default(), columns: ColumnNames::default() }
}

fn refused(path: &Path, format: InputFormat) -> String {
    let message = detect(path, format).unwrap_err().to_string();
    assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
    message
}

fn write_tar(path: &Path, members: &[&str]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for name in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        builder.append_data(&mut header, name, &b"x"[..]).unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn a_file_is_known_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = SourceOptions { image_root: Some("/root".into()), ..SourceOptions::default() };
    let image_root = options.image_root.clone();
    let columns = ColumnNames::default();
    let separated = |preferred| Some(TableKind::Separated { preferred });
    for (name, text, kind) in [
        ("pairs.csv", "image_path,caption\n", separated(b',')),
        ("pairs.TSV", "image_path,caption\n", separated(b'\t')),
        ("metadata.jsonl", "{}", Some(TableKind::Objects)),
        ("list.json", " [{}]", Some(TableKind::Objects)),
        ("lines.json", "{\"a\": 1}\n{\"a\": 2}\n", Some(TableKind::Objects)),
        ("captions.json", "{\"images\": [\n{}, {}]}", None),
        ("line.json", "{\"images\": []}\n", None),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let expected = match kind {
            None => Source::Coco { path: path.clone(), image_root: image_root.clone() },
            Some(kind) => {
                let (image_root, columns) = (image_root.clone(), columns.clone());
                Source::Table { path: path.clone(), kind, image_root, columns }
            }
        };
        assert_eq!(Source::detect(&path, InputFormat::Auto, &options).unwrap(), expected);
    }
    let parquet = dir.path().join("a.parquet");
    std::fs::write(&parquet, "PAR1").unwrap();
    let source = Source::detect(&parquet, InputFormat::Auto, &options).unwrap();
    let left_out = LeftOut::default();
    assert_eq!(source, Source::Parquet { files: vec![parquet], image_root, columns, left_out });
    let tar = dir.path().join("a.tar");
    write_tar(&tar, &["a.jpg"]);
    assert_eq!(
        detect(&tar, InputFormat::Auto).unwrap(),
        Source::WebDataset {
            tars: vec![tar],
            folder: None,
            walk: WalkOptions::default(),
            left_out: LeftOut::default()
        }
    );
}

#[test]
fn other_files_are_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, hint) in [
        ("a.jpg", &b""[..], "give the folder"),
        ("a", b"", "no extension"),
        ("a.zip", b"", "a .zip file"),
        ("a.npy", b"", "img_emb"),
        ("a.tar", b"PAR1", "expected a webdataset tar, found a parquet file; rename it to .parquet"),
        ("b.tar", b"", "found an empty file"),
        ("a.tar.gz", b"\x1f\x8b\x08", "gunzip"),
        ("a.tgz", b"\x1f\x8b\x08", "gunzip"),
        ("c.tar", b"\x1f\x8b\x08", "gunzip"),
        ("a.parquet", b"hello", "something else"),
        ("a.csv", b"PAR1", "rename it to .parquet"),
        ("b.csv", b"PK\x03\x04", "a zip file"),
        ("a.pq", b"PAR1", "rename it to .parquet"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let message = refused(&path, InputFormat::Auto);
        assert!(message.contains(hint), "{message}");
    }
    let tar = dir.path().join("shard");
    write_tar(&tar, &["a.jpg"]);
    assert!(refused(&tar, InputFormat::Auto).contains("rename it to .tar"));
    assert!(refused(&tar, InputFormat::Webdataset).contains("rename it to .tar"));
    assert!(refused(&dir.path().join("a.jpg"), InputFormat::Files).contains("give the folder"));
    refused(&dir.path().join("absent.csv"), InputFormat::Auto);
}

#[test]
fn a_folder_is_known_by_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let auto = || detect(folder, InputFormat::Auto).unwrap();
    assert_eq!(auto(), of_files(folder));

    std::fs::create_dir(folder.join("data")).unwrap();
    let parquet = folder.join("data/train.parquet");
    std::fs::write(&parquet, "PAR1").unwrap();
    assert_eq!(
        auto(),
        Source::Parquet {
            files: vec![parquet],
            image_root: None,
            columns: ColumnNames::default(),
            left_out: LeftOut::default()
        }
    );

    // Tars without images are not a webdataset, and one image makes a folder of images.
    write_tar(&folder.join("1.tar"), &["a.npy", "a.txt"]);
    assert!(matches!(auto(), Source::Parquet { .. }));
    std::fs::write(folder.join("data/a.jpg"), "").unwrap();
    assert_eq!(auto(), of_files(folder));

    write_tar(&folder.join("0.tar"), &["a.npy", "a.jpg", "a.txt"]);
    let tars = vec![folder.join("0.tar"), folder.join("1.tar")];
    assert_eq!(
        auto(),
        Source::WebDataset {
            tars,
            folder: Some(folder.to_owned()),
            walk: WalkOptions::default(),
            left_out: LeftOut::default()
        }
    );
    assert_eq!(detect(folder, InputFormat::Files).unwrap(), of_files(folder));
    let skipped = auto().read().unwrap().skipped;
    let said = skipped.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("1 loose image left out"), "{said}");
}

#[test]
fn formats_are_named_as_they_are_read() {
    for (name, format) in InputFormat::NAMES {
        assert_eq!((name.parse(), format.to_string().as_str()), (Ok(format), name));
    }
    assert!("tars".parse::<InputFormat>().unwrap_err().contains("webdataset"));
}

#[test]
fn members_of_tars_are_left_out_by_the_rules_of_folders() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("a.tar");
    write_tar(
        &tar,
        &["a.jpg", "a.txt", "._a.jpg", "._a.txt", "__MACOSX/b.jpg", "c.heic", "raw/d.jpg", "raw/d.txt"],
    );
    let walk = WalkOptions { exclude: vec!["raw".parse().unwrap()], ..WalkOptions::default() };
    let options = SourceOptions { walk, ..SourceOptions::default() };
    let ingested = Source::detect(&tar, InputFormat::Auto, &options).unwrap().read().unwrap();
    assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (1, 0));
    let expected = "left out: 4 files: 1 HEIC (not read yet), 2 hidden, 1 excluded";
    assert_eq!(ingested.left_out.to_string(), expected);
    write_tar(&tar, &["c.heic", "c.txt"]);
    let message = Source::detect(&tar, InputFormat::Auto, &options).unwrap().read().unwrap_err().to_string();
    assert!(message.contains("1 HEIC (not read yet)"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_source_that_is_no_regular_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.csv", "a.parquet", "a.tar", "a.json", "a"] {
        let path = dir.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let message = match detect(&path, InputFormat::Auto) {
            Ok(source) => source.read().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(message.contains("not a regular file: socket"), "{message}");
    }
}
