//! Any bytes as a model folder's configuration, beside weights that are whole: an error, or a model that encodes.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_clip::{Model, Pixels};

/// Folders with weights: open_clip's and transformers'.
static FOLDERS: LazyLock<[tempfile::TempDir; 2]> = LazyLock::new(|| {
    let fixtures =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/xmore-clip/tests/fixtures/clip/vit_gelu");
    [("open_clip", "open_clip_model.safetensors"), ("transformers", "model.safetensors")].map(
        |(from, file)| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::copy(fixtures.join(from).join(file), folder.path().join(file))
                .expect("the fixtures are there");
            folder
        },
    )
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, json)) = bytes.split_first() else { return };
    let [open_clip, transformers] = &*FOLDERS;
    // `preprocessor_config.json` follows `config.json` after a zero byte.
    let mut parts = json.splitn(2, |&b| b == 0);
    let (config, processor) = (parts.next().unwrap_or_default(), parts.next());
    let folder = if which % 2 == 0 { open_clip } else { transformers };
    let name = if which % 2 == 0 { "open_clip_config.json" } else { "config.json" };
    std::fs::write(folder.path().join(name), config).expect("the temporary folder is writable");
    let processor_path = folder.path().join("preprocessor_config.json");
    match processor {
        Some(processor) => {
            std::fs::write(processor_path, processor).expect("the temporary folder is writable")
        }
        None => drop(std::fs::remove_file(processor_path)),
    }
    let Ok(model) = Model::load(folder.path()) else { return };
    let side = model.preprocess().size() as usize;
    if side <= 512 {
        let _ = model.encode_images(&[Pixels::new(vec![0.5; side * side * 3])]);
    }
    let _ = model.encode_token_ids(&[&[1, 2, 3]]);
});
