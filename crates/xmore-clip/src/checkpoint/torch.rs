//! PyTorch's `torch.save` files of before version 1.6: five pickles, then the raw storages.
//!
//! Source: `torch.serialization._legacy_load`. Layout: magic number, protocol version, system information, the object, the
//! list of storage keys (each a pickle), then for each key in that order an i64 element count and the elements.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::pickle::{self, Pickle, Value};
use super::{Dtype, TensorInfo};

/// `\x80\x02` PROTO 2, then LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(super) fn index_legacy(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
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
    let _system = next()?;
    let object = next()?;
    let keys = next()?;
    let keys = keys.items(&keys.value).ok_or("the list of storage keys is no list")?;

    let mut tensors = Vec::new();
    collect(&object, &object.value, String::new(), 0, &mut tensors)?;
    // A storage's element type is told only by the tensors that view it.
    let dtypes: HashMap<&str, Dtype> = tensors.iter().map(|t| (&*t.storage, t.dtype)).collect();
    let mut storages: HashMap<String, Range<usize>> = HashMap::new();
    for key in keys {
        let key = key.as_str().ok_or("a storage key is no string")?;
        let count = bytes.get(pos..pos + 8).ok_or("the file ends before its storages: it is truncated")?;
        let count = i64::from_le_bytes(count.try_into().expect("8 bytes"));
        let dtype = dtypes.get(key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let size = usize::try_from(count).ok().and_then(|n| n.checked_mul(dtype.size()));
        let end = size.and_then(|n| n.checked_add(pos + 8)).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| {
            format!("storage {key} has {count} elements, past the end of the file: it is truncated")
        })?;
        storages.insert(key.to_owned(), pos + 8..end);
        pos = end;
    }
    resolve(tensors, &storages, bytes.len())
}

/// A tensor as the pickle describes it, before its storage's place is known.
struct Described {
    name: String,
    storage: String,
    dtype: Dtype,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Walks the object and gathers its tensors under dotted names; `state_dict`-like wrappers are entered.
fn collect(
    pickle: &Pickle,
    value: &Value,
    name: String,
    depth: usize,
    out: &mut Vec<Described>,
) -> Result<(), String> {
    if depth > 8 {
        return Err(format!("`{name}` is nested too deeply"));
    }
    if let Some(entries) = pickle.entries(value) {
        for (key, value) in entries {
            let Some(key) = key.as_str() else { continue };
            let name = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            collect(pickle, value, name, depth + 1, out)?;
        }
        return Ok(());
    }
    match pickle.call(value) {
        Some(("torch._utils._rebuild_parameter", args)) => {
            let data = args.first().ok_or_else(|| format!("parameter `{name}` has no data"))?;
            collect(pickle, data, name, depth + 1, out)
        }
        Some(("torch._utils._rebuild_tensor_v2", args)) => {
            let tensor =
                describe(pickle, &name, args).ok_or_else(|| format!("tensor `{name}` is malformed"))?;
            out.push(tensor);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)`.
fn describe(pickle: &Pickle, name: &str, args: &[Value]) -> Option<Described> {
    let [storage, offset, shape, strides, ..] = args else { return None };
    // ("storage", storage type, key, device, element count, view of another storage or None)
    let id = pickle.items(pickle.persistent(storage)?)?;
    let [kind, Value::Global(class), key, _device, _count, rest @ ..] = id else { return None };
    if kind.as_str() != Some("storage") || rest.iter().any(|view| !matches!(view, Value::None)) {
        return None;
    }
    let dtype = match &**class {
        "torch.FloatStorage" => Dtype::F32,
        "torch.HalfStorage" => Dtype::F16,
        "torch.BFloat16Storage" => Dtype::Bf16,
        "torch.DoubleStorage" => Dtype::F64,
        "torch.LongStorage" => Dtype::Other(8),
        "torch.IntStorage" => Dtype::Other(4),
        "torch.ShortStorage" => Dtype::Other(2),
        "torch.CharStorage" | "torch.ByteStorage" | "torch.BoolStorage" => Dtype::Other(1),
        _ => return None,
    };
    let sizes = |v: &Value| pickle.items(v)?.iter().map(Value::as_usize).collect::<Option<Vec<_>>>();
    Some(Described {
        name: name.to_owned(),
        storage: key.as_str()?.to_owned(),
        dtype,
        offset: offset.as_usize()?,
        shape: sizes(shape)?,
        strides: sizes(strides)?,
    })
}

fn resolve(
    tensors: Vec<Described>,
    storages: &HashMap<String, Range<usize>>,
    file_len: usize,
) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut index = BTreeMap::new();
    for t in tensors {
        let overflow = || format!("tensor `{}` of shape {:?} overflows", t.name, t.shape);
        let storage = storages
            .get(&t.storage)
            .ok_or_else(|| format!("tensor `{}` has no storage {}", t.name, t.storage))?;
        let mut elements = 1usize;
        let mut extent = Some(1usize);
        let mut contiguous = true;
        if t.strides.len() != t.shape.len() {
            return Err(format!("tensor `{}` has shape {:?} but strides {:?}", t.name, t.shape, t.strides));
        }
        for (&d, &stride) in t.shape.iter().zip(&t.strides).rev() {
            contiguous &= d <= 1 || stride == elements;
            elements = elements.checked_mul(d).ok_or_else(overflow)?;
            extent = d.saturating_sub(1).checked_mul(stride).and_then(|e| extent?.checked_add(e));
        }
        let extent = if elements == 0 { 0 } else { extent.ok_or_else(overflow)? };
        // A view may repeat elements (a stride of 0): never more of them than the file has bytes.
        if elements > file_len {
            return Err(format!(
                "tensor `{}` of shape {:?} has more elements than the file has bytes",
                t.name, t.shape
            ));
        }
        let start = t
            .offset
            .checked_mul(t.dtype.size())
            .and_then(|o| o.checked_add(storage.start))
            .ok_or_else(overflow)?;
        let end =
            extent.checked_mul(t.dtype.size()).and_then(|n| n.checked_add(start)).ok_or_else(overflow)?;
        if end > storage.end {
            return Err(format!("tensor `{}` ends at byte {end}, its storage at {}", t.name, storage.end));
        }
        let strides = (!contiguous).then_some(t.strides);
        index.insert(t.name, TensorInfo { dtype: t.dtype, shape: t.shape, strides, range: start..end });
    }
    Ok(index)
}
