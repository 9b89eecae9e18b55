//! `torch.save` of before PyTorch 1.6: five pickles, then the raw storages.
//!
//! Source: `torch.serialization._legacy_load`. Layout: magic number, protocol version, system information, the object, the
//! list of storage keys (each a pickle), then for each key in that order an i64 element count and the elements.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::{Storage, describe, resolve};
use crate::checkpoint::pickle::{self, Pickle, Value};
use crate::checkpoint::tensor::TensorInfo;

/// `\x80\x02` PROTO 2, then LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

pub(in crate::checkpoint) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(in crate::checkpoint) fn index_legacy(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut pos = MAGIC.len();
    let mut next = || -> Result<Pickle, String> {
        let pickle = pickle::read(&bytes[pos..])?;
        pos += pickle.len;
        Ok(pickle)
    };
    let protocol = next()?.value.as_usize();
    if protocol != Some(1001) {
        return Err(format!("PyTorch protocol {protocol:?}, expected 1001"));
    }
    let system = next()?;
    let object = next()?;
    let keys = next()?;
    let facts = system.entries(&system.value).unwrap_or_default();
    if facts.iter().any(|(k, v)| k.as_str() == Some("little_endian") && matches!(v, Value::Bool(false))) {
        return Err("it was written on a big-endian machine; load it there and save it as safetensors".into());
    }
    let keys = keys.items(&keys.value).ok_or("the list of storage keys is no list")?;

    let tensors = describe(&object)?;
    // An element's size is known only from the references to its storage, an optimizer's among them.
    let ids = object.all_persistent().iter().filter_map(|id| Storage::of(&object, id));
    let sizes: HashMap<&str, usize> = ids.map(|id| (id.key, id.dtype.size())).collect();
    let mut storages: HashMap<String, Range<usize>> = HashMap::new();
    for key in keys {
        let key = key.as_str().ok_or("a storage key is no string")?;
        let count = bytes.get(pos..pos + 8).ok_or("the file ends before its storages: it is truncated")?;
        let count = i64::from_le_bytes(count.try_into().expect("8 bytes"));
        let size = sizes.get(key).ok_or_else(|| format!("storage {key:?} belongs to no tensor"))?;
        let len = usize::try_from(count).ok().and_then(|n| n.checked_mul(*size));
        let end = len.and_then(|n| n.checked_add(pos + 8)).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| {
            format!("storage {key:?} has {count} elements, past the end of the file: it is truncated")
        })?;
        if storages.insert(key.to_owned(), pos + 8..end).is_some() {
            return Err(format!("two storages are named {key:?}"));
        }
        pos = end;
    }
    resolve(tensors, &storages, bytes.len())
}
