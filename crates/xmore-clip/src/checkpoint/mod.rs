//! Named tensors in a memory-mapped file, whatever format wrote it.
//!
//! A [`Checkpoint`] knows where each tensor's bytes lie; nothing is copied until a layer asks for its weights, so opening a
//! file costs its header only.

mod pickle;
mod safetensors;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;

use crate::error::{ClipError, Result};

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

/// Where a tensor lies in its file.
#[derive(Clone, Debug)]
struct TensorInfo {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Elements from one index to the next in each dimension, where that is not row-major order: PyTorch stores views as they are.
    strides: Option<Vec<usize>>,
    /// Bytes in the file, from the first element to the last.
    range: Range<usize>,
}

/// A memory-mapped file of named tensors: safetensors, or PyTorch's `.pth`/`.pt`/`.bin` (parsed, never executed).
pub struct Checkpoint {
    path: PathBuf,
    map: Mmap,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Checkpoint {
    /// Opens a checkpoint, telling the format from its first bytes.
    ///
    /// # Errors
    /// [`ClipError::Io`] if it cannot be read, [`ClipError::Checkpoint`] if it is truncated, damaged or of no known format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| ClipError::io(path, e))?;
        // SAFETY: the map is read-only and private to this struct. If another process truncates the file while it is mapped,
        // reads fault; that is the usual contract of mapped weights and no worse than a file deleted under any reader.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|e| ClipError::io(path, e))?;
        let tensors = Self::index(&map).map_err(|message| ClipError::checkpoint(path, message))?;
        for (name, info) in &tensors {
            info.check(map.len())
                .map_err(|message| ClipError::checkpoint(path, format!("tensor `{name}`: {message}")))?;
        }
        Ok(Self { path: path.to_owned(), map, tensors })
    }

    fn index(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
        if torch::is_legacy(bytes) {
            torch::index_legacy(bytes)
        } else if bytes.starts_with(b"PK\x03\x04") {
            Err("PyTorch's zip format is not read yet; re-save it as safetensors".into())
        } else if safetensors::looks_like(bytes) {
            safetensors::index(bytes)
        } else {
            let head: Vec<u8> = bytes.iter().take(8).copied().collect();
            Err(format!(
                "expected safetensors or a PyTorch file, found {} bytes starting {head:02x?}",
                bytes.len()
            ))
        }
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| info.shape.as_slice())
    }

    /// A tensor's elements as f32 in row-major order; borrowed from the map where that needs no conversion.
    ///
    /// # Errors
    /// [`ClipError::MissingTensor`] or [`ClipError::TensorShape`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let info = self.info(name, shape)?;
        let bytes = &self.map[info.range.clone()];
        let floats = match info.dtype {
            Dtype::F32 => match bytemuck::try_cast_slice(bytes) {
                Ok(floats) if cfg!(target_endian = "little") => Cow::Borrowed(floats),
                _ => Cow::Owned(decode(bytes, f32::from_le_bytes)),
            },
            Dtype::F16 => Cow::Owned(decode(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Dtype::Bf16 => Cow::Owned(decode(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Dtype::F64 => Cow::Owned(decode(bytes, |b| f64::from_le_bytes(b) as f32)),
            Dtype::Other(size) => {
                return Err(ClipError::checkpoint(
                    &self.path,
                    format!("tensor `{name}` holds integers of {size} bytes, expected floats"),
                ));
            }
        };
        Ok(match &info.strides {
            None => floats,
            Some(strides) => Cow::Owned(gather(&floats, &info.shape, strides)),
        })
    }

    /// Adds row `row` of a `[rows, width]` tensor to `out` (`[width]`), reading only that row's bytes from the file.
    ///
    /// # Panics
    /// If there is no such tensor or row, or its rows are not contiguous; [`Checkpoint::rows`] checks that at load.
    pub(crate) fn add_row(&self, name: &str, row: usize, out: &mut [f32]) {
        let info = &self.tensors[name];
        let width = info.shape[1];
        assert_eq!(width, out.len());
        let size = info.dtype.size();
        let start = info.range.start + row * width * size;
        let bytes = &self.map[start..start + width * size];
        match info.dtype {
            Dtype::F32 => add(bytes, out, f32::from_le_bytes),
            Dtype::F16 => add(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => add(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => add(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Dtype::Other(_) => unreachable!("checked by `rows` at load"),
        }
    }

    /// Checks that [`Checkpoint::add_row`] can read a tensor of that shape.
    ///
    /// # Errors
    /// Those of [`Checkpoint::tensor`], and [`ClipError::Checkpoint`] for a tensor that is stored as a view.
    pub(crate) fn rows(&self, name: &str, shape: [usize; 2]) -> Result<()> {
        let info = self.info(name, &shape)?;
        if info.strides.is_some() || matches!(info.dtype, Dtype::Other(_)) {
            let message = format!("tensor `{name}` is no plain table of floats");
            return Err(ClipError::checkpoint(&self.path, message));
        }
        Ok(())
    }

    fn info(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let info = self.tensors.get(name).ok_or_else(|| ClipError::MissingTensor {
            path: self.path.clone(),
            name: name.to_owned(),
            count: self.tensors.len(),
            sample: self.names().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
        })?;
        if info.shape != shape {
            return Err(ClipError::TensorShape {
                path: self.path.clone(),
                name: name.to_owned(),
                found: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok(info)
    }
}

impl TensorInfo {
    /// Checks that shape, element type and byte range agree and lie within a file of `len` bytes.
    fn check(&self, len: usize) -> Result<(), String> {
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
                "shape {:?} of {:?} does not fit bytes {:?}",
                self.shape, self.dtype, self.range
            ));
        }
        if self.range.end > len {
            return Err(format!("ends at byte {}, but the file has {len}: it is truncated", self.range.end));
        }
        Ok(())
    }
}

/// A view's elements in row-major order.
fn gather(data: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let mut offsets = vec![0];
    for (&d, &stride) in shape.iter().zip(strides) {
        offsets = offsets.iter().flat_map(|&o| (0..d).map(move |i| o + i * stride)).collect();
    }
    offsets.into_iter().map(|o| data[o]).collect()
}

fn decode<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
}

fn add<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (o, &b) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *o += f(b);
    }
}
