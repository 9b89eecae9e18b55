//! Verifying and repairing: whatever is damaged is found, and what is left is a memory again.

use super::resuming::bytes_of;
use super::*;

fn verified(dir: &Path) -> VerifyReport {
    verify(dir, &mut |_, _| {}).unwrap()
}

/// `small` with a further column.
fn with_column(dir: &Path) {
    small(dir);
    let other = ModelIdentity { name: "other".into(), sha256: "1".repeat(64), dim: 2 };
    let mut writer = ColumnWriter::open(dir, other, true).unwrap();
    for id in 0..10 {
        writer.push(Some(&[id as f32, 0.0]), &[0.0, id as f32]).unwrap();
    }
    writer.finish().unwrap();
}

fn cut(path: &Path, by: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

#[test]
fn an_untouched_memory_has_no_findings_and_is_not_changed_by_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    with_column(dir.path());
    let report = verified(dir.path());
    assert!(report.findings.is_empty() && !report.unfinished, "{:?}", report.findings);
    // 3 parts with 6 and with 4 files, and a list of what was skipped; the rows of `small` are no unit vectors.
    assert_eq!((report.files, report.unchecked, report.not_unit > 0), (31, 0, true));
    let before = bytes_of(dir.path());
    assert!(!repair(dir.path()).unwrap().changed());
    assert_eq!(bytes_of(dir.path()), before);
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    with_column(dir.path());
    for name in files(dir.path()).iter().filter(|n| *n != MANIFEST_FILE) {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let at = bad.len() * 2 / 3;
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let report = verified(dir.path());
        assert!(report.findings.iter().any(|f| f.path == path), "{name}: {:?}", report.findings);
        fs::write(&path, good).unwrap();
    }
    assert!(verified(dir.path()).findings.is_empty());
}

#[test]
fn every_flipped_bit_of_the_manifest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    with_column(dir.path());
    let path = dir.path().join(MANIFEST_FILE);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, bad).unwrap();
            assert!(Memory::open(dir.path()).is_err(), "bit {bit} of byte {at}");
            assert!(verify(dir.path(), &mut |_, _| {}).is_err(), "bit {bit} of byte {at}");
            assert!(repair(dir.path()).is_err(), "bit {bit} of byte {at}");
        }
    }
    fs::write(&path, good).unwrap();
    assert!(verified(dir.path()).findings.is_empty());
}

#[test]
fn derived_files_are_made_again_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    with_column(dir.path());
    let before = bytes_of(dir.path());
    let derived = |name: &str| name.contains("codes") || name.starts_with("lookup");
    for (i, name) in files(dir.path()).iter().filter(|n| derived(n)).enumerate() {
        let path = dir.path().join(name);
        if i % 2 == 0 { fs::remove_file(path).unwrap() } else { cut(&path, 3) }
    }
    let report = repair(dir.path()).unwrap();
    assert_eq!((report.rebuilt.len(), report.dropped), (3 * 5, 0));
    let mut after = bytes_of(dir.path());
    after.retain(|name, _| !name.starts_with(".xmore-set-aside"));
    assert_eq!(after, before);
}

#[test]
fn a_torn_tail_is_cut_to_whole_rows() {
    for (file, by, kept) in [
        // Parts have 4, 4 and 2 rows of 3 values.
        ("img_emb/img_emb_0002.npy", 1, 9),
        ("text_emb/text_emb_0002.npy", 6, 9),
        ("text_emb/text_emb_0002.npy", 7, 8),
        ("img_emb/img_emb_0002.npy", 100, 8),
    ] {
        let dir = tempfile::tempdir().unwrap();
        with_column(dir.path());
        cut(&dir.path().join(file), by);
        assert!(Memory::open(dir.path()).is_err());
        let report = repair(dir.path()).unwrap();
        assert_eq!(report.dropped, 10 - kept, "{file}: {:?}", report.notes);
        assert!(
            report.set_aside.is_some() && report.notes[0].contains(&file[file.len() - 12..]),
            "{:?}",
            report.notes
        );
        let memory = Memory::open(dir.path()).unwrap();
        assert_eq!((memory.len(), memory.manifest().images), (kept, kept.div_ceil(2)));
        let mut row = [0.0; 3];
        memory.image_embedding(kept - 1, &mut row).unwrap();
        assert_eq!(
            (row[0], memory.caption(kept - 1).unwrap()),
            ((kept - 1) as f32, &*format!("caption {}", kept - 1))
        );
        assert_eq!(memory.columns()[1].rows(), kept, "{:?}", report.notes);
        let report = verified(dir.path());
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn a_part_with_changed_content_is_dropped_and_the_others_keep_their_files() {
    let dir = tempfile::tempdir().unwrap();
    with_column(dir.path());
    let path = dir.path().join("img_emb/img_emb_0001.npy");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = repair(dir.path()).unwrap();
    assert_eq!(report.dropped, 4);
    let memory = Memory::open(dir.path()).unwrap();
    let captions: Vec<&str> = (0..6).map(|id| memory.caption(id).unwrap()).collect();
    assert_eq!(captions[3..], ["caption 3", "caption 8", "caption 9"]);
    let mut row = [0.0; 2];
    memory.columns()[1].image_embedding(4, &mut row).unwrap();
    assert_eq!(row, [8.0, 0.0]);
    assert!(verified(dir.path()).findings.is_empty());
    // The damaged file is still there.
    let aside = report.set_aside.unwrap().join("0/img_emb/img_emb_0001.npy");
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

#[test]
fn strings_are_taken_from_whichever_file_is_good() {
    for bad in ["metadata/metadata_0000.parquet", "lookup/lookup_0000.bin"] {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        let before = bytes_of(dir.path());
        cut(&dir.path().join(bad), 1);
        assert!(!verified(dir.path()).findings.is_empty());
        let report = repair(dir.path()).unwrap();
        assert_eq!((report.rebuilt.len(), report.dropped), (1, 0), "{bad}");
        assert_eq!(bytes_of(dir.path())[bad], before[bad]);
    }
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    fs::remove_file(dir.path().join("metadata/metadata_0000.parquet")).unwrap();
    fs::remove_file(dir.path().join("lookup/lookup_0000.bin")).unwrap();
    assert_eq!(repair(dir.path()).unwrap().dropped, 4);
    assert_eq!(Memory::open(dir.path()).unwrap().caption(0).unwrap(), "caption 4");
}

#[test]
fn a_damaged_column_ends_before_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    with_column(dir.path());
    cut(&dir.path().join("columns/other/text_emb/text_emb_0001.npy"), 1);
    let report = repair(dir.path()).unwrap();
    assert_eq!((report.columns_cut, report.dropped), (1, 0));
    let memory = Memory::open(dir.path()).unwrap();
    assert_eq!((memory.len(), memory.columns()[1].rows()), (10, 4));
    assert!(verified(dir.path()).findings.is_empty());
}

#[test]
fn a_memory_of_version_1_gets_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    copy_fixture("memory_v1", dir.path());
    let report = verified(dir.path());
    assert_eq!(
        (report.findings.len(), report.unchecked, report.not_unit),
        (0, 3, 0),
        "{:?}",
        report.findings
    );
    assert_eq!(repair(dir.path()).unwrap().rebuilt.len(), 3);
    let report = verified(dir.path());
    assert_eq!((report.findings.len(), report.unchecked, report.files), (0, 0, 6));
    assert_eq!(Memory::open(dir.path()).unwrap().manifest().format_version, 3);
}

#[test]
fn what_is_no_memory_is_neither_verified_nor_repaired() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify(dir.path(), &mut |_, _| {}), Err(MemoryError::NotAMemory { .. })));
    assert!(matches!(repair(dir.path()), Err(MemoryError::NotAMemory { .. })));
    drop(MemoryWriter::create(dir.path(), model(3)).unwrap());
    assert!(matches!(repair(dir.path()), Err(MemoryError::Incomplete { .. })));
    small(dir.path());
    fs::write(dir.path().join(MANIFEST_FILE), "{").unwrap();
    assert!(matches!(repair(dir.path()), Err(MemoryError::Manifest { .. })));
}
