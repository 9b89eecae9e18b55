//! The index of a safetensors file, by the format's own crate.

use std::collections::BTreeMap;

use safetensors::{Dtype as StDtype, SafeTensors};

use super::{Dtype, TensorInfo};

/// A safetensors file opens with the length of its JSON header, which opens with a brace.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes.len() > 8 && bytes[8] == b'{'
}

pub(super) fn index(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
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
            other => Dtype::Other(other.bitsize() / 8),
        };
        let (start, end) = info.data_offsets;
        let range = data + start..data + end;
        index.insert(name, TensorInfo { dtype, shape: info.shape.clone(), strides: None, range });
    }
    Ok(index)
}
