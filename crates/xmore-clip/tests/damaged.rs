//! Damaged checkpoints: cut anywhere, or with bytes changed, they give errors or tensors, never a panic.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use xmore_clip::Checkpoint;

/// One file of each format and container.
const FILES: [&str; 8] = [
    "tiny/image.pth",
    "tiny/text.safetensors",
    "torch/state.pt",
    "torch/state_legacy.pth",
    "torch/state_protocol4.pt",
    "torch/training.pt",
    "torch/openai.pt",
    "torch/model-00002-of-00002.safetensors",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap()
}

/// Reads every tensor that the bytes claim to hold.
fn read_all(bytes: Vec<u8>) -> bool {
    match Checkpoint::from_bytes(bytes, Path::new("damaged")) {
        Ok(checkpoint) => {
            read_tensors(&checkpoint);
            true
        }
        Err(_) => false,
    }
}

fn read_tensors(checkpoint: &Checkpoint) {
    for name in checkpoint.names() {
        let shape = checkpoint.shape(name).unwrap();
        if let Ok(values) = checkpoint.tensor(name, shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
            assert!(values.iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn whole_files_are_read() {
    for file in FILES {
        assert!(read_all(fixture(file)), "{file}");
    }
}

/// The bytes where a format's structure lies: the first 20 kB, and a zip file's directory at its end.
fn structure(bytes: &[u8], zip: bool, at: usize) -> usize {
    let head = bytes.len().min(20_000);
    let tail = if zip { bytes.len().min(2_000) } else { 0 };
    match at % (head + tail) {
        at if at < head => at,
        at => bytes.len() - 1 - (at - head),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_truncated_file_is_refused(file in 0..FILES.len(), share in 0.0f64..1.0) {
        let bytes = fixture(FILES[file]);
        let cut = (bytes.len() as f64 * share) as usize;
        prop_assert!(!read_all(bytes[..cut].to_vec()));
    }

    #[test]
    fn changed_bytes_never_panic(
        file in 0..FILES.len(),
        changes in proptest::collection::vec((0usize..1 << 20, any::<u8>()), 1..20),
    ) {
        let mut bytes = fixture(FILES[file]);
        let zip = bytes.starts_with(b"PK");
        for (at, value) in changes {
            let at = structure(&bytes, zip, at);
            bytes[at] = value;
        }
        read_all(bytes);
    }

    /// One bit only: such a file gets further.
    #[test]
    fn a_flipped_bit_never_panics(file in 0..FILES.len(), at in 0usize..1 << 20, bit in 0..8) {
        let mut bytes = fixture(FILES[file]);
        let at = structure(&bytes, bytes.starts_with(b"PK"), at);
        bytes[at] ^= 1u8 << bit;
        read_all(bytes);
    }

    /// Numbers at their limits, in the 2, 4 and 8 bytes where lengths and offsets stand.
    #[test]
    fn extreme_numbers_never_panic(
        file in 0..FILES.len(),
        at in 0usize..1 << 20,
        width in proptest::sample::select(vec![2usize, 4, 8]),
        value in proptest::sample::select(vec![0u64, 1, 1 << 31, 1 << 60, u64::MAX - 1, u64::MAX]),
    ) {
        let mut bytes = fixture(FILES[file]);
        let at = structure(&bytes, bytes.starts_with(b"PK"), at).min(bytes.len() - width);
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        read_all(bytes);
    }

    #[test]
    fn a_damaged_index_of_shards_never_panics(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        for file in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            std::fs::write(dir.path().join(file), fixture(&format!("torch/{file}"))).unwrap();
        }
        let mut json = fixture("torch/model.safetensors.index.json");
        for (at, value) in changes {
            let at = at % json.len();
            json[at] = value;
        }
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(&path, json).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            read_tensors(&checkpoint);
        }
    }
}

#[test]
fn the_empty_file_is_refused() {
    assert!(!read_all(Vec::new()));
}

#[test]
fn headers_that_claim_the_impossible_are_refused_before_memory_is_taken() {
    let header = |length: u64, json: &str| [&length.to_le_bytes(), json.as_bytes()].concat();
    assert!(!read_all(header(1 << 60, "{}")));
    assert!(!read_all(header(u64::MAX, "{}")));
    for json in [
        // More elements than any memory holds.
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
        // Two tensors in one place, and one tensor twice.
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
    ] {
        let mut bytes = header(json.len() as u64, json);
        bytes.extend([0; 8]);
        assert!(!read_all(bytes), "{json}");
    }
}
