//! The index of a safetensors file, by the format's own crate.

use std::collections::BTreeMap;

use safetensors::{Dtype as StDtype, SafeTensors};

use super::tensor::{Dtype, TensorInfo};

/// Longest header that is read; that of the largest CLIP takes some hundred kilobytes.
const MAX_HEADER: u64 = 4 << 20;

/// A safetensors file opens with the length of its JSON header, which opens with a brace.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes.len() > 8 && bytes[8] == b'{'
}

pub(super) fn index(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let length = bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    if length > MAX_HEADER {
        return Err(format!("safetensors header of {length} bytes, expected at most {MAX_HEADER}"));
    }
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| format!("safetensors header: {e}"))?;
    let data = header + 8;
    let tensors = metadata.tensors();
    let mut index = BTreeMap::new();
    for (name, info) in tensors {
        let dtype = match info.dtype {
            StDtype::F32 => Dtype::F32,
            StDtype::F16 => Dtype::F16,
            StDtype::BF16 => Dtype::Bf16,
            StDtype::F64 => Dtype::F64,
            other if other.bitsize() % 8 == 0 => Dtype::Other(other.bitsize() / 8),
            other => {
                return Err(format!("tensor `{name}` has elements of type {other:?}, which are not read"));
            }
        };
        let (start, end) = info.data_offsets;
        let range = data + start..data + end;
        index.insert(name, TensorInfo { source: 0, dtype, shape: info.shape.clone(), strides: None, range });
    }
    Ok(index)
}
