//! Any bytes as the matrices of a folder of embeddings, beside metadata that are whole: an error, or unit rows.
//!
//! A first byte says whose they are; bytes that are no npy are also tried as the header of one with data enough.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_memory::ingest::EmbeddingsFolder;

/// A folder of one part of seven rows of sixteen values.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let fixture =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/xmore-memory/fixtures/sources/embeddings");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in FILES {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("it has one"))
            .expect("the temporary folder is writable");
        std::fs::copy(fixture.join(file), path).expect("the fixtures are there");
    }
    folder
});

const FILES: [&str; 3] = ["img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet"];

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let path = FOLDER.path().join(FILES[usize::from(which % 2)]);
    let whole = std::fs::read(&path).expect("the fixtures are there");
    let length = (bytes.len() as u16).to_le_bytes();
    let framed = [b"\x93NUMPY\x01\x00", &length[..], bytes, &[0x3c; 7 * 16 * 2]].concat();
    for bytes in [bytes, &framed] {
        std::fs::write(&path, bytes).expect("the temporary folder is writable");
        read();
    }
    std::fs::write(&path, whole).expect("the temporary folder is writable");
});

fn read() {
    let Ok(folder) = EmbeddingsFolder::open(FOLDER.path()) else { return };
    assert_eq!((folder.rows(), folder.dim()), (7, 16));
    for batch in folder.batches(3) {
        let batch = batch.expect("sizes were checked");
        assert_eq!(batch.images.len(), batch.len() * 16);
        let texts = batch.texts.as_deref().unwrap_or_default();
        for row in batch.images.chunks(16).chain(texts.chunks(16)) {
            let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 2e-3, "a row of length {length}");
        }
    }
}
