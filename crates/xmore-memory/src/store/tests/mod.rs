//! Tests of the store as a whole: what is written is read, what is damaged or interrupted is refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use half::f16;
use proptest::prelude::*;

mod copying;
mod embedding_sets;
mod gaps;
mod mending;
mod resuming;

use super::layout::{EMBEDDING_SETS_DIR, MANIFEST_COPY, skipped_path};
use super::*;
use crate::error::MemoryError;
use crate::ingest::SkipKind;
use crate::search::VectorError;

pub(crate) fn model(dim: usize) -> ModelIdentity {
    ModelIdentity::new("test", "0".repeat(64), dim)
}

/// Five images with two captions each, parts of four rows.
fn small(dir: &Path) -> Manifest {
    let mut writer = MemoryWriter::create(dir, model(3)).unwrap().with_part_rows(4);
    fill(&mut writer);
    writer.finish().unwrap()
}

fn fill(writer: &mut MemoryWriter) {
    for i in 0..10 {
        let x = i as f32;
        let (image, caption) = (format!("{}.jpg", i / 2), format!("caption {i}"));
        writer.push(&image, &caption, &[x, 0.0, 1.0], &[0.0, x, -1.0]).unwrap();
    }
    for i in 0..7 {
        writer.skip(&format!("bad, {i}.jpg"), SkipKind::UnreadableImage, "cannot be read").unwrap();
    }
}

fn assert_is_small(memory: &Memory) {
    assert_eq!((memory.len(), memory.dim()), (10, 3));
    let mut row = [0.0; 3];
    for id in (0..10).rev() {
        assert_eq!(memory.caption(id).unwrap(), format!("caption {id}"));
        assert_eq!(memory.image_path(id).unwrap(), format!("{}.jpg", id / 2));
        memory.image_embedding(id, &mut row).unwrap();
        assert_eq!(row, [id as f32, 0.0, 1.0]);
        memory.text_embedding(id, &mut row).unwrap();
        assert_eq!(row, [0.0, id as f32, -1.0]);
    }
}

/// Files below `dir`, without the lock.
fn files(dir: &Path) -> Vec<String> {
    let mut files: Vec<String> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().is_file())
        .map(|e| e.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned())
        .filter(|p| !p.ends_with("lock"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_memory_is_laid_out_as_clip_retrieval_does() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = small(dir.path());
    assert_eq!((manifest.pairs, manifest.images, manifest.skipped), (10, 5, 7));
    assert_eq!(manifest.parts.iter().map(|p| p.rows).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(
        files(dir.path()),
        [
            ".xmore-memory.json",
            "img_codes/img_codes_0000.bin",
            "img_codes/img_codes_0001.bin",
            "img_codes/img_codes_0002.bin",
            "img_emb/img_emb_0000.npy",
            "img_emb/img_emb_0001.npy",
            "img_emb/img_emb_0002.npy",
            "lookup/lookup_0000.bin",
            "lookup/lookup_0001.bin",
            "lookup/lookup_0002.bin",
            "metadata/metadata_0000.parquet",
            "metadata/metadata_0001.parquet",
            "metadata/metadata_0002.parquet",
            "skipped/skipped_0000.csv",
            "text_codes/text_codes_0000.bin",
            "text_codes/text_codes_0001.bin",
            "text_codes/text_codes_0002.bin",
            "text_emb/text_emb_0000.npy",
            "text_emb/text_emb_0001.npy",
            "text_emb/text_emb_0002.npy",
            "xmore_memory.json",
        ]
    );
    let memory = Memory::open(dir.path()).unwrap();
    assert_eq!(memory.manifest(), &manifest);
    assert_is_small(&memory);
}

#[test]
fn a_memory_of_version_1_is_read() {
    // Built by the program as it was then; see fixtures/README.md.
    let memory = Memory::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/memory_v1")).unwrap();
    assert_eq!((memory.len(), memory.dim(), memory.manifest().images), (6, 16, 4));
    assert_eq!((memory.caption(4).unwrap(), memory.image_path(4).unwrap()), ("large, and loud", "large.png"));
    let mut query = [0.0; 16];
    memory.text_embedding(4, &mut query).unwrap();
    let hits = memory.primary().search(Modality::Text, &query, 6).unwrap().remove(0);
    assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), [4, 0, 3, 5, 1, 2]);
    assert!((hits[1].similarity - 0.927_829).abs() < 2e-4, "{hits:?}");
}

/// Copies a memory of the fixtures.
fn copy_fixture(name: &str, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    for file in files(&from) {
        let to = to.join(&file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from.join(file), to).unwrap();
    }
}

#[test]
fn memories_of_earlier_versions_are_read_and_become_of_this_version_when_they_grow() {
    for (name, unchecked, rows) in [("memory_v1", 3, 6), ("memory_v2", 1, 6), ("memory_v3", 0, 6)] {
        let dir = tempfile::tempdir().unwrap();
        copy_fixture(name, dir.path());
        let report = verify(dir.path(), &mut |_, _| {}).unwrap();
        assert_eq!((report.findings, report.unchecked), (vec![], unchecked), "{name}");
        let memory = Memory::open(dir.path()).unwrap();
        let (model, captions) = (memory.manifest().model.clone(), memory.caption(5).unwrap().to_owned());

        let dim = model.dim;
        let mut writer = MemoryWriter::open(dir.path(), model, Mode::Append).unwrap();
        writer.push("new.jpg", "a new one", &vec![1.0; dim], &vec![1.0; dim]).unwrap();
        writer.finish().unwrap();
        let report = verify(dir.path(), &mut |_, _| {}).unwrap();
        assert_eq!((report.findings, report.unchecked), (vec![], 0), "{name}");
        let memory = Memory::open(dir.path()).unwrap();
        assert_eq!((memory.len(), memory.manifest().format_version), (rows + 1, 5));
        assert_eq!((memory.caption(5).unwrap(), memory.caption(rows).unwrap()), (&*captions, "a new one"));
    }
}

#[test]
fn a_memory_of_version_2_is_read_with_its_embedding_set() {
    // Written by the program as it was then; see fixtures/README.md.
    let memory = Memory::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/memory_v2")).unwrap();
    assert_eq!((memory.len(), memory.dim(), memory.manifest().images), (6, 4, 3));
    assert_eq!((memory.caption(4).unwrap(), memory.image_path(4).unwrap()), ("caption 4", "2.jpg"));
    let set = &memory.embedding_sets()[1];
    let mut row = [0.0; 2];
    set.text_embedding(5, &mut row).unwrap();
    assert_eq!((set.rows(), row), (6, [0.0, 1.0]));
}

#[test]
fn a_memory_of_version_3_is_read_with_its_model() {
    // Written by the program as it was then; see fixtures/README.md.
    let memory = Memory::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/memory_v3")).unwrap();
    let model = ModelIdentity::new("tiny", "0123456789abcdef".repeat(4), 4).with_precision("int8");
    assert_eq!((memory.len(), &memory.manifest().model), (6, &model));
    assert!(memory.embedding_set(&ModelIdentity::new("", "fedcba9876543210".repeat(4), 2)).is_some());
}

#[test]
fn an_empty_memory_as_earlier_versions_wrote_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = r#"{"format_version": 2, "model": {"name": "test", "sha256": "00", "dim": 4}, "pairs": 0, "images": 0,
        "parts": [], "skipped": 0, "truncated": 0, "sources": []}"#;
    fs::write(dir.path().join(MANIFEST_FILE), manifest).unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    assert!(memory.is_empty());
    assert!(memory.caption(0).unwrap_err().to_string().contains("no pair 0"));
    assert_eq!(memory.search_images(&[0.5; 8], 3).unwrap(), [vec![], vec![]]);
}

#[test]
fn ids_and_buffers_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let memory = Memory::open(dir.path()).unwrap();
    for id in [10, u64::MAX] {
        assert!(matches!(
            memory.image_path(id),
            Err(MemoryError::Store(StoreError::NoSuchPair { len: 10, .. }))
        ));
        assert!(matches!(
            memory.image_embedding(id, &mut [0.0; 3]),
            Err(MemoryError::Store(StoreError::NoSuchPair { .. }))
        ));
    }
    let error = memory.text_embedding(0, &mut [0.0; 2]).unwrap_err();
    assert!(
        matches!(error, MemoryError::Vector(VectorError::Length { expected: 3, found: 2, .. })),
        "{error}"
    );
}

#[test]
fn bad_rows_are_refused_and_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = MemoryWriter::create(dir.path(), model(2)).unwrap();
    for bad in [&[0.0][..], &[0.0; 3], &[f32::NAN, 0.0], &[0.0, f32::INFINITY], &[70_000.0, 0.0]] {
        assert!(writer.push("a", "b", bad, &[0.0; 2]).is_err());
        assert!(writer.push("a", "b", &[0.0; 2], bad).is_err());
    }
    let message = writer.push("a", "b", &[0.0; 2], &[1.0, f32::NAN]).unwrap_err().to_string();
    assert!(message.contains("text embedding") && message.contains("position 1"), "{message}");
    writer.push("a", "b", &[1.0, 0.0], &[0.0, 1.0]).unwrap();
    assert_eq!(writer.finish().unwrap().pairs, 1);
    assert_eq!(Memory::open(dir.path()).unwrap().len(), 1);

    for dim in [0, MAX_DIM + 1] {
        let other = dir.path().join("other");
        assert!(matches!(
            MemoryWriter::create(&other, model(dim)),
            Err(MemoryError::Write(WriteError::Dim { .. }))
        ));
        assert!(!other.exists());
    }
}

#[test]
fn an_interrupted_build_is_refused_by_open_and_replaced_by_create() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = MemoryWriter::create(dir.path(), model(3)).unwrap().with_part_rows(3);
    fill(&mut writer);
    drop(writer);
    let error = Memory::open(dir.path()).unwrap_err();
    assert!(matches!(error, MemoryError::Store(StoreError::Incomplete { .. })), "{error}");
    small(dir.path());
    assert_eq!(files(dir.path()).len(), 21);
    assert_is_small(&Memory::open(dir.path()).unwrap());
}

#[test]
fn a_complete_memory_is_replaced_only_on_demand_and_only_when_the_new_one_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let error = MemoryWriter::create(dir.path(), model(3)).err().unwrap();
    assert!(matches!(error, MemoryError::Write(WriteError::AlreadyExists { .. })), "{error}");
    assert!(error.to_string().contains("already holds"), "{error}");

    let mut writer = MemoryWriter::create_overwriting(dir.path(), model(1)).unwrap();
    writer.push("new.jpg", "new", &[1.0], &[1.0]).unwrap();
    let before = Memory::open(dir.path()).unwrap();
    writer.finish().unwrap();
    // One opened before keeps its mapped embeddings.
    before.image_embedding(9, &mut [0.0; 3]).unwrap();
    let after = Memory::open(dir.path()).unwrap();
    assert_eq!((after.len(), after.caption(0).unwrap()), (1, "new"));
    assert_eq!(files(dir.path()).len(), 8);
}

#[test]
fn a_directory_of_something_else_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    for result in
        [MemoryWriter::create(dir.path(), model(1)), MemoryWriter::create_overwriting(dir.path(), model(1))]
    {
        let error = result.err().unwrap();
        assert!(matches!(error, MemoryError::Write(WriteError::NotEmpty { .. })), "{error}");
        assert!(error.to_string().contains("thesis.tex"), "{error}");
    }
    assert_eq!(files(dir.path()), ["thesis.tex"]);
    assert!(matches!(Memory::open(dir.path()), Err(MemoryError::Store(StoreError::NotAMemory { .. }))));
    let message = Memory::open(dir.path().join("gone")).unwrap_err().to_string();
    assert!(message.contains("gone"), "{message}");
}

#[test]
fn two_writers_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = MemoryWriter::create(dir.path(), model(3)).unwrap();
    assert!(matches!(
        MemoryWriter::create(dir.path(), model(3)),
        Err(MemoryError::Write(WriteError::Busy { .. }))
    ));
    fill(&mut first);
    first.finish().unwrap();
    assert_is_small(&Memory::open(dir.path()).unwrap());
}

#[test]
fn a_part_that_is_missing_truncated_or_misnamed_is_named() {
    type Damage = fn(PathBuf);
    let damage: [(&str, Damage); 5] = [
        ("text_emb/text_emb_0001.npy", |p| fs::remove_file(p).unwrap()),
        ("img_emb/img_emb_0002.npy", |p| {
            fs::OpenOptions::new().write(true).open(p).unwrap().set_len(130).unwrap()
        }),
        ("metadata/metadata_0000.parquet", |p| {
            fs::rename(&p, p.with_file_name("metadata_0009.parquet")).unwrap()
        }),
        ("text_emb/text_emb_0000.npy", |p| {
            fs::copy(p.with_file_name("text_emb_0002.npy"), p).unwrap();
        }),
        ("xmore_memory.json", |p| fs::OpenOptions::new().write(true).open(p).unwrap().set_len(40).unwrap()),
    ];
    for (file, damage) in damage {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        damage(dir.path().join(file));
        let message = Memory::open(dir.path()).unwrap_err().to_string();
        let named = file.split(['/', '_']).next().unwrap();
        assert!(message.contains(named) && message.contains("damaged"), "{file}: {message}");
    }
}

#[test]
fn truncated_metadata_is_found_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let path = dir.path().join("metadata/metadata_0001.parquet");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50).unwrap();
    // The lookup file has the same strings.
    assert_eq!(Memory::open(dir.path()).unwrap().caption(4).unwrap(), "caption 4");
    fs::remove_file(dir.path().join("lookup/lookup_0001.bin")).unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    assert_eq!(memory.caption(3).unwrap(), "caption 3");
    for _ in 0..2 {
        let message = memory.caption(4).unwrap_err().to_string();
        assert!(message.contains("metadata_0001.parquet"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_pushed_comes_back_rounded_to_float16(
        (dim, rows) in (1usize..40).prop_flat_map(|dim| {
            let row = prop::collection::vec(-1.0f32..1.0, dim);
            (Just(dim), prop::collection::vec((row.clone(), row, "\\PC{0,12}", 0u8..4), 1..30))
        }),
        part_rows in 1u64..12,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = MemoryWriter::create(dir.path(), model(dim)).unwrap().with_part_rows(part_rows);
        for (image, text, caption, path) in &rows {
            writer.push(&format!("{path}"), caption, image, text).unwrap();
        }
        let manifest = writer.finish().unwrap();
        let distinct: std::collections::HashSet<u8> = rows.iter().map(|r| r.3).collect();
        prop_assert_eq!(manifest.images, distinct.len() as u64);

        let memory = Memory::open(dir.path()).unwrap();
        prop_assert_eq!(memory.len(), rows.len() as u64);
        let mut out = vec![0.0; dim];
        for (id, (image, text, caption, path)) in rows.iter().enumerate() {
            prop_assert_eq!(memory.caption(id as u64).unwrap(), caption);
            prop_assert_eq!(memory.image_path(id as u64).unwrap(), path.to_string());
            for (modality, row) in [("image", image), ("text", text)] {
                match modality {
                    "image" => memory.image_embedding(id as u64, &mut out).unwrap(),
                    _ => memory.text_embedding(id as u64, &mut out).unwrap(),
                }
                for (&found, &given) in out.iter().zip(row) {
                    // Half a unit in the last of 11 bits, or half of the smallest subnormal.
                    prop_assert!((found - given).abs() <= (given.abs() / 2048.0).max(2.0f32.powi(-25)));
                    prop_assert_eq!(found, f16::from_f32_const(given).to_f32());
                }
            }
        }
    }
}
