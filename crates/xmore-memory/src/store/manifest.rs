//! The manifest: which model a memory was made with and what its parts should hold.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xmore_files::image::Orientation;
use xmore_files::{hex, open_regular};

use super::checksum;
use super::files::write_whole;
use super::identity::ModelIdentity;
use super::layout::{
    ALL_SERIES, EMBEDDING_SET_SERIES, MAX_DIM, MAX_PARTS, PRIMARY, Series, TEXT_SERIES, skipped_path,
};
use super::sealed::{self, Seal};
use super::skip_list::{SkipCounts, failures};
use crate::error::{AtPath, Result};
use crate::store::StoreError;

/// Version 1 had no checksums, sources and embedding sets; version 2 no checksum of the manifest itself and no part numbers; version 3
/// another name of the fingerprint, see [`ModelIdentity`]; version 4 files of codes without halves, see [`codes`](crate::search::codes).
const FORMAT_VERSION: u64 = 5;

/// The first version whose manifests are sealed and list a checksum of every file.
const SEALED_VERSION: u64 = 3;

/// A manifest of 10,000 parts with their checksums is some 10 MB; anything much larger than this is not one.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// SHA-256 of the files of a part, in hexadecimal, by the name of their series (`img_emb`, `metadata`, …).
pub type Checksums = BTreeMap<String, String>;

/// One part of a memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// Number in the names of its files. Numbers ascend; a repair that takes a part out leaves a gap.
    #[serde(default)]
    pub number: usize,
    /// Number of its rows.
    pub rows: u64,
    /// Checksums of its files; empty in memories of version 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sha256: Checksums,
}

/// What one build or append read, as it was when it last gave pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Their names: paths and patterns as they were given, made absolute. Empty in memories of before version 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Digest of all pairs in their order: what tells a repeated command from a new one.
    pub digest: String,
    /// Number of the first part that it wrote.
    pub first_part: usize,
    /// Number of pairs that it wrote.
    pub pairs: u64,
    /// Number of things that it skipped.
    pub skipped: u64,
    /// The same by kind. Empty in memories of before version 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_by: SkipCounts,
    /// Checksum of the list of what it skipped, if there is one; none in memories of version 1 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_sha256: Option<String>,
}

impl SourceInfo {
    /// Number of things that failed and may succeed when they are tried again; all that was skipped where that is not recorded.
    pub fn failed(&self) -> u64 {
        if self.skipped_by.is_empty() { self.skipped } else { failures(&self.skipped_by) }
    }
}

/// What a repair took out of a memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Number of the part.
    pub part: usize,
    /// The further embedding set whose rows they were; `None` for pairs of the memory itself.
    #[serde(default, rename = "column", skip_serializing_if = "Option::is_none")]
    pub embedding_set: Option<String>,
    /// Number of rows that were taken out.
    pub rows: u64,
    /// What was wrong with them.
    pub reason: String,
}

/// Embeddings of the memory's rows by a further model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingSetInfo {
    /// Its folder below `columns/`.
    pub name: String,
    /// The model.
    pub model: ModelIdentity,
    /// Whether it has image embeddings; else it has those of the captions only.
    pub images: bool,
    /// Checksums of its parts, in the places of the memory's parts: fewer if the memory has grown since, and empty ones where a
    /// repair took a part out.
    pub parts: Vec<Checksums>,
    /// Rows whose image could not be read again; they are not found through this embedding set.
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
    /// What the memory was built from, one entry for each set of sources; its place is the number of its list of what was skipped.
    #[serde(default)]
    pub sources: Vec<SourceInfo>,
    /// Further embedding sets.
    #[serde(default, rename = "columns", skip_serializing_if = "Vec::is_empty")]
    pub embedding_sets: Vec<EmbeddingSetInfo>,
    /// What repairs took out, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
    /// Which way up its images were decoded; as they are stored in memories that do not say.
    #[serde(default = "Orientation::stored", skip_serializing_if = "Orientation::is_stored")]
    pub orientation: Orientation,
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
            embedding_sets: Vec::new(),
            set_aside: Vec::new(),
            orientation: Orientation::Stored,
        }
    }

    /// The manifest of the memory in `dir` as this version writes it, whichever it was read from. Checksums that a part lacks are
    /// not made here.
    pub(super) fn updated(mut self, dir: &Path) -> Result<Manifest> {
        if self.format_version < SEALED_VERSION {
            for (number, source) in self.sources.iter_mut().enumerate() {
                let list = skipped_path(dir, number);
                if list.exists() {
                    source.skipped_sha256 = Some(checksum::of_file(&list)?);
                }
            }
        }
        self.format_version = FORMAT_VERSION;
        Ok(self)
    }

    /// Whether it was read from one of this version.
    pub(super) fn is_current(&self) -> bool {
        self.format_version == FORMAT_VERSION
    }

    /// Number of pairs that sources gave and that are not there any more, since a repair took them out.
    pub fn pairs_lost(&self) -> u64 {
        self.sources.iter().map(|source| source.pairs).sum::<u64>().saturating_sub(self.pairs)
    }

    /// A digest in hexadecimal of what the memory holds: of the checksums of its pairs and their embeddings by its own model, not of what is
    /// derived from them. Of a memory of version 1, which has no checksums, of its sources.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for part in &self.parts {
            text(&part.rows.to_string());
            PRIMARY.iter().filter_map(|series| part.sha256.get(series.name)).for_each(|sha256| text(sha256));
        }
        if self.lacks_checksums() {
            self.sources.iter().for_each(|source| text(&source.digest));
        }
        hex(hash.finalize())
    }

    /// The number of the next new part.
    pub(super) fn next_part(&self) -> usize {
        self.parts.last().map_or(0, |part| part.number + 1)
    }

    /// Whether parts are of a version whose files had no checksums.
    pub(super) fn lacks_checksums(&self) -> bool {
        self.parts.iter().any(|part| part.sha256.is_empty())
    }

    /// Reads and checks a manifest.
    pub(super) fn read(path: &Path) -> Result<Manifest> {
        let damaged = |reason: String| StoreError::Manifest { path: path.to_owned(), reason }.into();
        let mut text = Vec::new();
        open_regular(path).at("open", path)?.take(MAX_BYTES).read_to_end(&mut text).at("read", path)?;

        let seal = sealed::check(&text);
        if seal == Seal::Broken {
            return Err(damaged("its checksum is that of other content".to_owned()));
        }
        // The version comes before the other fields: a later version may have others.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let Version { format_version: found } =
            serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if found > FORMAT_VERSION {
            return Err(
                StoreError::Version { path: path.to_owned(), found, supported: FORMAT_VERSION }.into()
            );
        }
        if found >= SEALED_VERSION && seal == Seal::Missing {
            return Err(damaged("it does not end in its checksum".to_owned()));
        }
        let mut manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if found < SEALED_VERSION {
            manifest.parts.iter_mut().enumerate().for_each(|(i, part)| part.number = i);
        }
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// Whether it contradicts itself; says how.
    fn check(&self) -> Result<(), String> {
        if !(1..=MAX_DIM).contains(&self.model.dim) {
            return Err(format!("embedding length {} is not in 1..={MAX_DIM}", self.model.dim));
        }
        let rows = self.parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.rows));
        if rows != Some(self.pairs) {
            return Err(format!("its parts do not sum up to its {} pairs", self.pairs));
        }
        if self.images > self.pairs {
            return Err(format!("{} images in {} pairs", self.images, self.pairs));
        }
        if !self.parts.is_sorted_by(|a, b| a.number < b.number) || self.next_part() > MAX_PARTS {
            return Err(format!("part numbers that do not ascend below {MAX_PARTS}"));
        }
        for part in &self.parts {
            self.check_checksums(&part.sha256, &ALL_SERIES, part.number)?;
        }
        for set in &self.embedding_sets {
            if !(1..=MAX_DIM).contains(&set.model.dim) || set.parts.len() > self.parts.len() {
                return Err(format!(
                    "embedding set {:?} does not fit its {} parts",
                    set.name,
                    self.parts.len()
                ));
            }
            // The name becomes a path.
            if set.name != folder_name(&set.name) {
                return Err(format!("an embedding set named {:?}", set.name));
            }
            for (part, sha256) in self.parts.iter().zip(&set.parts) {
                // A part that a repair took out.
                if sha256.is_empty() {
                    continue;
                }
                self.check_checksums(sha256, set.series(), part.number)
                    .map_err(|reason| format!("embedding set {:?}: {reason}", set.name))?;
            }
        }
        let lists = self.sources.iter().filter_map(|source| source.skipped_sha256.as_ref());
        match lists.into_iter().find(|sha256| !checksum::is_checksum(sha256)) {
            Some(other) => Err(format!("{other:?} is no checksum")),
            None => Ok(()),
        }
    }

    /// Every file has a checksum; in memories of version 1 none had.
    fn check_checksums(&self, sha256: &Checksums, series: &[Series], number: usize) -> Result<(), String> {
        if sha256.is_empty() && self.format_version < SEALED_VERSION {
            return Ok(());
        }
        if let Some(series) = series.iter().find(|series| !sha256.contains_key(series.name)) {
            return Err(format!("no checksum of {}", series.file_name(number)));
        }
        match sha256.iter().find(|(_, sha256)| !checksum::is_checksum(sha256)) {
            Some((name, other)) => Err(format!("{other:?} is no checksum of {name} of part {number}")),
            None => Ok(()),
        }
    }

    /// Writes the manifest to `path` under a temporary name, makes it durable, renames it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let bytes = sealed::seal(self)
            .map_err(|e| StoreError::Manifest { path: path.to_owned(), reason: e.to_string() })?;
        write_whole(path, &bytes)
    }
}

impl EmbeddingSetInfo {
    /// Whether it has the part in a place of the memory's parts.
    pub fn has_part(&self, place: usize) -> bool {
        self.parts.get(place).is_some_and(|sha256| !sha256.is_empty())
    }

    /// The places of a memory's `parts` parts that it lacks.
    pub fn lacking(&self, parts: usize) -> impl Iterator<Item = usize> + '_ {
        (0..parts).filter(|&place| !self.has_part(place))
    }

    /// Whether it has every one of a memory's `parts` parts, and every image in them.
    pub fn is_complete(&self, parts: usize) -> bool {
        self.unreadable == 0 && self.lacking(parts).next().is_none()
    }

    /// The series of its parts.
    pub(crate) fn series(&self) -> &'static [Series] {
        if self.images { &EMBEDDING_SET_SERIES } else { &TEXT_SERIES }
    }
}

/// A model's name as the name of its embedding set's folder: what is unusual in file names becomes a hyphen.
pub(super) fn folder_name(model: &str) -> String {
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
    fn the_name_of_an_embedding_set_is_the_name_of_one_folder() {
        assert_eq!(folder_name("ViT-B-16,openai"), "ViT-B-16,openai");
        assert_eq!(folder_name("hf-hub:org/name int8"), "hf-hub-org-name-int8");
        for name in ["", ".", "..", "../..", "/", "…"] {
            let plain = folder_name(name);
            assert!(!plain.is_empty() && !plain.contains('/') && !plain.starts_with('.'), "{name} {plain}");
            assert_eq!(folder_name(&plain), plain);
        }
        let set = r#""columns": [{"name": "../up", "model": {"name": "m", "sha256": "", "dim": 4}, "images": true,
            "parts": [], "unreadable": 0}], "later_field""#;
        let message = read(&text(4, 3, 2).replace("\"later_field\"", set)).unwrap_err().to_string();
        assert!(message.contains("../up"), "{message}");
    }

    #[test]
    fn a_manifest_of_this_version_has_a_checksum_of_every_file_and_of_itself() {
        let model = ModelIdentity::new("m", "00", 4);
        let checksums: Checksums = ALL_SERIES.iter().map(|s| (s.name.to_owned(), "0".repeat(64))).collect();
        let mut manifest = Manifest::empty(model);
        manifest.parts = vec![PartInfo { number: 2, rows: 0, sha256: checksums }];
        let sealed = |manifest: &Manifest| String::from_utf8(sealed::seal(manifest).unwrap()).unwrap();
        assert_eq!(read(&sealed(&manifest)).unwrap(), manifest);

        let plain = serde_json::to_string_pretty(&manifest).unwrap();
        let message = read(&plain).unwrap_err().to_string();
        assert!(message.contains("does not end in its checksum"), "{message}");
        // One of version 2 that was never sealed, with a name that a flipped bit changed.
        let older = plain.replace("\"format_version\": 5", "\"format_version\": 2");
        assert_eq!(read(&older).unwrap().parts[0].number, 0);
        let message = read(&older.replace("text_codes", "text_codeS")).unwrap_err().to_string();
        assert!(message.contains("no checksum of text_codes_0000.bin"), "{message}");

        manifest.parts[0].sha256.insert("lookup".into(), "0".repeat(63));
        let message = read(&sealed(&manifest)).unwrap_err().to_string();
        assert!(message.contains("is no checksum of lookup of part 2"), "{message}");
        manifest.parts[0].sha256.clear();
        let message = read(&sealed(&manifest)).unwrap_err().to_string();
        assert!(message.contains("no checksum of img_emb_0002.npy"), "{message}");
        manifest.parts.extend(manifest.parts.clone());
        let message = read(&sealed(&manifest)).unwrap_err().to_string();
        assert!(message.contains("part numbers"), "{message}");
    }

    #[test]
    fn the_digest_is_of_pairs_and_embeddings() {
        let digest = |rows: u64, changed: &str| {
            let sum = |name: &str| if name == changed { "1" } else { "0" }.repeat(64);
            let sha256 = ALL_SERIES.iter().map(|series| (series.name.to_owned(), sum(series.name))).collect();
            let mut manifest = Manifest::empty(ModelIdentity::new("m", "00", 4));
            manifest.parts = vec![PartInfo { number: 0, rows, sha256 }];
            manifest.digest()
        };
        let plain = digest(3, "none of them");
        assert_eq!(plain.len(), 64);
        assert_ne!(plain, digest(4, "none of them"));
        for (name, counts) in
            [("img_emb", true), ("text_emb", true), ("metadata", true), ("img_codes", false)]
        {
            assert_eq!(digest(3, name) != plain, counts, "{name}");
        }
    }

    #[test]
    fn a_later_version_is_named_as_such() {
        let message = read(r#"{"format_version": 6, "other": 1}"#).unwrap_err().to_string();
        assert!(message.contains("version 6") && message.contains("update xmore"), "{message}");
    }
}
