//! Any bytes as a file with the captions of the image beside it: its text, its JSON, or a table of Hugging Face's ImageFolder.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_memory::ingest::{InputFormat, Source, SourceOptions};

/// A folder of one image for each kind.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for kind in KINDS {
        let kind = folder.path().join(kind);
        std::fs::create_dir(&kind).expect("the temporary folder is writable");
        std::fs::write(kind.join("a.jpg"), "").expect("the temporary folder is writable");
    }
    folder
});

const KINDS: [&str; 5] = ["a.txt", "a.jpg.caption", "A.JSON", "metadata.csv", "metadata.jsonl"];

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let folder = FOLDER.path().join(kind);
    std::fs::write(folder.join(kind), bytes).expect("the temporary folder is writable");
    let source = Source::detect(folder, InputFormat::Files, &SourceOptions::default()).expect("it is a folder");
    let ingested = source.read().expect("it can be listed");
    for pair in &ingested.pairs {
        assert!(!pair.captions.is_empty() && pair.captions.iter().all(|caption| !caption.trim().is_empty()));
    }
});
