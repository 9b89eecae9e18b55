//! Names of any bytes: such images come in from every kind of source, and are found again by their text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

fn path(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

fn write(folder: &Path, name: &[u8], bytes: &[u8]) -> PathBuf {
    let path = path(folder, name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Captions of the images, each of which has its own caption as its bytes, or no file.
fn captions(source: &Path) -> Vec<String> {
    let ingested = ingest(source).unwrap();
    assert!(ingested.skipped.is_empty(), "{:?}", ingested.skipped);
    let reader = ImageReader::new();
    let read = |pair: Pair| {
        let caption = pair.captions.join("|");
        match bytes(&reader, &pair.image) {
            Ok(bytes) => assert_eq!(bytes, caption.as_bytes()),
            Err(error) => assert!(error.to_string().contains(&pair.image.to_string()), "{error}"),
        }
        caption
    };
    ingested.pairs.into_iter().map(read).collect()
}

#[test]
fn folders_give_them_with_the_captions_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    for (image, caption_file, caption) in [
        (&b"caf\xe9.jpg"[..], &b"caf\xe9.txt"[..], "one"),
        (b"CAF\xe9 2.JPG", b"caf\xe9 2.txt", "two"),
        (b"\xff/3.png", b"\xff/3.png.txt", "three"),
        (b"\xff/\x80.webp", b"\xff/\x80.caption", "four"),
    ] {
        write(dir.path(), image, caption.as_bytes());
        write(dir.path(), caption_file, caption.as_bytes());
    }
    write(dir.path(), b"caf\xe8.txt", b"of another name");
    write(dir.path(), b"\xe9.jpg", b"five");
    write(dir.path(), b"\xe9.json", b"{\"caption\": \"five\"}");
    write(dir.path(), b"in/\xe9.jpg", b"six");
    write(dir.path(), b"in/metadata.csv", b"file_name,text\n\xe9.jpg,six\n");
    let mut captions = captions(dir.path());
    captions.sort();
    assert_eq!(captions, ["five", "four", "one", "six", "three", "two"]);
    write(dir.path(), b"\xe8.jpg", b"");
    let skipped = ingest(dir.path()).unwrap().skipped;
    let expected = format!("file:{}/%E8.jpg", dir.path().display());
    assert_eq!(skipped, [Skip { path: expected, reason: SkipReason::NoCaption }]);
}

#[test]
fn tables_name_them_by_their_bytes_or_their_text() {
    let dir = tempfile::tempdir().unwrap();
    let folder = path(dir.path(), b"caf\xe9");
    write(&folder, b"\xe9.jpg", b"one");
    write(&folder, b"na\xefve \x80.jpg", b"two");
    write(&folder, "né.jpg".as_bytes(), b"three");
    write(&folder, b"n\xe9.jpg", b"of another name");
    write(&folder, b"4.jpg", b"four");
    let table = write(
        &folder,
        b"a.csv",
        b"image,caption\n\xe9.jpg,one\n.\\na\xefve \x80.jpg#0,two\nn\xe9.jpg,three\n4.jpg,four\n\xe8.jpg,gone\n",
    );
    assert_eq!(captions(&table), ["one", "two", "three", "four", "gone"]);
    let escaped = b"{\"image\": \"file:%E9.jpg\", \"caption\": \"one\"}\n{\"image\": \"file:gone%E9.jpg\", \"caption\": \"gone\"}\n";
    assert_eq!(captions(&write(&folder, b"b.jsonl", escaped)), ["one", "gone"]);
    // What is UTF-8 names nothing else: of two names that look alike none is chosen.
    let utf8 = ingest(&write(&folder, b"c.csv", "image,caption\né.jpg,one\n".as_bytes())).unwrap();
    assert_eq!(utf8.pairs[0].image, ImageRef::File(folder.join("é.jpg")));
    let coco = br#"{"images": [{"id": 1, "file_name": "file:%E9.jpg"}], "annotations": [{"image_id": 1, "caption": "one"}]}"#;
    assert_eq!(captions(&write(&folder, b"captions.json", coco)), ["one"]);
}

#[test]
fn tars_and_parquet_files_hold_them_and_lie_below_them() {
    let dir = tempfile::tempdir().unwrap();
    let folder = path(dir.path(), b"caf\xe9");
    std::fs::create_dir(&folder).unwrap();
    let tar = path(&folder, b"\xff.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    let long = [&b"\xe9".repeat(60)[..], b"#1.jpg"].concat();
    for (name, data) in [
        (&b"\xe9.txt"[..], &b"one"[..]),
        (b"\xe9.jpg", b"one"),
        (b"\xff/2.JPG", b"two"),
        (b"\xff/2.caption", b"two"),
        (&long, b"three"),
        (&[&b"\xe9".repeat(60)[..], b"#1.txt"].concat(), b"three"),
        (b"\xe8.png", b"none"),
        (b"\x80.jpg", b"four"),
        (b"\x80.caption", b"four"),
        (b"\x80.txt", b" "),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, OsStr::from_bytes(name), data).unwrap();
    }
    builder.finish().unwrap();
    drop(builder);
    let ingested = ingest(&tar).unwrap();
    let text = format!("file:{}/caf%E9/%FF.tar#", dir.path().display());
    let names: Vec<String> = ingested.pairs.iter().map(|pair| pair.image.to_string()).collect();
    let long = format!("{text}file:{}%231.jpg", "%E9".repeat(60));
    let named = |name: &str| format!("{text}file:{name}");
    assert_eq!(names, [named("%E9.jpg"), named("%FF/2.JPG"), long, named("%80.jpg")]);
    for (pair, caption) in ingested.pairs.iter().zip(["one", "two", "three", "four"]) {
        assert_eq!(pair.captions, [caption]);
        assert_eq!(bytes(&ImageReader::new(), &pair.image).unwrap(), caption.as_bytes());
    }
    assert_eq!(ingested.skipped, [Skip { path: named("%E8.png"), reason: SkipReason::NoCaption }]);

    let parquet = path(&folder, b"\xfe.parquet");
    std::fs::copy(fixture("img2dataset.parquet"), &parquet).unwrap();
    let ingested = ingest(&parquet).unwrap();
    assert!(!ingested.pairs.is_empty());
    for pair in &ingested.pairs {
        assert!(pair.image.to_string().contains("/caf%E9/%FE.parquet#"), "{}", pair.image);
        bytes(&ImageReader::new(), &pair.image).unwrap();
    }
}
