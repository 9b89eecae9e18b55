//! A checkpoint in several files, and the index of which holds what: `model.safetensors.index.json` and
//! `pytorch_model.bin.index.json` of the Hugging Face hub.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::Checkpoint;
use super::source::Source;
use crate::error::{ClipError, Result};

/// Longest index that is read; that of a model with a thousand tensors takes a hundred kilobytes.
const MAX_INDEX: usize = 4 << 20;
/// Files of one checkpoint.
const MAX_SHARDS: usize = 1024;

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensor name to file name; a name may stand there once.
struct WeightMap(BTreeMap<String, String>);

/// Whether a path names an index rather than weights. Detected by name: a JSON file's first bytes could be safetensors' too.
pub(super) fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Opens every file that the index names.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let fail = |message: String| ClipError::checkpoint(path, message);
    let json = Source::map(path)?;
    if json.len() > MAX_INDEX {
        return Err(fail(format!("an index of {} bytes, expected at most {MAX_INDEX}", json.len())));
    }
    let index: Index = serde_json::from_slice(&json).map_err(|e| {
        fail(format!("expected an index of shards, {{\"weight_map\": {{TENSOR: FILE}}}}, found: {e}"))
    })?;
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, file) in &index.weight_map.0 {
        files.entry(file).or_default().push(tensor);
    }
    if files.is_empty() || files.len() > MAX_SHARDS {
        return Err(fail(format!("its weight_map names {} files, expected 1 to {MAX_SHARDS}", files.len())));
    }
    let (mut kind, mut sources, mut tensors) = (None, Vec::new(), BTreeMap::new());
    for (file, names) in files {
        // Neither folders nor `..`, on any system, nor another index.
        let plain =
            Path::new(file).file_name() == Some(file.as_ref()) && !file.contains(['/', '\\', ':', '\0']);
        if !plain || is_index(file.as_ref()) {
            return Err(fail(format!("its weight_map names {file:?}, expected a file of weights beside it")));
        }
        let shard = path.with_file_name(file);
        if !shard.exists() {
            return Err(ClipError::MissingFile {
                dir: path.parent().unwrap_or(Path::new("")).to_owned(),
                file: file.to_owned(),
                named_by: Some(path.to_owned()),
            });
        }
        let (source, found, mut shard_tensors) = Checkpoint::read(Source::map(&shard)?)?;
        if *kind.get_or_insert(found) != found {
            return Err(fail(format!("its files are of several formats; {file:?} is {found:?}")));
        }
        for name in names {
            let mut info = shard_tensors.remove(name).ok_or_else(|| {
                let message = format!(
                    "it lacks tensor `{name}`, which {} places here; index and file are of different versions, download both",
                    path.display()
                );
                ClipError::checkpoint(&shard, message)
            })?;
            info.source = sources.len();
            tensors.insert(name.to_owned(), info);
        }
        sources.push(source);
    }
    let kind = kind.expect("there is at least one file");
    Ok(Checkpoint::new(path, kind, sources, tensors))
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tensor names to file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if let Some(other) = entries.insert(tensor, file) {
                return Err(A::Error::custom(format!("a tensor that stands there twice, once in {other:?}")));
            }
        }
        Ok(WeightMap(entries))
    }
}
