//! The manifest: which model a memory was made with and what its parts should hold.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::MAX_DIM;
use crate::error::{AtPath, MemoryError, Result};

/// The one format version so far.
const FORMAT_VERSION: u64 = 1;

/// A manifest of 10,000 parts is below 1 MiB; anything larger than this is not one.
const MAX_BYTES: u64 = 16 << 20;

/// The model whose embeddings a memory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name, such as `ViT-B-16,openai`.
    pub name: String,
    /// SHA-256 of its checkpoint, in hexadecimal.
    pub sha256: String,
    /// Embedding length.
    pub dim: usize,
}

/// One part of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// Number of its rows.
    pub rows: u64,
}

/// Contents of `xmore_memory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout, 1.
    pub format_version: u64,
    /// The model that made the embeddings.
    pub model: ModelIdentity,
    /// Number of image–caption pairs, that is of rows.
    pub pairs: u64,
    /// Number of distinct image paths.
    pub images: u64,
    /// The parts in the order of their file names.
    pub parts: Vec<PartInfo>,
    /// Number of things of the source that were skipped while the memory was built.
    pub skipped: u64,
}

impl Manifest {
    /// A manifest of this version.
    pub(super) fn new(
        model: ModelIdentity,
        pairs: u64,
        images: u64,
        parts: Vec<PartInfo>,
        skipped: u64,
    ) -> Manifest {
        Manifest { format_version: FORMAT_VERSION, model, pairs, images, parts, skipped }
    }

    /// Reads and checks a manifest.
    pub(super) fn read(path: &Path) -> Result<Manifest> {
        let damaged = |reason: String| MemoryError::Manifest { path: path.to_owned(), reason };
        let mut text = Vec::new();
        File::open(path).at("open", path)?.take(MAX_BYTES).read_to_end(&mut text).at("read", path)?;

        // The version comes first: a later version may have other fields.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let Version { format_version: found } =
            serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if found > FORMAT_VERSION {
            return Err(MemoryError::Version { path: path.to_owned(), found, supported: FORMAT_VERSION });
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;

        if !(1..=MAX_DIM).contains(&manifest.model.dim) {
            return Err(damaged(format!("embedding length {} is not in 1..={MAX_DIM}", manifest.model.dim)));
        }
        let rows = manifest.parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.rows));
        if rows != Some(manifest.pairs) {
            return Err(damaged(format!("its parts do not sum up to its {} pairs", manifest.pairs)));
        }
        if manifest.images > manifest.pairs {
            return Err(damaged(format!("{} images in {} pairs", manifest.images, manifest.pairs)));
        }
        Ok(manifest)
    }

    /// Writes the manifest to `path` under a temporary name, makes it durable, renames it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let temporary = path.with_extension("json.tmp");
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| MemoryError::Manifest { path: path.to_owned(), reason: e.to_string() })?;
        let mut file = File::create(&temporary).at("create", &temporary)?;
        file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).at("write", &temporary)?;
        file.sync_all().at("write", &temporary)?;
        std::fs::rename(&temporary, path).at("rename to", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("xmore_memory.json");
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path)
    }

    fn text(dim: usize, pairs: u64, images: u64) -> String {
        format!(
            r#"{{"format_version": 1, "model": {{"name": "m", "sha256": "00", "dim": {dim}}}, "pairs": {pairs},
               "images": {images}, "parts": [{{"rows": 2}}, {{"rows": 1}}], "skipped": 0, "later_field": []}}"#
        )
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        assert_eq!(read(&text(4, 3, 2)).unwrap().parts.len(), 2);
        for (bad, reason) in [
            (text(0, 3, 2), "embedding length 0"),
            (text(1 << 40, 3, 2), "embedding length"),
            (text(4, 4, 2), "4 pairs"),
            (text(4, 3, 4), "4 images"),
            ("{".to_owned(), "EOF"),
            (text(4, 3, 2).replace("\"rows\": 1", "\"rows\": 18446744073709551615"), "do not sum up"),
        ] {
            let message = read(&bad).unwrap_err().to_string();
            assert!(message.contains(reason) && message.contains("xmore_memory.json"), "{message}");
        }
    }

    #[test]
    fn a_later_version_is_named_as_such() {
        let message = read(r#"{"format_version": 2, "other": 1}"#).unwrap_err().to_string();
        assert!(message.contains("version 2") && message.contains("update xmore"), "{message}");
    }
}
