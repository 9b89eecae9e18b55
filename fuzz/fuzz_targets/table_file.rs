//! Any bytes as a table: separated text, JSON lines or a list, by its first byte. An error, or pairs with captions, one for each image.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_memory::ingest::{InputFormat, Source, SourceOptions};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let name = ["t.csv", "t.tsv", "t.jsonl", "t.json"][usize::from(kind % 4)];
    let path = FOLDER.path().join(name);
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    let Ok(source) = Source::detect(path, InputFormat::Table, &SourceOptions::default()) else { return };
    let Ok(ingested) = source.read() else { return };
    let mut images: Vec<String> = ingested.pairs.iter().map(|pair| pair.image.to_string()).collect();
    images.sort();
    assert!(images.windows(2).all(|two| two[0] != two[1]));
    for pair in &ingested.pairs {
        assert!(!pair.captions.is_empty() && pair.captions.iter().all(|caption| !caption.trim().is_empty()));
    }
});
