//! Embedding sets of which a repair took a part out: what is left is not searched, and completed it has the bytes of an undisturbed embedding set.

use std::collections::BTreeMap;

use super::resuming::bytes_of;
use super::*;

/// No pair's number.
const NONE: u64 = 99;

fn other() -> ModelIdentity {
    ModelIdentity::new("other", "1".repeat(64), 2)
}

fn open(dir: &Path, images: bool) -> EmbeddingSetWriter {
    EmbeddingSetWriter::open(dir, other(), images).unwrap().with_checkpoint_every(Default::default())
}

/// The number in a pair's caption, which stays when its id changes.
fn number(memory: &Memory, id: u64) -> u64 {
    memory.caption(id).unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Writes rows until so many are done; the image of the pair with the number `away` cannot be read.
fn go_on(writer: &mut EmbeddingSetWriter, rows: u64, images: bool, away: u64) {
    while writer.done() < rows {
        writer.keep_rows().unwrap();
        let Some(id) = writer.next_row() else { return };
        let number = number(writer.memory(), id);
        let image = [1.0, number as f32];
        let image = (images && number != away).then_some(&image[..]);
        writer.push(image, &[number as f32, 1.0]).unwrap();
        writer.checkpoint().unwrap();
    }
}

/// Writes all rows that an embedding set lacks.
fn complete(dir: &Path, images: bool, away: u64) -> Manifest {
    let mut writer = open(dir, images);
    go_on(&mut writer, u64::MAX, images, away);
    writer.finish().unwrap()
}

/// Three more pairs, in a part of their own.
fn append(dir: &Path) {
    let mut writer = MemoryWriter::open(dir, model(3), Mode::Append).unwrap();
    for number in 20..23 {
        writer.push("more.jpg", &format!("caption {number}"), &[0.0; 3], &[0.0; 3]).unwrap();
    }
    writer.checkpoint_now(Cursor { consumed: 3, digest: "more".into(), truncated: 0 }).unwrap();
    writer.finish().unwrap();
}

/// Flips a bit of the last value of a file.
fn flip(dir: &Path, file: &str) {
    let path = dir.join(file);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The files of the embedding set, and what the manifest says of it.
fn files_and_info(dir: &Path) -> (BTreeMap<String, Vec<u8>>, EmbeddingSetInfo) {
    let mut files = bytes_of(dir);
    files.retain(|name, _| name.starts_with("columns/"));
    (files, Memory::open(dir).unwrap().manifest().embedding_sets[0].clone())
}

/// Checks that the embedding set has these rows, each with its own embeddings, and that the others are told to be lacking.
fn assert_has_rows(dir: &Path, images: bool, rows: &[u64]) {
    let memory = Memory::open(dir).unwrap();
    let set = memory.embedding_set(&other()).unwrap();
    assert_eq!(set.rows(), rows.len() as u64);
    let mut row = [0.0; 2];
    for id in 0..memory.len() {
        let found = set.text_embedding(id, &mut row);
        if !rows.contains(&id) {
            let error = found.unwrap_err();
            let counts = (rows.len() as u64, memory.len());
            assert!(
                matches!(error, MemoryError::Store(StoreError::NoEmbeddings { have, len, .. }) if (have, len) == counts),
                "{error}"
            );
            continue;
        }
        found.unwrap();
        assert_eq!(row, [number(&memory, id) as f32, 1.0], "{id}");
        if images {
            set.image_embedding(id, &mut row).unwrap();
            assert!(row[0].is_nan() || row == [1.0, number(&memory, id) as f32], "{id}: {row:?}");
        }
    }
    assert!(matches!(
        set.text_embedding(memory.len(), &mut row),
        Err(MemoryError::Store(StoreError::NoSuchPair { .. }))
    ));
    let is_whole = rows.len() as u64 == memory.len();
    assert_eq!(set.search(Modality::Text, &[1.0, 0.0], 1).is_ok(), is_whole);
    assert_eq!(set.require(Modality::Image).is_ok(), is_whole && images);
    let report = verify(dir, &mut |_, _| {}).unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn the_part_alone_is_taken_out_and_made_again_with_the_same_bytes() {
    // Parts have 4, 4 and 2 rows.
    for (images, file, part) in [
        (true, "img_emb/img_emb_0000.npy", 0..4),
        (true, "text_emb/text_emb_0001.npy", 4..8),
        (false, "text_emb/text_emb_0001.npy", 4..8),
        (true, "img_emb/img_emb_0002.npy", 8..10),
    ] {
        for stop in [0, 1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            small(dir);
            complete(dir, images, 6);
            let (files, info) = files_and_info(dir);
            flip(dir, &format!("columns/other/{file}"));
            let report = repair(dir).unwrap();
            assert_eq!((report.embedding_sets_cut, report.dropped, report.notes.len()), (1, 0, 1));
            let (left, _) = files_and_info(dir);
            assert_eq!(left.len(), files.len() / 3 * 2, "{:?}", left.keys());
            assert!(left.iter().all(|(name, bytes)| files[name] == *bytes));
            let rows: Vec<u64> = (0..10).filter(|id| !part.contains(id)).collect();
            assert_has_rows(dir, images, &rows);
            assert!(!repair(dir).unwrap().changed());

            let mut writer = open(dir, images);
            assert_eq!((writer.next_row(), writer.total()), (Some(part.start), part.end - part.start));
            assert_eq!(writer.rows_to_push().collect::<Vec<_>>(), part.clone().collect::<Vec<_>>());
            go_on(&mut writer, stop, images, 6);
            drop(writer);
            complete(dir, images, 6);
            assert_eq!(files_and_info(dir), (files, info), "{file}, stopped after {stop} rows");
            assert_has_rows(dir, images, &(0..10).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_embedding_set_with_a_gap_follows_its_memory_as_that_grows_and_loses_rows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small(dir);
    let unreadable = |dir: &Path| files_and_info(dir).1.unreadable;
    complete(dir, true, 2);
    flip(dir, "columns/other/text_emb/text_emb_0001.npy");
    repair(dir).unwrap();
    append(dir);
    assert_has_rows(dir, true, &[0, 1, 2, 3, 8, 9]);
    assert_eq!(unreadable(dir), 1);

    // The memory loses the first of its four parts, with its pair without an image, and the embedding set's places move up.
    flip(dir, "img_emb/img_emb_0000.npy");
    assert_eq!(repair(dir).unwrap().dropped, 4);
    assert_has_rows(dir, true, &[4, 5]);
    assert_eq!(unreadable(dir), 0);

    // Of the part that is left to the embedding set, one row is cut off.
    let torn = dir.join("img_emb/img_emb_0002.npy");
    File::options().write(true).open(&torn).unwrap().set_len(fs::metadata(&torn).unwrap().len() - 1).unwrap();
    assert_eq!(repair(dir).unwrap().dropped, 1);
    assert_has_rows(dir, true, &[4]);

    // The part is damaged in the embedding set too: none is left.
    flip(dir, "columns/other/img_emb/img_emb_0002.npy");
    assert_eq!(repair(dir).unwrap().embedding_sets_cut, 1);
    assert_eq!(files_and_info(dir).1.parts, []);
    assert_has_rows(dir, true, &[]);

    let manifest = complete(dir, true, 21);
    assert_eq!((manifest.embedding_sets[0].parts.len(), manifest.embedding_sets[0].unreadable), (3, 1));
    assert_has_rows(dir, true, &(0..8).collect::<Vec<_>>());
    let mut writer = open(dir, true);
    writer.again(&[2]).unwrap();
    go_on(&mut writer, u64::MAX, true, NONE);
    assert_eq!(writer.finish().unwrap().embedding_sets[0].unreadable, 0);
    assert!(matches!(
        EmbeddingSetWriter::open(dir, other(), true),
        Err(MemoryError::Write(WriteError::EmbeddingSetExists { .. }))
    ));
}

#[test]
fn a_gap_new_rows_and_images_that_were_away_are_written_in_one_run() {
    let whole = tempfile::tempdir().unwrap();
    small(whole.path());
    append(whole.path());
    complete(whole.path(), true, NONE);
    let expected = files_and_info(whole.path());

    let before = || {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        complete(dir.path(), true, 9);
        flip(dir.path(), "columns/other/text_emb/text_emb_0000.npy");
        repair(dir.path()).unwrap();
        append(dir.path());
        dir
    };
    let begin = |dir: &Path| {
        let mut writer = open(dir, true);
        // Without a checkpoint it begins again.
        if writer.is_fresh() {
            assert_eq!(writer.unreadable().unwrap(), [(2, vec![9])]);
            writer.again(&[2]).unwrap();
        }
        assert_eq!(writer.total(), 2 + 4 + 3);
        writer
    };
    for stop in 0..=9 {
        let dir = before();
        go_on(&mut begin(dir.path()), stop, true, NONE);
        let mut writer = begin(dir.path());
        go_on(&mut writer, u64::MAX, true, NONE);
        writer.finish().unwrap();
        assert_eq!(files_and_info(dir.path()), expected, "stopped after {stop} rows");
    }
    // A crash while they are put in place is finished by the next writer; until then the gap stays.
    for moved in 0..=4 {
        let dir = before();
        let mut writer = begin(dir.path());
        go_on(&mut writer, u64::MAX, true, NONE);
        publish::stop_after(Some(moved));
        let stopped = writer.finish().is_err();
        publish::stop_after(None);
        assert!(stopped, "{moved}");
        assert_has_rows(dir.path(), true, &[4, 5, 6, 7, 8, 9]);
        assert!(finish_interrupted(dir.path()).unwrap());
        assert_eq!(files_and_info(dir.path()), expected, "{moved}");
    }
}
