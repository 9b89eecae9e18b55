//! What a file says of one tensor: element type, shape, place.

use std::fmt;
use std::ops::Range;

/// Element type of a stored tensor. Integers occur as counters and position ids only and are never asked for as weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit float.
    F64,
    /// Anything else, with its size in bytes.
    Other(usize),
}

impl Dtype {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F64 => 8,
            Dtype::Other(size) => size,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::F32 => f.write_str("F32"),
            Dtype::F16 => f.write_str("F16"),
            Dtype::Bf16 => f.write_str("BF16"),
            Dtype::F64 => f.write_str("F64"),
            Dtype::Other(size) => write!(f, "integers or other elements of {size} bytes"),
        }
    }
}

/// Where a tensor lies in its file.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// Which of the checkpoint's files it lies in.
    pub(super) source: usize,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next in each dimension, where that is not row-major order: PyTorch stores views as they are.
    pub(super) strides: Option<Vec<usize>>,
    /// Bytes in the file, from the first element to the last.
    pub(super) range: Range<usize>,
}

impl TensorInfo {
    /// Checks that shape, element type and byte range agree and lie within a file of `len` bytes.
    pub(super) fn check(&self, len: usize) -> Result<(), String> {
        // A view's extent: one past its last element.
        let elements = match &self.strides {
            None => self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)),
            Some(_) if self.shape.contains(&0) => Some(0),
            Some(strides) => self.shape.iter().zip(strides).try_fold(1usize, |n, (&d, &stride)| {
                (d - 1).checked_mul(stride).and_then(|extent| n.checked_add(extent))
            }),
        };
        let bytes = elements.and_then(|n| n.checked_mul(self.dtype.size()));
        if bytes != Some(self.range.end.saturating_sub(self.range.start)) || self.range.start > self.range.end
        {
            return Err(format!(
                "shape {:?} of {} does not fit bytes {:?}",
                self.shape, self.dtype, self.range
            ));
        }
        if self.range.end > len {
            return Err(format!("ends at byte {}, but the file has {len}: it is truncated", self.range.end));
        }
        Ok(())
    }
}
