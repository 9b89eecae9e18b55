//! Rows copied from other memories: parts have the bounds of one memory, whatever those of the others are.

use super::*;
use crate::store::check_part;

/// A memory of rows `rows` in parts of `part_rows`; three rows have one image.
fn memory_of(dir: &Path, rows: std::ops::Range<u64>, part_rows: u64) -> Memory {
    let mut writer = MemoryWriter::create(dir, model(3)).unwrap().with_part_rows(part_rows);
    for row in rows {
        let x = row as f32;
        writer
            .push(
                &format!("{}.jpg", row / 3),
                &format!("caption {}", row % 5),
                &[x, 0.5, 1.0],
                &[0.25, x, -1.0],
            )
            .unwrap();
    }
    writer.finish().unwrap();
    Memory::open(dir).unwrap()
}

fn copied(dir: &Path, from: &[Memory], images: Option<u64>, stop_after: Option<u64>) {
    let open = || MemoryWriter::open_for_copies(dir, model(3), images).unwrap().with_part_rows(4);
    let mut writer = open();
    if let Some(rows) = stop_after {
        writer.copy(&from[0], 0, 0..rows).unwrap();
        writer.checkpoint_now(Cursor::default()).unwrap();
        writer = {
            drop(writer);
            open()
        };
        assert_eq!(writer.pairs(), rows);
    }
    let mut before = 0;
    for memory in from {
        for (place, info) in memory.manifest().parts.iter().enumerate() {
            check_part(memory, place).unwrap();
            let done = writer.pairs().saturating_sub(before).min(info.rows);
            writer.copy(memory, place, done..info.rows).unwrap();
            before += info.rows;
        }
    }
    writer.finish().unwrap();
}

#[test]
fn copies_have_the_bytes_of_what_is_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    memory_of(&path("whole"), 0..23, 4);
    let from =
        [memory_of(&path("a"), 0..9, 4), memory_of(&path("b"), 9..10, 4), memory_of(&path("c"), 10..23, 100)];
    let bytes = |name: &str| -> Vec<(String, Vec<u8>)> {
        files(&path(name))
            .into_iter()
            .map(|file| (file.clone(), fs::read(path(name).join(file)).unwrap()))
            .collect()
    };
    for (name, images, stop_after) in [
        ("counted", None, None),
        ("given", Some(8), None),
        ("counted again", None, Some(3)),
        ("given again", Some(8), Some(2)),
    ] {
        copied(&path(name), &from, images, stop_after);
        assert!(bytes(name) == bytes("whole"), "{name}");
    }
}

#[test]
fn rows_of_another_model_are_refused_and_changed_files_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let from = memory_of(&dir.path().join("from"), 0..3, 4);
    let other = ModelIdentity::new("other", "1".repeat(64), 3);
    let mut writer = MemoryWriter::open_for_copies(dir.path().join("to"), other, None).unwrap();
    let error = writer.copy(&from, 0, 0..3).unwrap_err();
    assert!(matches!(error, MemoryError::Write(WriteError::OtherModel { .. })), "{error}");
    check_part(&from, 0).unwrap();
    let path = dir.path().join("from/lookup/lookup_0000.bin");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = check_part(&from, 0).unwrap_err();
    assert!(matches!(&error, MemoryError::Store(StoreError::Damaged { path: found, .. }) if *found == path));
}
