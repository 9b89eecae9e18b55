//! A build that is left at any moment and taken up again ends with the bytes of an undisturbed one.

use std::collections::BTreeMap;

use super::*;
use crate::ingest::SkipKind;

/// Everything below `dir` but the lock: path → bytes.
pub(super) fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    files(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

/// Row `i` of an endless source in which captions come again and every seventh thing is skipped.
fn step(writer: &mut MemoryWriter, i: u64) {
    if i % 7 == 3 {
        writer.skip(&format!("{i}.jpg"), SkipKind::BrokenImage, "broken, \"quoted\"").unwrap();
        return;
    }
    let caption = format!("caption {}", i % 5);
    let text = match writer.known_text(&caption).unwrap() {
        Some(text) => text,
        None => vec![0.6, (i % 5) as f32 / 7.0, 0.8],
    };
    writer.push(&format!("{}.jpg", i / 2), &caption, &[1.0, i as f32, 0.0], &text).unwrap();
}

fn cursor(consumed: u64) -> Cursor {
    Cursor { consumed, digest: format!("of {consumed}"), truncated: consumed / 4 }
}

/// Goes on to step `end`, with a checkpoint every third step.
fn go_on(writer: &mut MemoryWriter, end: u64) {
    for i in writer.cursor().consumed..end {
        step(writer, i);
        if i % 3 == 2 {
            writer.checkpoint(cursor(i + 1)).unwrap();
        }
    }
}

fn open(dir: &Path, mode: Mode) -> MemoryWriter {
    let mut writer = MemoryWriter::open(dir, model(3), mode)
        .unwrap()
        .with_part_rows(4)
        .with_checkpoint_every(Default::default());
    // The list of what is skipped is made anew.
    for i in (0..writer.cursor().consumed).filter(|i| i % 7 == 3) {
        step(&mut writer, i);
    }
    writer
}

fn finish(mut writer: MemoryWriter, end: u64) -> Manifest {
    writer.checkpoint_now(cursor(end)).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_build_taken_up_at_any_step_has_the_same_bytes() {
    const END: u64 = 20;
    let undisturbed = tempfile::tempdir().unwrap();
    let mut writer = open(undisturbed.path(), Mode::Create);
    go_on(&mut writer, END);
    let manifest = finish(writer, END);
    assert_eq!((manifest.pairs, manifest.skipped, manifest.truncated), (17, 3, 5));
    let expected = bytes_of(undisturbed.path());
    let texts: Vec<f32> = {
        let memory = Memory::open(undisturbed.path()).unwrap();
        let mut row = [0.0; 3];
        (0..17).map(|id| memory.text_embedding(id, &mut row).map(|()| row[1]).unwrap()).collect()
    };
    assert_eq!(texts[0], texts[4], "row 4 is step 5, whose caption is that of step 0");

    for first in 0..=END {
        for second in [first, (first + 5).min(END)] {
            let dir = tempfile::tempdir().unwrap();
            for stop in [first, second] {
                let mut writer = open(dir.path(), Mode::Create);
                let at = writer.cursor().consumed;
                assert!(at <= stop && stop - at < stop + 1, "{at} {stop}");
                go_on(&mut writer, stop.max(at));
            }
            let mut writer = open(dir.path(), Mode::Create);
            go_on(&mut writer, END);
            assert_eq!(finish(writer, END), manifest);
            assert_eq!(bytes_of(dir.path()), expected, "stopped at {first} and {second}");
        }
    }
}

#[test]
fn rows_behind_the_last_checkpoint_are_forgotten_even_when_their_part_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), Mode::Create).with_checkpoint_every(std::time::Duration::MAX);
    (0..2).for_each(|i| step(&mut writer, i));
    writer.checkpoint_now(cursor(2)).unwrap();
    (2..12).for_each(|i| step(&mut writer, i));
    drop(writer);
    let writer = open(dir.path(), Mode::Create);
    assert_eq!((writer.cursor(), writer.pairs()), (&cursor(2), 2));
    assert!(writer.skipped().is_empty());
    drop(writer);
    // The files of later parts are gone.
    assert!(files(dir.path()).iter().all(|f| !f.contains("0001")), "{:?}", files(dir.path()));
}

#[test]
fn appending_adds_parts_and_leaves_those_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), Mode::Create);
    go_on(&mut writer, 6);
    finish(writer, 6);
    let before = bytes_of(dir.path());
    let reader = Memory::open(dir.path()).unwrap();

    let mut writer = open(dir.path(), Mode::Append);
    // A caption of the memory is known, with its stored bits.
    let mut stored = [0.0; 3];
    reader.text_embedding(1, &mut stored).unwrap();
    assert_eq!(writer.known_text("caption 1").unwrap().unwrap(), stored);
    go_on(&mut writer, 9);
    drop(writer);
    assert_eq!(Memory::open(dir.path()).unwrap().len(), 5, "what is not finished is not seen");
    let mut writer = open(dir.path(), Mode::Append);
    assert_eq!(writer.cursor().consumed, 9);
    go_on(&mut writer, 12);
    let manifest = finish(writer, 12);

    assert_eq!((manifest.pairs, manifest.skipped, manifest.sources.len()), (5 + 10, 1 + 2, 2));
    assert_eq!(manifest.parts.iter().map(|p| p.rows).collect::<Vec<_>>(), [4, 1, 4, 4, 2]);
    let after = bytes_of(dir.path());
    for (name, bytes) in
        before.iter().filter(|(name, _)| ![MANIFEST_FILE, MANIFEST_COPY].contains(&name.as_str()))
    {
        assert_eq!(after.get(name), Some(bytes), "{name}");
    }
    assert!(after.contains_key("skipped/skipped_0001.csv"));
    let memory = Memory::open(dir.path()).unwrap();
    assert_eq!(memory.caption(5).unwrap(), "caption 0");
    assert_eq!(reader.len(), 5, "one opened before sees what it saw");
    assert_eq!(reader.caption(4).unwrap(), memory.caption(4).unwrap());
}

#[test]
fn a_crash_while_parts_are_put_in_place_is_finished_by_the_next_writer() {
    for mode in [Mode::Overwrite, Mode::Append] {
        let build = |dir: &Path| {
            let mut writer = open(dir, Mode::Create);
            go_on(&mut writer, 6);
            finish(writer, 6);
        };
        let undisturbed = tempfile::tempdir().unwrap();
        build(undisturbed.path());
        let mut writer = open(undisturbed.path(), mode);
        go_on(&mut writer, 10);
        finish(writer, 10);
        let expected = bytes_of(undisturbed.path());

        // The moves are done one by one; each number of them may be the last.
        for moved in 0..=7 {
            let dir = tempfile::tempdir().unwrap();
            build(dir.path());
            let mut writer = open(dir.path(), mode);
            go_on(&mut writer, 10);
            publish::stop_after(Some(moved));
            writer.checkpoint_now(cursor(10)).unwrap();
            let stopped = writer.finish().is_err();
            publish::stop_after(None);
            assert!(stopped, "{moved}");
            // The next writer, whatever it wants, first finishes.
            let refused = MemoryWriter::open(dir.path(), model(3), Mode::Create).err().unwrap();
            assert!(matches!(refused, MemoryError::Write(WriteError::AlreadyExists { .. })), "{refused}");
            assert_eq!(bytes_of(dir.path()), expected, "{mode:?} after {moved} moves");
        }
    }
}

#[test]
fn a_staging_folder_that_was_being_removed_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), Mode::Create);
    go_on(&mut writer, 6);
    finish(writer, 6);
    let building = dir.path().join(BUILDING_DIR);
    fs::create_dir_all(building.join("img_emb")).unwrap();
    assert!(!finish_interrupted(dir.path()).unwrap());
    assert!(!building.exists());
    // One with a checkpoint is work that goes on.
    drop(open(dir.path(), Mode::Append));
    assert!(!finish_interrupted(dir.path()).unwrap());
    assert!(building.exists());
}

#[test]
fn what_another_build_left_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), Mode::Create);
    go_on(&mut writer, 6);
    drop(writer);
    let other = ModelIdentity { name: "other".into(), ..model(5) };
    let error = MemoryWriter::open(dir.path(), other.clone(), Mode::Create).err().unwrap();
    assert!(error.to_string().contains("unfinished build with model test"), "{error}");
    let writer = MemoryWriter::open(dir.path(), other.clone(), Mode::Overwrite).unwrap();
    assert_eq!(writer.cursor(), &Cursor::default());
    let mut writer = writer;
    writer.push("a.jpg", "a", &[0.0; 5], &[0.0; 5]).unwrap();
    writer.finish().unwrap();
    let error = MemoryWriter::open(dir.path(), model(3), Mode::Append).err().unwrap();
    assert!(matches!(error, MemoryError::Write(WriteError::OtherModel { .. })), "{error}");
    let error = MemoryWriter::open(dir.path().join("gone"), model(3), Mode::Append).err().unwrap();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn a_damaged_checkpoint_starts_the_build_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), Mode::Create);
    go_on(&mut writer, 6);
    drop(writer);
    fs::write(dir.path().join(BUILDING_DIR).join("checkpoint.json"), "{\"format_version\": 1").unwrap();
    assert_eq!(open(dir.path(), Mode::Create).cursor(), &Cursor::default());
}

#[test]
fn what_changed_since_a_build_was_left_is_not_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut writer = open(dir.path(), Mode::Create);
        go_on(&mut writer, 7);
        writer.checkpoint_now(cursor(7)).unwrap();
    };
    start();
    let building = dir.path().join(BUILDING_DIR);
    // Six rows: a part of four, and two in the one that is open.
    for file in [
        "img_emb/img_emb_0000.npy",
        "lookup/lookup_0000.bin",
        "img_emb/img_emb_0001.npy.tmp",
        "text_emb/text_emb_0001.npy.tmp",
        "metadata/strings_0001.journal",
    ] {
        let path = building.join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, bad).unwrap();
        let error = MemoryWriter::open(dir.path(), model(3), Mode::Create).err().unwrap();
        assert!(
            matches!(&error, MemoryError::Write(WriteError::DamagedBuild { file, .. }) if *file == path),
            "{file}: {error}"
        );
        fs::write(&path, good).unwrap();
    }
    assert_eq!(open(dir.path(), Mode::Create).cursor(), &cursor(7));
    // Overwriting discards it.
    fs::remove_dir_all(dir.path()).unwrap();
    let mut writer = open(dir.path(), Mode::Overwrite);
    go_on(&mut writer, 7);
    writer.checkpoint_now(cursor(7)).unwrap();
    drop(writer);
    fs::write(building.join("lookup/lookup_0000.bin"), "other").unwrap();
    assert_eq!(open(dir.path(), Mode::Overwrite).cursor(), &Cursor::default());
}

fn list(dir: &Path, number: usize) -> String {
    fs::read_to_string(skipped_path(dir, number)).unwrap()
}

#[test]
fn lists_of_skipped_things_belong_to_their_sources() {
    let dir = tempfile::tempdir().unwrap();
    let mut row = 0.0;
    let mut run = |from: &str, entry, mode, skipped: &[&str]| {
        let mut writer = open(dir.path(), mode);
        writer.begin_source(&[from.to_owned()], entry).unwrap();
        for name in skipped {
            writer.skip(name, SkipKind::BrokenImage, "broken").unwrap();
        }
        row += 1.0;
        writer.push(&format!("{row}.jpg"), "a", &[row, 0.0, 0.0], &[0.0; 3]).unwrap();
        finish(writer, 1)
    };
    run("first", None, Mode::Create, &["0.jpg", "1.jpg"]);
    let manifest = run("second", None, Mode::Append, &["2.jpg"]);
    assert_eq!((manifest.skipped, manifest.sources.len()), (3, 2));
    assert_eq!(
        list(dir.path(), 0),
        "path,reason,kind\n0.jpg,broken,broken-image\n1.jpg,broken,broken-image\n"
    );
    assert_eq!(list(dir.path(), 1), "path,reason,kind\n2.jpg,broken,broken-image\n");
    // The first ones again: what they skip now takes the place of what they skipped.
    let manifest = run("first", Some(0), Mode::Append, &["1.jpg"]);
    assert_eq!((manifest.skipped, manifest.sources.len(), manifest.pairs), (2, 2, 3));
    let source = &manifest.sources[0];
    assert_eq!((source.pairs, source.first_part, source.failed()), (2, 0, 1));
    assert_eq!(list(dir.path(), 0), "path,reason,kind\n1.jpg,broken,broken-image\n");
    let manifest = run("first", Some(0), Mode::Append, &[]);
    assert_eq!((manifest.skipped, manifest.sources[0].skipped), (1, 0));
    assert_eq!(list(dir.path(), 0), "path,reason,kind\n");
    assert!(verify(dir.path(), &mut |_, _| {}).unwrap().findings.is_empty());
    fs::write(skipped_path(dir.path(), 1), "path,reason,kind\n").unwrap();
    assert_eq!(verify(dir.path(), &mut |_, _| {}).unwrap().findings.len(), 1);
}

#[test]
fn a_memory_without_a_pair_is_never_put_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let memory = dir.path().join("memory");
    let mut writer = open(&memory, Mode::Create);
    writer.skip("0.jpg", SkipKind::UnreadableImage, "gone").unwrap();
    let refused = writer.finish().err().unwrap();
    assert!(matches!(refused, MemoryError::Write(WriteError::NoPairs { .. })), "{refused}");
    assert!(!memory.join(MANIFEST_FILE).exists());
    open(&memory, Mode::Create).discard().unwrap();
    assert!(!memory.exists(), "nothing is left");

    // Nor does it take the place of another.
    let mut writer = open(&memory, Mode::Create);
    go_on(&mut writer, 6);
    finish(writer, 6);
    let before = bytes_of(&memory);
    let writer = open(&memory, Mode::Overwrite);
    assert!(matches!(writer.finish(), Err(MemoryError::Write(WriteError::NoPairs { .. }))));
    open(&memory, Mode::Overwrite).discard().unwrap();
    assert_eq!(bytes_of(&memory), before);
}

#[test]
fn the_pairs_of_a_writer_are_those_of_its_memory_and_those_it_has_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), Mode::Create);
    go_on(&mut writer, 3);
    finish(writer, 3);
    let mut writer = open(dir.path(), Mode::Append);
    (4..10).for_each(|i| step(&mut writer, i));
    writer.checkpoint_now(cursor(10)).unwrap();
    drop(writer);
    let mut writer = open(dir.path(), Mode::Append);
    let mut keys = PairKeys::default();
    let [there, written] = writer.known_pairs(&mut keys, KnownBy { pairs: true, rows: true }).unwrap();
    assert_eq!((there.pairs.len(), there.rows.len()), (3, 3));
    assert_eq!((written.pairs.len(), written.rows.len()), (6, 6), "of a closed part and of the open one");
    for i in 4..10u64 {
        let (path, caption) = (format!("{}.jpg", i / 2), format!("caption {}", i % 5));
        assert!(written.pairs.contains(&keys.of_pair(&path, &caption)), "{i}");
        assert!(written.rows.contains(&keys.of_row(&path, &caption, &[1.0, i as f32, 0.0])), "{i}");
    }
    assert!(there.rows.contains(&keys.of_row("0.jpg", "caption 1", &[1.0, 1.0, 0.0])));
    assert!(!there.rows.contains(&keys.of_row("0.jpg", "caption 1", &[1.0, 2.0, 0.0])));
}
