//! Sources against files of independent writers (`fixtures/make_sources.py`), damaged ones, and images read back from them.

mod damage;
#[cfg(target_os = "linux")]
mod names;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::error::{MemoryError, Result};
use crate::ingest::SourceError;

/// A file of the fixtures.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sources").join(name)
}

fn detect(path: &Path) -> Result<Source> {
    Source::detect(path, InputFormat::Auto, &SourceOptions::default())
}

fn ingest(path: &Path) -> Result<Ingested> {
    detect(path)?.read()
}

/// The fixtures' bytes of image `n`.
fn image(n: usize) -> Vec<u8> {
    format!("image {n} ").repeat(1 + 40 * n).into_bytes()
}

fn caption(n: usize) -> String {
    format!("caption {n} – ein Hund")
}

/// Reads each image twice: by its reference, and by what a memory records of it.
fn bytes(reader: &ImageReader, image: &ImageRef) -> Result<Vec<u8>> {
    let bytes = reader.read(image)?;
    assert_eq!(reader.read(&ImageRef::parse(&image.to_string()))?, bytes, "{image}");
    Ok(bytes)
}

#[test]
fn a_shard_of_img2datasets_shape_gives_its_samples() {
    let path = fixture("img2dataset.tar");
    let ingested = ingest(&path).unwrap();
    assert!(ingested.skipped.is_empty(), "{:?}", ingested.skipped);
    assert_eq!(ingested.pairs.len(), 5);
    let reader = ImageReader::new();
    for (n, pair) in ingested.pairs.iter().enumerate() {
        assert_eq!(pair.captions, [caption(n)]);
        assert_eq!(pair.image.to_string(), format!("{}#{n:09}.jpg", path.display()));
        assert_eq!(bytes(&reader, &pair.image).unwrap(), image(n));
    }
}

#[test]
fn long_names_of_pax_and_gnu_tars_are_read_and_json_stands_in_for_text() {
    let reader = ImageReader::new();
    for name in ["pax.tar", "gnu.tar"] {
        let ingested = ingest(&fixture(name)).unwrap();
        assert!(ingested.skipped.is_empty(), "{name}: {:?}", ingested.skipped);
        let long = format!("{}é/000000000.webp", "folder-with-a-long-name/".repeat(12));
        for (n, member) in [long.as_str(), "a.b/000000001.PNG"].into_iter().enumerate() {
            let pair = &ingested.pairs[n];
            // The json beside holds a NaN.
            assert_eq!(pair.captions, [caption(n)], "{name}");
            assert!(matches!(&pair.image, ImageRef::TarMember { name, .. } if name == member.as_bytes()));
            assert_eq!(bytes(&reader, &pair.image).unwrap(), image(n));
        }
    }
}

#[test]
fn members_of_a_key_need_not_follow_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let tar = write_tar(
        dir.path(),
        "a.tar",
        &[
            ("x/1.txt", b" one\ntext "),
            ("x/2.jpg", b"2"),
            ("1.txt", b"another key"),
            ("x/1.jpg", b"1"),
            ("x/1.png", b"second"),
            ("x/2.cls", b"7"),
            ("x/3.webp", b"3"),
            ("x/3.json", b"{\"caption\": \"\"}"),
            ("x/.hidden.jpg", b""),
            ("x/2.json", b"{\"title\": \"two\"}"),
        ],
    );
    let ingested = ingest(&tar).unwrap();
    let pairs: Vec<_> = ingested.pairs.iter().map(|p| (name_of(&p.image), p.captions.join("|"))).collect();
    assert_eq!(pairs, [("x/1.jpg".into(), "one text".into()), ("x/2.jpg".into(), "two".to_owned())]);
    let reasons: Vec<_> = ingested.skipped.iter().map(|s| s.reason.clone()).collect();
    assert_eq!(reasons, [SkipReason::SecondImage, SkipReason::NoImage, SkipReason::EmptyCaption]);
}

#[test]
fn a_tar_without_images_is_refused_with_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let tar = write_tar(dir.path(), "a.tar", &[("1.npy", b""), ("1.cls", b""), ("1.txt", b"x")]);
    let message = ingest(&tar).unwrap_err().to_string();
    assert!(message.contains("no image, but .cls, .npy") && message.contains("img2dataset"), "{message}");

    // Among others it is a skip.
    write_tar(dir.path(), "b.tar", &[("1.jpg", b""), ("1.txt", b"x")]);
    let ingested = ingest(dir.path()).unwrap();
    assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (1, 1));
    let said = ingested.skipped[0].to_string();
    assert!(said.starts_with(&format!("{}: expected a webdataset tar", tar.display())), "{said}");
}

#[test]
fn a_tar_that_is_cut_off_keeps_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("img2dataset.tar")).unwrap();
    let path = dir.path().join("cut.tar");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let ingested = ingest(&path).unwrap();
    assert!(!ingested.pairs.is_empty() && ingested.pairs.len() < 5);
    let last = ingested.skipped.last().unwrap().to_string();
    assert!(last.contains("cut.tar: the rest is missing: it ends within"), "{last}");
    for (n, pair) in ingested.pairs.iter().enumerate() {
        assert_eq!(bytes(&ImageReader::new(), &pair.image).unwrap(), image(n));
    }
}

#[test]
fn parquet_with_paths_gives_each_image_once() {
    let ingested = ingest(&fixture("paths.parquet")).unwrap();
    assert_eq!(ingested.pairs.len(), 12);
    for (n, pair) in ingested.pairs.iter().enumerate() {
        assert_eq!(pair.image, ImageRef::File(fixture(&format!("photos/{n}.jpg"))));
        let rows = (n * 5..n * 5 + 5).filter(|row| row % 7 != 3);
        assert_eq!(pair.captions, rows.map(caption).collect::<Vec<_>>());
    }
    let options = SourceOptions { image_root: Some("/root".into()), ..SourceOptions::default() };
    let source = Source::detect(fixture("paths.parquet"), InputFormat::Parquet, &options).unwrap();
    assert_eq!(source.read().unwrap().pairs[0].image, ImageRef::File("/root/photos/0.jpg".into()));
    let first = &ingested.skipped[0];
    assert_eq!(first.reason, SkipReason::ParquetRow { row: 3, what: "the caption is null".to_owned() });
    assert_eq!(ingested.skipped.len(), (0..60).filter(|row| row % 7 == 3).count());
}

#[test]
fn parquet_with_bytes_gives_each_row_its_image() {
    for name in ["hugging_face.parquet", "img2dataset.parquet"] {
        let ingested = ingest(&fixture(name)).unwrap();
        let rows: Vec<usize> = (0..60).filter(|row| row % 7 != 3).collect();
        assert_eq!(ingested.pairs.len(), rows.len());
        let reader = ImageReader::new();
        for (pair, &row) in ingested.pairs.iter().zip(&rows) {
            assert_eq!(pair.image.to_string(), format!("{}#{row}", fixture(name).display()));
            assert_eq!(pair.captions, [caption(row)]);
            assert_eq!(bytes(&reader, &pair.image).unwrap(), image(row % 5));
        }
        // Backwards, and side by side.
        for (pair, row) in ingested.pairs.iter().zip(&rows).rev() {
            assert_eq!(reader.read(&pair.image).unwrap(), image(row % 5));
        }
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (reader, pairs, rows) = (&reader, &ingested.pairs, &rows);
                scope.spawn(move || {
                    for (pair, row) in pairs.iter().zip(rows).skip(thread).step_by(4) {
                        assert_eq!(reader.read(&pair.image).unwrap(), image(row % 5));
                    }
                });
            }
        });
    }
}

#[test]
fn parquet_with_hugging_faces_struct_without_bytes_gives_its_paths() {
    let ingested = ingest(&fixture("hugging_face_paths.parquet")).unwrap();
    assert_eq!(ingested.pairs[0].image, ImageRef::File(fixture("0.png")));
}

#[test]
fn parquet_with_lists_gives_an_image_several_captions() {
    let ingested = ingest(&fixture("lists.parquet")).unwrap();
    let rows: Vec<usize> = (0..60).filter(|row| row % 5 != 0 && row % 4 != 0).collect();
    assert_eq!(ingested.pairs.len(), rows.len());
    let reader = ImageReader::new();
    for (pair, row) in ingested.pairs.iter().zip(rows) {
        assert_eq!(pair.captions, (row..row + row % 4).map(caption).collect::<Vec<_>>());
        match row {
            1 => assert!(reader.read(&pair.image).unwrap_err().to_string().contains("its cell is empty")),
            row => assert_eq!(bytes(&reader, &pair.image).unwrap(), image(row % 5)),
        }
    }
}

#[test]
fn parquet_of_urls_is_refused_with_the_way_out() {
    let message = ingest(&fixture("urls.parquet")).unwrap_err().to_string();
    assert!(message.contains("no image column") && message.contains("img2dataset"), "{message}");
}

#[test]
fn coco_finds_its_images_in_the_folder_that_its_name_tells() {
    let path = fixture("coco/annotations/captions_train2017.json");
    let ingested = ingest(&path).unwrap();
    assert!(ingested.skipped.is_empty(), "{:?}", ingested.skipped);
    let expected = [(391895, vec![0, 3, 6]), (522418, vec![1, 4]), (184613, vec![2, 5])];
    assert_eq!(ingested.pairs.len(), 3);
    for (pair, (id, captions)) in ingested.pairs.iter().zip(expected) {
        assert_eq!(pair.image, ImageRef::File(fixture(&format!("coco/train2017/{id:012}.jpg"))));
        assert_eq!(pair.captions, captions.into_iter().map(caption).collect::<Vec<_>>());
        assert_eq!(ImageReader::new().read(&pair.image).unwrap(), image(id % 7));
    }
}

#[test]
fn coco_without_its_images_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("captions_val2014.json");
    std::fs::copy(fixture("coco/annotations/captions_train2017.json"), &path).unwrap();
    let message = ingest(&path).unwrap_err().to_string();
    assert!(message.contains("val2014"), "{message}");
    let options = SourceOptions { image_root: Some(fixture("coco/train2017")), ..SourceOptions::default() };
    let ingested = Source::detect(&path, InputFormat::Coco, &options).unwrap().read().unwrap();
    assert_eq!(ingested.pairs.len(), 3);
}

#[test]
fn coco_skips_what_has_no_partner_and_keeps_what_came_before_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.jpg"), "x").unwrap();
    let path = dir.path().join("captions.json");
    let whole = br#"{"annotations": [{"image_id": "s", "caption": " two "}, {"image_id": 1, "caption": "one"}, 5,
        {"caption": "x"}, {"image_id": 9, "caption": "nobody's"}, {"image_id": 1, "caption": [["deep"]]},
        {"image_id": 1, "caption": "uno"}],
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": "s", "file_name": "b.jpg"}, {"id": 2, "file_name": "c.jpg"}, null]}"#;
    std::fs::write(&path, whole).unwrap();
    let ingested = ingest(&path).unwrap();
    let pairs: Vec<_> = ingested.pairs.iter().map(|p| p.captions.join("|")).collect();
    assert_eq!(pairs, ["one|uno", "two"]);
    let said: Vec<_> = ingested.skipped.iter().map(|s| s.reason.to_string()).collect();
    assert_eq!(said.len(), 6, "{said:?}");
    assert!(said[0].starts_with("annotations[2]: it has no image_id") && said[4].starts_with("images[2]"));

    std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let ingested = ingest(&path).unwrap();
    assert_eq!(ingested.pairs.len(), 2);
    assert!(
        matches!(&ingested.skipped.last().unwrap().reason, SkipReason::Damaged(what) if what.contains("EOF"))
    );

    std::fs::write(&path, r#"{"count": 5, "successes": 4}"#).unwrap();
    let message = ingest(&path).unwrap_err().to_string();
    assert!(
        message.contains("0 images and 0 annotations") && message.contains("give their folder"),
        "{message}"
    );
}

#[test]
fn an_image_that_is_gone_cut_off_or_absent_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let tar = write_tar(dir.path(), "a.tar", &[("1.jpg", b"one"), ("1.txt", b"x")]);
    let path: Arc<Path> = tar.as_path().into();
    let member = |name: &str, span| ImageRef::TarMember { tar: Arc::clone(&path), name: name.into(), span };
    let reader = ImageReader::new();
    let past_the_end = Some(Span { offset: 1 << 40, len: 10 });
    let huge = Some(Span { offset: 0, len: 1 << 40 });
    for (image, what) in [
        (ImageRef::File(dir.path().join("gone.jpg")), "gone.jpg"),
        (member("2.jpg", None), "no such member"),
        (member("1.jpg", past_the_end), "ends after 0 of its 10 bytes"),
        (member("1.jpg", huge), "larger than 256 MiB"),
        (ImageRef::parse("gone.tar#1.jpg"), "gone.tar#1.jpg"),
        (
            ImageRef::parse(&format!("{}#60", fixture("img2dataset.parquet").display())),
            "the file has 60 rows",
        ),
        (ImageRef::parse(&format!("{}#0", fixture("paths.parquet").display())), "no column of image bytes"),
    ] {
        let message = reader.read(&image).unwrap_err().to_string();
        assert!(message.contains(what) && message.contains(&image.to_string()), "{message}");
    }
    assert_eq!(reader.read(&member("1.jpg", None)).unwrap(), b"one");
}

#[test]
fn embeddings_are_no_pairs_of_images() {
    let source = detect(&fixture("embeddings")).unwrap();
    assert!(matches!(source, Source::Embeddings(_)));
    assert!(matches!(source.read(), Err(MemoryError::Source(SourceError::WrongKind { .. }))));
}

fn write_tar(folder: &Path, name: &str, members: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join(name);
    let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
    for (name, data) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.finish().unwrap();
    path
}

fn name_of(image: &ImageRef) -> String {
    image.to_string().split_once(".tar#").unwrap().1.to_owned()
}
