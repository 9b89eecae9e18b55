//! `torch.save` since PyTorch 1.6, and TorchScript: a zip file of one pickle and the storages, none of them compressed.
//!
//! Source: `torch.serialization._load` and PyTorch's `caffe2/serialize/inline_container`. Members, under one folder of any
//! name: `data.pkl`, `data/KEY` for each storage, `byteorder` (since 2.1), `version`. `torch.jit.save` adds `constants.pkl` and
//! `code/`, which are not read: parameters are attributes of the module objects in `data.pkl`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::zip::{self, Member};
use super::{describe, resolve};
use crate::checkpoint::CheckpointKind;
use crate::checkpoint::pickle;
use crate::checkpoint::tensor::TensorInfo;

/// Longest `data.pkl` that is read.
const MAX_PICKLE: usize = 64 << 20;

pub(in crate::checkpoint) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

pub(in crate::checkpoint) fn index_archive(
    bytes: &[u8],
) -> Result<(CheckpointKind, BTreeMap<String, TensorInfo>), String> {
    let members = zip::members(bytes)?;
    let mut pickles = members.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
    let folder = match (pickles.find(|folder| !folder.contains('/')), members.len()) {
        (Some(folder), _) => folder,
        (None, count) => {
            let sample: Vec<&str> = members.keys().take(3).copied().collect();
            return Err(format!(
                "a zip file without NAME/data.pkl, expected one of torch.save or torch.jit.save; its {count} members are {}",
                sample.join(", ")
            ));
        }
    };
    let member = |name: &str| members.get(format!("{folder}/{name}").as_str());
    if let Some(order) = member("byteorder") {
        let order = &bytes[plain(order, "byteorder")?];
        if order != b"little" {
            let order = String::from_utf8_lossy(&order[..order.len().min(16)]);
            return Err(format!(
                "its byteorder is {order:?}, expected \"little\"; load it in PyTorch and save it as safetensors"
            ));
        }
    }
    let range = plain(&members[format!("{folder}/data.pkl").as_str()], "data.pkl")?;
    if range.len() > MAX_PICKLE {
        return Err(format!("data.pkl has {} bytes, expected at most {MAX_PICKLE}", range.len()));
    }
    let object = pickle::read(&bytes[range])?;
    let tensors = describe(&object)?;
    let mut storages = HashMap::new();
    for t in &tensors {
        if storages.contains_key(t.storage) {
            continue;
        }
        let name = format!("data/{}", t.storage);
        let found = member(&name)
            .ok_or_else(|| format!("tensor `{}` lies in {folder}/{name}, which the file lacks", t.name))?;
        storages.insert(t.storage.to_owned(), plain(found, &name)?);
    }
    let kind = match member("constants.pkl") {
        Some(_) => CheckpointKind::TorchScript,
        None => CheckpointKind::TorchStateDict,
    };
    Ok((kind, resolve(tensors, &storages, bytes.len())?))
}

/// The bytes of a member that lies in the file as it is.
fn plain(member: &Member, name: &str) -> Result<Range<usize>, String> {
    let fault = if member.encrypted {
        "encrypted"
    } else if member.compressed {
        "compressed"
    } else {
        return Ok(member.data.clone());
    };
    Err(format!(
        "its member {name} is {fault}, which PyTorch never writes; unpack the file and zip it again with storing only (zip -0 -r)"
    ))
}
