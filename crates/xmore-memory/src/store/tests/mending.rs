//! Verifying and repairing: whatever is damaged is found, and what is left is a memory again.

use super::resuming::bytes_of;
use super::*;

fn verified(dir: &Path) -> VerifyReport {
    verify(dir, &mut |_, _| {}).unwrap()
}

/// `small` with a further embedding set.
fn with_embedding_set(dir: &Path) {
    small(dir);
    let other = ModelIdentity::new("other", "1".repeat(64), 2);
    let mut writer = EmbeddingSetWriter::open(dir, other, true).unwrap();
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
    with_embedding_set(dir.path());
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
    with_embedding_set(dir.path());
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
fn a_flipped_bit_anywhere_in_the_manifest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    with_embedding_set(dir.path());
    let path = dir.path().join(MANIFEST_FILE);
    let good = fs::read(&path).unwrap();
    // The unit test of `sealed` flips all bits of each byte.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, bad).unwrap();
        assert!(Memory::open(dir.path()).is_err(), "byte {at}");
        if at % 16 < 8 {
            assert!(verify(dir.path(), &mut |_, _| {}).is_err(), "byte {at}");
            // The copy is the good one.
            let report = repair(dir.path()).unwrap();
            assert_eq!((report.rebuilt.len(), fs::read(&path).unwrap() == good), (1, true), "byte {at}");
        }
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(repair(dir.path()).unwrap().rebuilt, std::slice::from_ref(&path));
    assert_eq!(fs::read(&path).unwrap(), good);
    let copy = dir.path().join(MANIFEST_COPY);
    flip(&copy);
    assert_eq!(
        verified(dir.path()).findings.iter().map(|f| f.path.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&copy)
    );
    assert_eq!(repair(dir.path()).unwrap().rebuilt, std::slice::from_ref(&copy));
    assert_eq!(fs::read(&copy).unwrap(), good);
    flip(&copy);
    flip(&path);
    assert!(matches!(repair(dir.path()), Err(MemoryError::Store(StoreError::Manifest { .. }))));
    for manifest in [path, copy] {
        fs::write(manifest, &good).unwrap();
    }
    assert!(verified(dir.path()).findings.is_empty());
}

#[test]
fn derived_files_are_made_again_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    with_embedding_set(dir.path());
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
        with_embedding_set(dir.path());
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
        assert_eq!(memory.embedding_sets()[1].rows(), kept, "{:?}", report.notes);
        let report = verified(dir.path());
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn a_part_with_changed_content_is_dropped_and_the_others_keep_their_files() {
    let dir = tempfile::tempdir().unwrap();
    with_embedding_set(dir.path());
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
    memory.embedding_sets()[1].image_embedding(4, &mut row).unwrap();
    assert_eq!(row, [8.0, 0.0]);
    assert!(verified(dir.path()).findings.is_empty());
    // The damaged file is still there.
    let aside = report.set_aside.unwrap().join("0/img_emb/img_emb_0001.npy");
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

/// Flips a bit of the last byte of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

fn captions(dir: &Path) -> Vec<String> {
    let memory = Memory::open(dir).unwrap();
    (0..memory.len()).map(|id| memory.caption(id).unwrap().to_owned()).collect()
}

#[test]
fn a_repair_that_ends_while_it_puts_files_in_place_is_finished_by_the_next_writer() {
    let damaged = |dir: &Path| {
        with_embedding_set(dir);
        flip(&dir.join("img_emb/img_emb_0000.npy"));
        cut(&dir.join("text_emb/text_emb_0002.npy"), 1);
        flip(&dir.join("columns/other/text_codes/text_codes_0001.bin"));
        flip(&dir.join("skipped/skipped_0000.csv"));
    };
    let undisturbed = tempfile::tempdir().unwrap();
    damaged(undisturbed.path());
    assert_eq!(repair(undisturbed.path()).unwrap().dropped, 5);
    let expected = bytes_of(undisturbed.path());
    assert_eq!(
        captions(undisturbed.path()),
        ["caption 4", "caption 5", "caption 6", "caption 7", "caption 8"]
    );
    let report = verified(undisturbed.path());
    assert_eq!((report.findings, report.pending), (vec![], false));
    assert_eq!(
        report.set_aside.iter().map(|taken| (taken.part, taken.rows)).collect::<Vec<_>>(),
        [(0, 4), (2, 1)]
    );
    assert!(report.set_aside_files.0 > 6, "{:?}", report.set_aside_files);

    let mut steps = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        damaged(dir.path());
        publish::stop_after(Some(steps));
        let stopped = repair(dir.path()).is_err();
        publish::stop_after(None);
        if !stopped {
            break;
        }
        steps += 1;
        assert!(verified(dir.path()).pending);
        // The next writer finishes it, here one that has nothing else to do.
        assert!(finish_interrupted(dir.path()).unwrap());
        assert_eq!(bytes_of(dir.path()), expected, "after {steps} steps");
        assert!(!repair(dir.path()).unwrap().changed());
    }
    assert!(steps > 15, "{steps}");
}

#[test]
fn a_repair_that_ends_before_it_is_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    with_embedding_set(dir.path());
    let before = bytes_of(dir.path());
    let staging = dir.path().join(layout::REPAIRING_DIR);
    fs::create_dir_all(staging.join("img_emb")).unwrap();
    fs::write(staging.join("img_emb/img_emb_0000.npy"), "half of it").unwrap();
    assert!(!repair(dir.path()).unwrap().changed());
    assert!(!staging.exists());
    assert_eq!(bytes_of(dir.path()), before);
}

#[test]
fn what_repairs_set_aside_is_kept_under_its_own_name_and_what_is_added_later_takes_no_other_name() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let append = |i: u32| {
        let mut writer = MemoryWriter::open(dir.path(), model(3), Mode::Append).unwrap();
        writer.push("more.jpg", &format!("more {i}"), &[1.0, 0.0, 0.0], &[1.0, 0.0, 0.0]).unwrap();
        writer.checkpoint_now(Cursor { digest: format!("more {i}"), ..Cursor::default() }).unwrap();
        writer.finish().unwrap();
    };
    let file = dir.path().join("img_emb/img_emb_0001.npy");
    flip(&file);
    let first = fs::read(&file).unwrap();
    repair(dir.path()).unwrap();
    append(1);
    let numbers = |dir: &Path| -> Vec<usize> {
        Memory::open(dir).unwrap().manifest().parts.iter().map(|part| part.number).collect()
    };
    assert_eq!(numbers(dir.path()), [0, 2, 3]);
    // The last part goes, and another one gets its number.
    for round in 1..3 {
        let file = dir.path().join("text_emb/text_emb_0003.npy");
        flip(&file);
        let bad = fs::read(&file).unwrap();
        assert_eq!(repair(dir.path()).unwrap().dropped, 1);
        let aside = dir.path().join(format!(".xmore-set-aside/{round}/text_emb/text_emb_0003.npy"));
        assert_eq!(fs::read(aside).unwrap(), bad);
        append(round + 1);
    }
    let aside = dir.path().join(".xmore-set-aside/0/img_emb/img_emb_0001.npy");
    assert_eq!(fs::read(aside).unwrap(), first);
    assert_eq!(captions(dir.path())[5..], ["caption 9", "more 3"]);
    let report = verified(dir.path());
    assert_eq!((report.findings, report.set_aside.len()), (vec![], 3));
}

#[test]
fn a_source_that_lost_pairs_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..2 {
        let mode = if i == 0 { Mode::Create } else { Mode::Append };
        let mut writer = MemoryWriter::open(dir.path(), model(3), mode).unwrap();
        writer.push("a.jpg", "a caption", &[1.0, 0.0, 0.0], &[1.0, 0.0, 0.0]).unwrap();
        writer.checkpoint_now(Cursor { digest: format!("source {i}"), ..Cursor::default() }).unwrap();
        writer.finish().unwrap();
    }
    flip(&dir.path().join("img_emb/img_emb_0001.npy"));
    repair(dir.path()).unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    let digests: Vec<&str> = memory.manifest().sources.iter().map(|source| source.digest.as_str()).collect();
    assert_eq!(digests, ["source 0", ""]);
}

#[test]
fn files_that_the_manifest_does_not_have_are_found_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    with_embedding_set(dir.path());
    let strays = ["img_emb/img_emb_0003.npy", "columns/gone/text_emb/text_emb_0000.npy"];
    for stray in strays {
        let path = dir.path().join(stray);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, stray).unwrap();
    }
    // Not named as a file of a memory.
    fs::write(dir.path().join("img_emb/notes.txt"), "mine").unwrap();
    let found: Vec<PathBuf> = verified(dir.path()).findings.into_iter().map(|finding| finding.path).collect();
    assert_eq!(found, strays.map(|stray| dir.path().join(stray)));
    let report = repair(dir.path()).unwrap();
    assert_eq!((report.dropped, report.notes.len()), (0, 2));
    for stray in strays {
        let aside = dir.path().join(".xmore-set-aside/0").join(stray);
        assert_eq!(fs::read_to_string(aside).unwrap(), stray);
    }
    assert_eq!(verified(dir.path()).findings, []);
    assert!(dir.path().join("img_emb/notes.txt").exists());
}

#[test]
fn a_damaged_embedding_set_does_not_become_official_where_its_part_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    with_embedding_set(dir.path());
    cut(&dir.path().join("img_emb/img_emb_0002.npy"), 1);
    let path = dir.path().join("columns/other/img_emb/img_emb_0002.npy");
    let mut bytes = fs::read(&path).unwrap();
    bytes[129] ^= 1;
    fs::write(&path, bytes).unwrap();
    let report = repair(dir.path()).unwrap();
    assert_eq!((report.dropped, report.embedding_sets_cut), (1, 1), "{:?}", report.notes);
    let memory = Memory::open(dir.path()).unwrap();
    assert_eq!((memory.len(), memory.embedding_sets()[1].rows()), (9, 8));
    assert_eq!(verified(dir.path()).findings, []);
}

#[test]
fn a_damaged_journal_or_new_manifest_replaces_nothing() {
    for file in [MANIFEST_FILE, "publish.json"] {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        let mut writer = MemoryWriter::open(dir.path(), model(3), Mode::Overwrite).unwrap();
        writer.push("new.jpg", "new", &[1.0, 0.0, 0.0], &[1.0, 0.0, 0.0]).unwrap();
        publish::stop_after(Some(0));
        assert!(writer.finish().is_err());
        publish::stop_after(None);
        let path = dir.path().join(BUILDING_DIR).join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(&path, bad).unwrap();
        let error = finish_interrupted(dir.path()).unwrap_err();
        assert!(matches!(error, MemoryError::Store(StoreError::Manifest { .. })), "{error}");
        assert_is_small(&Memory::open(dir.path()).unwrap());
        fs::write(&path, good).unwrap();
        assert!(finish_interrupted(dir.path()).unwrap());
        assert_eq!(captions(dir.path()), ["new"]);
    }
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
    assert_eq!(Memory::open(dir.path()).unwrap().manifest().format_version, 5);
}

#[test]
fn what_is_no_memory_is_neither_verified_nor_repaired() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        verify(dir.path(), &mut |_, _| {}),
        Err(MemoryError::Store(StoreError::NotAMemory { .. }))
    ));
    assert!(matches!(repair(dir.path()), Err(MemoryError::Store(StoreError::NotAMemory { .. }))));
    drop(MemoryWriter::create(dir.path(), model(3)).unwrap());
    assert!(matches!(repair(dir.path()), Err(MemoryError::Store(StoreError::Incomplete { .. }))));
    small(dir.path());
    for name in [MANIFEST_FILE, MANIFEST_COPY] {
        fs::write(dir.path().join(name), "{").unwrap();
    }
    assert!(matches!(repair(dir.path()), Err(MemoryError::Store(StoreError::Manifest { .. }))));
}
