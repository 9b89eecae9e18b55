//! Reading the fixtures: what the reference implementations gave, and how near it is.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use xmore_clip::Embeddings;

/// The folder of the committed fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures")
}

/// The reference's outputs, and what they are of.
pub struct Expected {
    bytes: Vec<u8>,
    pub images: Vec<PathBuf>,
    pub texts: Vec<String>,
}

impl Expected {
    pub fn read(name: &str) -> Self {
        let bytes = std::fs::read(fixtures().join(name)).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let notes = metadata.metadata().as_ref().unwrap();
        let images: Vec<String> = serde_json::from_str(&notes["images"]).unwrap();
        let texts = serde_json::from_str(&notes["texts"]).unwrap();
        Self { images: images.iter().map(|i| fixtures().join("images").join(i)).collect(), texts, bytes }
    }

    pub fn rows(&self, name: &str) -> Embeddings {
        let all = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = all.tensor(name).unwrap();
        let values = tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Embeddings::new(values, tensor.shape()[1])
    }
}

/// Every value within `tolerance` of the row's largest.
#[track_caller]
pub fn assert_close(found: &Embeddings, expected: &Embeddings, tolerance: f32) {
    assert_eq!((found.len(), found.dim()), (expected.len(), expected.dim()));
    for (n, (found, expected)) in found.rows().zip(expected.rows()).enumerate() {
        let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = found.iter().zip(expected).fold(0f32, |m, (f, e)| m.max((f - e).abs())) / scale;
        assert!(error < tolerance, "row {n}: relative error {error:e}");
    }
}
