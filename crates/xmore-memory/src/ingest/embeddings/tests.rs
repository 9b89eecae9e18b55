//! Folders of embeddings: of numpy and pyarrow (`fixtures/make_sources.py`), misaligned ones, damaged ones.

use std::fs;

use proptest::prelude::*;

use super::*;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sources/embeddings")
}

/// A copy of the fixture that may be changed.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in walkdir::WalkDir::new(fixture()).into_iter().map(|file| file.unwrap()) {
        let to = dir.path().join(file.path().strip_prefix(fixture()).unwrap());
        if file.file_type().is_dir() {
            fs::create_dir_all(to).unwrap();
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
    dir
}

/// An npy file of f32 rows.
fn write_npy(path: &Path, rows: &[&[f32]]) {
    use npyz::WriterBuilder;
    let mut out = fs::File::create(path).unwrap();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[rows.len() as u64, rows[0].len() as u64])
        .writer(&mut out)
        .begin_nd()
        .unwrap();
    writer.extend(rows.iter().flat_map(|row| row.iter().copied())).unwrap();
    writer.finish().unwrap();
}

/// Half-precision values of a file, by another reader.
fn halves(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let values = npyz::NpyFile::new(&bytes[..]).unwrap().into_vec::<half::f16>().unwrap();
    values.into_iter().map(half::f16::to_f32).collect()
}

fn batches(folder: &EmbeddingsFolder, rows: usize) -> Vec<EmbeddingsBatch> {
    folder.batches(rows).collect::<Result<_>>().unwrap()
}

#[test]
fn rows_come_in_order_with_their_captions() {
    let folder = EmbeddingsFolder::open(fixture()).unwrap();
    assert_eq!((folder.rows(), folder.dim(), folder.has_texts(), folder.parts().len()), (11, 16, true, 2));
    for size in [1, 3, 100] {
        let batches = batches(&folder, size);
        assert!(batches.iter().all(|batch| batch.len() <= size));
        let captions: Vec<_> = batches.iter().flat_map(|b| &b.captions).cloned().collect();
        let kept = [(0, 0), (0, 1), (0, 3), (0, 4), (0, 5), (0, 6), (1, 0), (1, 1), (1, 3)];
        assert_eq!(captions, kept.map(|(_, row)| format!("caption {row} – ein Hund")));
        let paths: Vec<_> = batches.iter().flat_map(|b| &b.image_paths).cloned().collect();
        assert_eq!(paths, kept.map(|(part, row)| format!("{part:05}{row:04}")));
        let skipped: Vec<_> = batches.iter().map(|b| b.skipped).collect();
        assert_eq!(skipped.iter().map(|s| s.caption).sum::<u64>(), 2);
        assert_eq!(skipped.iter().map(SkippedRows::total).sum::<u64>(), 2);
        assert_eq!(batches.iter().map(|b| b.renormalized).sum::<u64>(), 0);
        for series in [IMAGES, TEXTS] {
            let rows: Vec<f32> = batches
                .iter()
                .flat_map(|b| if series == IMAGES { &b.images } else { b.texts.as_ref().unwrap() })
                .copied()
                .collect();
            let expected: Vec<f32> = kept
                .iter()
                .flat_map(|(part, row)| {
                    let file = format!("{0}/{0}_{part}.npy", series.name);
                    halves(&fixture().join(file))[row * 16..(row + 1) * 16].to_vec()
                })
                .collect();
            assert_eq!(rows, expected);
        }
    }
    let second: Vec<_> = folder.parts()[1].batches(10).collect::<Result<_>>().unwrap();
    assert_eq!((second.len(), second[0].len()), (1, 3));
}

#[test]
fn texts_may_be_absent_and_paths_be_urls() {
    let dir = copy();
    fs::remove_dir_all(dir.path().join("text_emb")).unwrap();
    let folder = EmbeddingsFolder::open(dir.path()).unwrap();
    assert!(!folder.has_texts());
    assert!(batches(&folder, 4).iter().all(|batch| batch.texts.is_none()));

    let url_only = dir.path().join("metadata/metadata_0.parquet");
    write_metadata(&url_only, "url", 7);
    let folder = EmbeddingsFolder::open(dir.path()).unwrap();
    assert_eq!(batches(&folder, 100)[0].image_paths[1], "url 1");
}

fn write_metadata(path: &Path, column: &str, rows: usize) {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let schema = format!("message m {{ required binary caption (UTF8); required binary {column} (UTF8); }}");
    let schema = parquet::schema::parser::parse_message_type(&schema).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(file, schema.into(), Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for name in ["caption", column] {
        let values: Vec<ByteArray> = (0..rows).map(|n| ByteArray::from(&*format!("{name} {n}"))).collect();
        let mut out = group.next_column().unwrap().unwrap();
        out.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        out.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_that_are_no_directions_are_skipped_and_others_made_unit_vectors() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["img_emb", "metadata"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let huge = 2f32.powi(100);
    let rows: [&[f32]; 6] = [
        &[0.6, 0.8],
        &[3.0 * huge, 4.0 * huge],
        &[0.0, 0.0],
        &[f32::NAN, 1.0],
        &[f32::INFINITY, 1.0],
        &[0.6003, 0.8],
    ];
    write_npy(&dir.path().join("img_emb/img_emb_007.npy"), &rows);
    write_metadata(&dir.path().join("metadata/metadata_7.parquet"), "image_path", 6);
    let folder = EmbeddingsFolder::open(dir.path()).unwrap();
    let batch = batches(&folder, 10).remove(0);
    assert_eq!(batch.images, [0.6, 0.8, 0.6, 0.8, 0.6003, 0.8]);
    assert_eq!(batch.image_paths, ["image_path 0", "image_path 1", "image_path 5"]);
    assert_eq!((batch.skipped, batch.renormalized), (SkippedRows { caption: 0, not_finite: 2, zero: 1 }, 1));
}

#[test]
fn parts_that_do_not_align_are_refused_by_name() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 8] = [
        (
            |d| fs::remove_file(d.join("metadata/metadata_1.parquet")).unwrap(),
            "img_emb has a part 1, and metadata has none",
        ),
        (
            |d| fs::remove_file(d.join("img_emb/img_emb_0.npy")).unwrap(),
            "metadata has a part 0, and img_emb has none",
        ),
        (
            |d| fs::remove_file(d.join("text_emb/text_emb_1.npy")).unwrap(),
            "img_emb has a part 1, and text_emb has none",
        ),
        (
            |d| assert!(fs::copy(d.join("img_emb/img_emb_0.npy"), d.join("img_emb/img_emb_00.npy")).is_ok()),
            "both part 0",
        ),
        (
            |d| {
                assert!(
                    fs::copy(d.join("text_emb/text_emb_1.npy"), d.join("text_emb/text_emb_0.npy")).is_ok()
                )
            },
            "has shape (4, 16)",
        ),
        (|d| write_metadata(&d.join("metadata/metadata_0.parquet"), "url", 8), "has 8 rows"),
        (|d| write_metadata(&d.join("metadata/metadata_0.parquet"), "uri", 7), "no image column"),
        (|d| fs::remove_dir_all(d.join("img_emb")).unwrap(), "no img_emb/img_emb_N.npy"),
    ];
    for (change, what) in changes {
        let dir = copy();
        change(dir.path());
        let message = EmbeddingsFolder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn matrices_of_other_types_or_sizes_are_refused_by_name() {
    for dict in [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (7, 16), }",
        "{'descr': '<f2', 'fortran_order': True, 'shape': (7, 16), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (7, 0), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (7, 70000), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (18446744073709551615, 16), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (8, 16), }",
    ] {
        let dir = copy();
        let path = dir.path().join("img_emb/img_emb_0.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16).to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes.extend([0; 224]);
        fs::write(&path, bytes).unwrap();
        let message = EmbeddingsFolder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("img_emb_0.npy"), "{dict}: {message}");
    }
}

#[test]
fn a_damaged_part_gives_an_error_and_the_next_part_follows() {
    let dir = copy();
    let folder = EmbeddingsFolder::open(dir.path()).unwrap();
    let path = dir.path().join("img_emb/img_emb_0.npy");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 33]).unwrap();
    let results: Vec<_> = folder.batches(1).collect();
    // Six rows are whole, of which one has no caption.
    assert_eq!(results.iter().take_while(|r| r.is_ok()).count(), 5 + 1 - 1);
    let errors: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(errors.len() == 1 && errors[0].to_string().contains("img_emb_0.npy"), "{errors:?}");
    assert_eq!(results.iter().rev().take_while(|r| r.is_ok()).count(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn damage_never_panics_and_rows_stay_unit_vectors(
        file in prop::sample::select(vec![
            "img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet"
        ]),
        cut in prop::option::of(0.0f64..1.0),
        flips in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..8)
    ) {
        let dir = copy();
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let length = bytes.len() as f64;
        for (at, value) in flips {
            bytes[(at * length) as usize] = value;
        }
        bytes.truncate(cut.map_or(usize::MAX, |cut| (cut * length) as usize));
        fs::write(&path, bytes).unwrap();
        if let Ok(folder) = EmbeddingsFolder::open(dir.path()) {
            for batch in folder.batches(3).flatten() {
                prop_assert_eq!(batch.images.len(), batch.len() * 16);
                prop_assert_eq!(batch.image_paths.len(), batch.len());
                for row in batch.images.chunks(16).chain(batch.texts.iter().flat_map(|t| t.chunks(16))) {
                    let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
                    prop_assert!((length - 1.0).abs() < 2e-3, "{}", length);
                }
            }
        }
    }
}
