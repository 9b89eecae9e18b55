//! Any bytes as COCO's captions: an error, or pairs with captions.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_memory::ingest::{InputFormat, Source, SourceOptions};

/// A folder with the images that the seeds name.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["a.jpg", "000000391895.jpg", "000000522418.jpg", "000000184613.jpg"] {
        std::fs::write(folder.path().join(name), "").expect("the temporary folder is writable");
    }
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("captions.json");
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    let Ok(source) = Source::detect(path, InputFormat::Coco, &SourceOptions::default()) else { return };
    let Ok(ingested) = source.read() else { return };
    for pair in &ingested.pairs {
        assert!(!pair.captions.is_empty() && pair.captions.iter().all(|caption| !caption.trim().is_empty()));
    }
});
