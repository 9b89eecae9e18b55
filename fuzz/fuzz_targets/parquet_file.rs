//! Any bytes as a parquet file: an error, or pairs with captions, of which the images are read or refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_memory::ingest::{ImageReader, ImageRef, InputFormat, Source, SourceOptions};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    // The fuzzer's hook ends the process; panics of the parquet crate that become errors are no findings.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !xmore_memory::ingest::catches_panics() {
            report(panic);
        }
    }));
    tempfile::tempdir().expect("a temporary folder")
});

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("fuzzed.parquet");
    std::fs::write(&path, bytes).expect("the temporary folder is writable");
    let Ok(source) = Source::detect(path, InputFormat::Parquet, &SourceOptions::default()) else { return };
    let Ok(ingested) = source.read() else { return };
    let reader = ImageReader::new();
    for pair in &ingested.pairs {
        assert!(!pair.captions.is_empty() && pair.captions.iter().all(|caption| !caption.trim().is_empty()));
        if matches!(pair.image, ImageRef::ParquetCell { .. }) {
            let _ = reader.read(&pair.image);
        }
    }
});
