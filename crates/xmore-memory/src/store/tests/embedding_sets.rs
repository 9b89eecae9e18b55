//! Further embedding sets: by another model, of all rows, resumable, and behind when the memory has grown.

use super::resuming::bytes_of;
use super::*;

fn other() -> ModelIdentity {
    ModelIdentity::new("ViT-L/14 other", "1".repeat(64), 2)
}

/// Writes rows up to `end`; the image of pair 6 cannot be read.
fn go_on(writer: &mut EmbeddingSetWriter, end: u64) {
    go_on_without(writer, end, 6);
}

/// The same without the image of pair `away`.
fn go_on_without(writer: &mut EmbeddingSetWriter, end: u64, away: u64) {
    while let Some(id) = writer.next_row().filter(|&id| id < end) {
        let caption = writer.memory().caption(id).unwrap().to_owned();
        writer.keep_rows().unwrap();
        if writer.next_row() != Some(id) {
            continue;
        }
        let known = writer.text_of_row(id).unwrap().or(writer.known_text(&caption).unwrap());
        let text = known.unwrap_or(vec![id as f32, 1.0]);
        let image = [1.0, id as f32];
        writer.push((id != away).then_some(&image), &text).unwrap();
        writer.checkpoint().unwrap();
    }
}

fn open(dir: &Path, images: bool) -> EmbeddingSetWriter {
    EmbeddingSetWriter::open(dir, other(), images).unwrap().with_checkpoint_every(Default::default())
}

fn append(dir: &Path, rows: u64) {
    let mut writer = MemoryWriter::open(dir, model(3), Mode::Append).unwrap();
    for i in 0..rows {
        writer.push("more.jpg", &format!("caption {i}"), &[0.0; 3], &[0.0; 3]).unwrap();
    }
    writer.checkpoint_now(Cursor { consumed: rows, digest: format!("{rows} more"), truncated: 0 }).unwrap();
    writer.finish().unwrap();
}

#[test]
fn an_embedding_set_taken_up_at_any_row_has_the_same_bytes() {
    let undisturbed = tempfile::tempdir().unwrap();
    small(undisturbed.path());
    let mut writer = open(undisturbed.path(), true);
    go_on(&mut writer, 10);
    let manifest = writer.finish().unwrap();
    assert_eq!(
        (manifest.embedding_sets[0].name.as_str(), manifest.embedding_sets[0].unreadable),
        ("ViT-L-14-other", 1)
    );
    let expected = bytes_of(undisturbed.path());
    for stop in 0..=10 {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        let mut writer = open(dir.path(), true);
        go_on(&mut writer, stop);
        drop(writer);
        let mut writer = open(dir.path(), true);
        assert_eq!(writer.next_row(), (stop < 10).then_some(stop));
        go_on(&mut writer, 10);
        writer.finish().unwrap();
        assert_eq!(bytes_of(dir.path()), expected, "stopped at {stop}");
    }

    let memory = Memory::open(undisturbed.path()).unwrap();
    assert_is_small(&memory);
    let set = memory.embedding_set(&other()).unwrap();
    assert_eq!((memory.embedding_sets().len(), set.dim(), set.rows()), (2, 2, 10));
    let mut row = [0.0; 2];
    set.text_embedding(9, &mut row).unwrap();
    assert_eq!(row, [9.0, 1.0]);
    set.image_embedding(6, &mut row).unwrap();
    assert!(row[0].is_nan());
    let hits = set.search(Modality::Image, &[0.0, 1.0], 20).unwrap().remove(0);
    assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [9, 8, 7, 5, 4, 3, 2, 1, 0], "6 is not found");
    assert!(verify(undisturbed.path(), &mut |_, _| {}).unwrap().findings.is_empty());
}

#[test]
fn an_embedding_set_that_is_behind_says_so_and_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let mut writer = open(dir.path(), false);
    go_on(&mut writer, 10);
    writer.finish().unwrap();
    append(dir.path(), 3);
    let memory = Memory::open(dir.path()).unwrap();
    let set = memory.embedding_set(&other()).unwrap();
    let message = set.search(Modality::Text, &[1.0, 0.0], 1).unwrap_err().to_string();
    assert!(message.contains("for 3 of its 13 rows"), "{message}");
    let message = set.require(Modality::Image).unwrap_err().to_string();
    assert!(message.contains("no image embeddings by model ViT-L/14 other"), "{message}");
    assert!(set.text_embedding(10, &mut [0.0; 2]).is_err());

    let mut writer = open(dir.path(), false);
    assert_eq!(writer.next_row(), Some(10));
    go_on(&mut writer, 13);
    let manifest = writer.finish().unwrap();
    assert_eq!((manifest.embedding_sets.len(), manifest.embedding_sets[0].parts.len()), (1, 4));
    let memory = Memory::open(dir.path()).unwrap();
    memory.embedding_set(&other()).unwrap().require(Modality::Text).unwrap();
}

#[test]
fn an_embedding_set_that_is_there_or_is_not_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let primary = EmbeddingSetWriter::open(dir.path(), model(3), true).err().unwrap();
    assert!(matches!(primary, MemoryError::Write(WriteError::EmbeddingSetExists { .. })), "{primary}");
    let mut writer = open(dir.path(), true);
    assert!(matches!(
        EmbeddingSetWriter::open(dir.path(), other(), true),
        Err(MemoryError::Write(WriteError::Busy { .. }))
    ));
    assert!(writer.push(None, &[f32::NAN, 0.0]).is_err());
    go_on_without(&mut writer, 9, 99);
    assert!(matches!(writer.finish(), Err(MemoryError::Store(StoreError::NoSuchPair { id: 9, .. }))));
    let mut writer = open(dir.path(), true);
    go_on_without(&mut writer, 10, 99);
    assert!(matches!(writer.push(None, &[0.0; 2]), Err(MemoryError::Store(StoreError::NoSuchPair { .. }))));
    writer.finish().unwrap();
    let again = EmbeddingSetWriter::open(dir.path(), other(), true).err().unwrap();
    assert!(matches!(again, MemoryError::Write(WriteError::EmbeddingSetExists { .. })), "{again}");
}

#[test]
fn overwriting_a_memory_removes_its_embedding_sets() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let mut writer = open(dir.path(), true);
    go_on(&mut writer, 10);
    writer.finish().unwrap();
    let mut writer = MemoryWriter::create_overwriting(dir.path(), model(3)).unwrap();
    writer.push("new.jpg", "new", &[0.0; 3], &[0.0; 3]).unwrap();
    writer.finish().unwrap();
    assert!(!dir.path().join(EMBEDDING_SETS_DIR).exists());
    assert_eq!(Memory::open(dir.path()).unwrap().embedding_sets().len(), 1);
}

#[test]
fn what_a_killed_writer_of_one_kind_completed_is_put_in_place_by_the_other_kind() {
    // An append was killed while its parts were put in place; an embedding set comes next.
    for moved in 0..=6 {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        let mut writer = MemoryWriter::open(dir.path(), model(3), Mode::Append).unwrap();
        writer.push("more.jpg", "one more", &[0.0; 3], &[0.0; 3]).unwrap();
        writer.checkpoint_now(Cursor::default()).unwrap();
        publish::stop_after(Some(moved));
        let stopped = writer.finish().is_err();
        publish::stop_after(None);
        assert!(stopped, "{moved}");
        let mut writer = open(dir.path(), true);
        assert_eq!(writer.memory().len(), 11, "{moved}");
        go_on(&mut writer, 11);
        writer.finish().unwrap();
        append(dir.path(), 2);
        let memory = Memory::open(dir.path()).unwrap();
        assert_eq!((memory.len(), memory.embedding_set(&other()).unwrap().rows()), (13, 11));
        assert!(verify(dir.path(), &mut |_, _| {}).unwrap().findings.is_empty());
    }
    // An embedding set was; an append, or an embedding set of captions, comes next.
    for moved in 0..=4 {
        for captions_next in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            small(dir.path());
            let mut writer = open(dir.path(), true);
            go_on(&mut writer, 10);
            publish::stop_after(Some(moved));
            let stopped = writer.finish().is_err();
            publish::stop_after(None);
            assert!(stopped, "{moved}");
            if captions_next {
                let refused = EmbeddingSetWriter::open(dir.path(), other(), false).err().unwrap();
                assert!(
                    matches!(refused, MemoryError::Write(WriteError::EmbeddingSetExists { .. })),
                    "{refused}"
                );
            } else {
                append(dir.path(), 2);
            }
            let memory = Memory::open(dir.path()).unwrap();
            let mut row = [0.0; 2];
            memory.embedding_set(&other()).unwrap().image_embedding(9, &mut row).unwrap();
            assert_eq!(row, [1.0, 9.0]);
            assert!(verify(dir.path(), &mut |_, _| {}).unwrap().findings.is_empty());
            assert!(!finish_interrupted(dir.path()).unwrap(), "nothing is left to be done");
        }
    }
}

#[test]
fn rows_without_their_image_are_written_again_when_it_can_be_read() {
    // Undisturbed, an embedding set whose images could all be read at once.
    let whole = tempfile::tempdir().unwrap();
    small(whole.path());
    let mut writer = open(whole.path(), true);
    go_on_without(&mut writer, 10, 99);
    writer.finish().unwrap();
    let expected = bytes_of(whole.path());

    let before = || {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        let mut writer = open(dir.path(), true);
        go_on(&mut writer, 10);
        assert_eq!(writer.finish().unwrap().embedding_sets[0].unreadable, 1);
        dir
    };
    for stop in 4..=8 {
        let dir = before();
        let mut writer = open(dir.path(), true);
        assert!(writer.is_fresh());
        assert_eq!(writer.unreadable().unwrap(), [(1, vec![6])]);
        writer.again(&[1]).unwrap();
        assert_eq!(writer.rows_to_push().collect::<Vec<_>>(), [6]);
        assert_eq!((writer.total(), writer.next_row()), (4, Some(4)));
        go_on_without(&mut writer, stop, 99);
        drop(writer);
        let mut writer = open(dir.path(), true);
        // Without a checkpoint it begins again.
        if writer.is_fresh() {
            writer.again(&[1]).unwrap();
        }
        go_on_without(&mut writer, 10, 99);
        let manifest = writer.finish().unwrap();
        assert_eq!(manifest.embedding_sets[0].unreadable, 0);
        assert!(verify(dir.path(), &mut |_, _| {}).unwrap().findings.is_empty());
        assert_eq!(bytes_of(dir.path()), expected, "stopped at {stop}");
        assert!(matches!(
            EmbeddingSetWriter::open(dir.path(), other(), true),
            Err(MemoryError::Write(WriteError::EmbeddingSetExists { .. }))
        ));
    }
    // A crash while they are put in place is finished by the next writer.
    for moved in 0..=4 {
        let dir = before();
        let mut writer = open(dir.path(), true);
        writer.again(&[1]).unwrap();
        go_on_without(&mut writer, 10, 99);
        publish::stop_after(Some(moved));
        let stopped = writer.finish().is_err();
        publish::stop_after(None);
        assert!(stopped, "{moved}");
        assert!(finish_interrupted(dir.path()).unwrap());
        assert_eq!(bytes_of(dir.path()), expected, "{moved}");
    }
    // What still cannot be read changes nothing.
    let dir = before();
    let unchanged = bytes_of(dir.path());
    let mut writer = open(dir.path(), true);
    writer.again(&[]).unwrap();
    assert_eq!(writer.next_row(), None);
    writer.discard().unwrap();
    assert_eq!(bytes_of(dir.path()), unchanged);
}
