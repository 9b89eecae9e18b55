//! The index of a checkpoint in shards, beside two shards.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_clip::Checkpoint;

mod tensors;

/// A folder with the fixtures' shards.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let fixtures =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/xmore-clip/tests/fixtures/torch");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for shard in ["model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin"] {
        std::fs::copy(fixtures.join(shard), folder.path().join(shard)).expect("the fixtures are there");
    }
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let index = FOLDER.path().join("model.safetensors.index.json");
    std::fs::write(&index, bytes).expect("the temporary folder is writable");
    if let Ok(checkpoint) = Checkpoint::open(&index) {
        // Nothing outside the folder is opened.
        assert!(checkpoint.files().all(|file| file.parent() == Some(FOLDER.path())));
        tensors::read(&checkpoint);
    }
});
