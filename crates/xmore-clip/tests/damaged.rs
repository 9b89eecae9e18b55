//! Damaged checkpoints: cut anywhere, or with bytes changed, they give errors or tensors, never a panic.

use std::path::Path;

use proptest::prelude::*;
use xmore_clip::Checkpoint;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name)).unwrap()
}

/// Opens the bytes as a file and reads every tensor that it claims to hold.
fn read_all(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    std::fs::write(&path, bytes).unwrap();
    let Ok(checkpoint) = Checkpoint::open(&path) else { return false };
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    for name in names {
        let shape = checkpoint.shape(&name).unwrap().to_vec();
        if let Ok(values) = checkpoint.tensor(&name, &shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
    true
}

#[test]
fn whole_files_are_read() {
    assert!(read_all(&fixture("image.pth")) && read_all(&fixture("text.safetensors")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_truncated_file_is_refused(pth: bool, share in 0.0f64..1.0) {
        let bytes = fixture(if pth { "image.pth" } else { "text.safetensors" });
        let cut = (bytes.len() as f64 * share) as usize;
        prop_assert!(!read_all(&bytes[..cut]));
    }

    /// Changes fall where the structure is: in the first 20 kB, which hold the header or the pickles.
    #[test]
    fn changed_bytes_never_panic(pth: bool, changes in proptest::collection::vec((0usize..20_000, any::<u8>()), 1..20)) {
        let mut bytes = fixture(if pth { "image.pth" } else { "text.safetensors" });
        for (at, value) in changes {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        read_all(&bytes);
    }
}
