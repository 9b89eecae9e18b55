//! The manifest: which model a memory was made with and what its parts should hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MAX_DIM, write_whole};
use crate::error::{AtPath, MemoryError, Result};

/// Version 1 had no checksums, sources and columns.
const FORMAT_VERSION: u64 = 2;

/// A manifest of 10,000 parts with their checksums is some 10 MB; anything much larger than this is not one.
const MAX_BYTES: u64 = 64 << 20;

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

/// SHA-256 of the files of a part, in hexadecimal, by the name of their series (`img_emb`, `metadata`, …).
pub type Checksums = BTreeMap<String, String>;

/// One part of a memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// Number of its rows.
    pub rows: u64,
    /// Checksums of its files; empty in memories of version 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sha256: Checksums,
}

/// What one build or append read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Digest of all pairs in their order: what tells a repeated command from a new one.
    pub digest: String,
    /// The first part that it wrote.
    pub first_part: usize,
    /// Number of pairs that it wrote.
    pub pairs: u64,
    /// Number of things that it skipped.
    pub skipped: u64,
}

/// Embeddings of the memory's rows by a further model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Its folder below `columns/`.
    pub name: String,
    /// The model.
    pub model: ModelIdentity,
    /// Whether it has image embeddings; else it has those of the captions only.
    pub images: bool,
    /// Checksums of the parts that it has: fewer than the memory if that has grown since.
    pub parts: Vec<Checksums>,
    /// Rows whose image could not be read again; they are not found through this column.
    pub unreadable: u64,
}

/// Contents of `xmore_memory.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format_version: u64,
    /// The model that made the embeddings.
    pub model: ModelIdentity,
    /// Number of image–caption pairs, that is of rows.
    pub pairs: u64,
    /// Number of distinct image paths.
    pub images: u64,
    /// The parts in the order of their file names.
    pub parts: Vec<PartInfo>,
    /// Number of things of the sources that were skipped while the memory was built.
    pub skipped: u64,
    /// Captions that were longer than the model reads and were cut, counted once for each distinct text.
    #[serde(default)]
    pub truncated: u64,
    /// What the memory was built from, one entry for each build or append; its place is the number of its list of what was skipped.
    #[serde(default)]
    pub sources: Vec<SourceInfo>,
    /// Further columns of embeddings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnInfo>,
}

impl Manifest {
    /// A manifest of this version without rows.
    pub(super) fn empty(model: ModelIdentity) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            model,
            pairs: 0,
            images: 0,
            parts: Vec::new(),
            skipped: 0,
            truncated: 0,
            sources: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// As this version writes it, whichever it was read from.
    pub(super) fn updated(mut self) -> Manifest {
        self.format_version = FORMAT_VERSION;
        self
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
        for column in &manifest.columns {
            if !(1..=MAX_DIM).contains(&column.model.dim) || column.parts.len() > manifest.parts.len() {
                return Err(damaged(format!(
                    "column {:?} does not fit its {} parts",
                    column.name,
                    manifest.parts.len()
                )));
            }
            // The name becomes a path.
            if column.name != column_name(&column.name) {
                return Err(damaged(format!("a column named {:?}", column.name)));
            }
        }
        Ok(manifest)
    }

    /// The bytes that are written.
    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| MemoryError::Manifest { path: path.to_owned(), reason: e.to_string() })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Writes the manifest to `path` under a temporary name, makes it durable, renames it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.to_bytes(path)?)
    }
}

/// A model's name as the name of its column's folder: what is unusual in file names becomes a hyphen.
pub(super) fn column_name(model: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ',' | '.');
    let name: String = model.chars().map(|c| if plain(c) { c } else { '-' }).take(100).collect();
    // No name may be a way up, nor hidden.
    match name.trim_start_matches('.') {
        "" => "model".to_owned(),
        name => name.to_owned(),
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
    fn the_name_of_a_column_is_the_name_of_one_folder() {
        assert_eq!(column_name("ViT-B-16,openai"), "ViT-B-16,openai");
        assert_eq!(column_name("hf-hub:org/name int8"), "hf-hub-org-name-int8");
        for name in ["", ".", "..", "../..", "/", "…"] {
            let plain = column_name(name);
            assert!(!plain.is_empty() && !plain.contains('/') && !plain.starts_with('.'), "{name} {plain}");
            assert_eq!(column_name(&plain), plain);
        }
        let column = r#""columns": [{"name": "../up", "model": {"name": "m", "sha256": "", "dim": 4}, "images": true,
            "parts": [], "unreadable": 0}], "later_field""#;
        let message = read(&text(4, 3, 2).replace("\"later_field\"", column)).unwrap_err().to_string();
        assert!(message.contains("../up"), "{message}");
    }

    #[test]
    fn a_later_version_is_named_as_such() {
        let message = read(r#"{"format_version": 3, "other": 1}"#).unwrap_err().to_string();
        assert!(message.contains("version 3") && message.contains("update xmore"), "{message}");
    }
}
