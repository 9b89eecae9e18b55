//! Named tensors in memory-mapped files, in any of the formats that are read.
//!
//! A [`Checkpoint`] knows where each tensor's bytes lie; nothing is copied until a layer asks for its weights, so opening a
//! file costs its header only.

mod pickle;
mod prefix;
mod safetensors;
mod shards;
mod source;
mod tensor;
mod torch;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{ClipError, Result};
use source::Source;
pub use tensor::Dtype;
use tensor::TensorInfo;

/// What wrote a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointKind {
    /// safetensors.
    Safetensors,
    /// `torch.save` of a state dict or a training state: `.bin`, `.pth`, `.pt`, `.ckpt`.
    TorchStateDict,
    /// `torch.jit.save`, as OpenAI's original `.pt`. Its code is not read.
    TorchScript,
}

type Tensors = BTreeMap<String, TensorInfo>;

/// A layer's weight and its bias.
pub(crate) type WeightAndBias<'a> = (Cow<'a, [f32]>, Cow<'a, [f32]>);

/// Named tensors of one or several memory-mapped files.
///
/// Read are safetensors, PyTorch's `.bin`, `.pth`, `.pt`, `.ckpt` in the zip format (since 1.6) and the older one, TorchScript
/// archives, and the index of a checkpoint in shards. Pickles are parsed, never executed. A training file's tensors go by the
/// model's own names: of `{"state_dict": {"module.visual.proj": …}, "optimizer": …}` only `visual.proj` is seen.
pub struct Checkpoint {
    path: PathBuf,
    kind: CheckpointKind,
    sources: Vec<Source>,
    tensors: Tensors,
}

impl Checkpoint {
    /// Opens a checkpoint, telling the format from its first bytes; a path that ends in `.json` is an index of shards.
    ///
    /// # Errors
    /// [`ClipError::Io`] if it cannot be read, [`ClipError::Checkpoint`] if it is truncated, damaged, of no known format or would
    /// call what no state dict needs, [`ClipError::MissingFile`] if a shard is not beside its index.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if shards::is_index(path) {
            return shards::open(path);
        }
        Self::from_source(Source::map(path)?)
    }

    /// Reads a checkpoint that is in memory. `name` stands for its path in errors.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; an index of shards is not read, for it needs the files beside it.
    pub fn from_bytes(bytes: Vec<u8>, name: &Path) -> Result<Self> {
        Self::from_source(Source::owned(bytes, name))
    }

    fn from_source(source: Source) -> Result<Self> {
        let path = source.path.clone();
        let (source, kind, tensors) = Self::read(source)?;
        Ok(Self::new(&path, kind, vec![source], tensors))
    }

    fn new(path: &Path, kind: CheckpointKind, sources: Vec<Source>, tensors: Tensors) -> Self {
        Self { path: path.to_owned(), kind, sources, tensors: prefix::plain(tensors) }
    }

    /// One file's tensors, under the names that it gives them.
    fn read(source: Source) -> Result<(Source, CheckpointKind, Tensors)> {
        let fail = |message| ClipError::checkpoint(&source.path, message);
        let (kind, tensors) = index(&source).map_err(fail)?;
        for (name, info) in &tensors {
            info.check(source.len()).map_err(|message| fail(format!("tensor `{name}`: {message}")))?;
        }
        Ok((source, kind, tensors))
    }

    /// The file it was opened from; of shards, their index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors: the one of [`Checkpoint::path`], or the shards in alphabetical order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|source| source.path.as_path())
    }

    /// What wrote it.
    pub fn kind(&self) -> CheckpointKind {
        self.kind
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

    /// The element type that a tensor is stored in, if there is one of that name.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|info| info.dtype)
    }

    /// A tensor's elements as f32 in row-major order; borrowed from the map where that needs no conversion.
    ///
    /// # Errors
    /// [`ClipError::MissingTensor`], [`ClipError::TensorShape`], [`ClipError::TensorDtype`] if it holds no floats, or
    /// [`ClipError::NotFinite`] if a value is NaN or infinite as f32.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let (source, info) = self.info(name, shape)?;
        let floats = values::floats(&source[info.range.clone()], info.dtype);
        let floats = floats.ok_or_else(|| dtype_error(source, name, info.dtype))?;
        let floats = match &info.strides {
            None => floats,
            Some(strides) => Cow::Owned(values::gather(&floats, &info.shape, strides)),
        };
        match values::not_finite(&floats) {
            None => Ok(floats),
            Some(found) => Err(not_finite_error(source, name, found)),
        }
    }

    /// `{prefix}weight` of a shape and `{prefix}bias` of its first length.
    pub(crate) fn weight_and_bias(&self, prefix: &str, shape: &[usize]) -> Result<WeightAndBias<'_>> {
        let weight = self.tensor(&format!("{prefix}weight"), shape)?;
        Ok((weight, self.tensor(&format!("{prefix}bias"), &shape[..1])?))
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
        let bytes = &self.sources[info.source][start..start + width * size];
        let floats = values::floats(bytes, info.dtype).expect("checked by `rows` at load");
        for (o, value) in out.iter_mut().zip(&*floats) {
            *o += value;
        }
    }

    /// Checks that [`Checkpoint::add_row`] can read a tensor of that shape, and that all its values are numbers.
    ///
    /// # Errors
    /// Those of [`Checkpoint::tensor`], and [`ClipError::Checkpoint`] for a tensor that is stored as a view.
    pub(crate) fn rows(&self, name: &str, shape: [usize; 2]) -> Result<()> {
        /// Bytes that are converted at a time, where they must be.
        const PART: usize = 1 << 16;
        let (source, info) = self.info(name, &shape)?;
        if info.strides.is_some() {
            let message = format!(
                "tensor `{name}` is stored as a view, which its rows cannot be read from; save it after .contiguous()"
            );
            return Err(ClipError::checkpoint(&source.path, message));
        }
        let (mut done, mut bad) = (0, None);
        for part in source[info.range.clone()].chunks(PART * info.dtype.size()) {
            let floats = values::floats(part, info.dtype);
            let floats = floats.ok_or_else(|| dtype_error(source, name, info.dtype))?;
            if let Some((count, first)) = values::not_finite(&floats) {
                let (before, earliest) = bad.unwrap_or((0, done + first));
                bad = Some((before + count, earliest));
            }
            done += floats.len();
        }
        bad.map_or(Ok(()), |found| Err(not_finite_error(source, name, found)))
    }

    /// Gives back the memory of the files' pages that were read. Tensors stay as they are: their pages come again when they are read.
    pub(crate) fn release(&self) {
        self.sources.iter().for_each(Source::release);
    }

    /// The tensor of that name and shape, and the file it lies in.
    fn info(&self, name: &str, shape: &[usize]) -> Result<(&Source, &TensorInfo)> {
        let info = self.tensors.get(name).ok_or_else(|| ClipError::MissingTensor {
            path: self.path.clone(),
            name: name.to_owned(),
            count: self.tensors.len(),
            sample: self.names().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
        })?;
        let source = &self.sources[info.source];
        if info.shape != shape {
            return Err(ClipError::TensorShape {
                path: source.path.clone(),
                name: name.to_owned(),
                found: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok((source, info))
    }
}

/// Detects the format and reads its index.
fn index(bytes: &[u8]) -> Result<(CheckpointKind, Tensors), String> {
    if torch::is_legacy(bytes) {
        Ok((CheckpointKind::TorchStateDict, torch::index_legacy(bytes)?))
    } else if torch::is_archive(bytes) {
        torch::index_archive(bytes)
    } else if safetensors::looks_like(bytes) {
        Ok((CheckpointKind::Safetensors, safetensors::index(bytes)?))
    } else {
        let head: Vec<u8> = bytes.iter().take(8).copied().collect();
        let hint = if bytes.starts_with(b"version https://git-lfs") {
            "; it is a placeholder of Git LFS, run `git lfs pull`"
        } else {
            ""
        };
        Err(format!(
            "expected safetensors or a PyTorch file, found {} bytes starting {head:02x?}{hint}",
            bytes.len()
        ))
    }
}

fn dtype_error(source: &Source, name: &str, found: Dtype) -> ClipError {
    ClipError::TensorDtype {
        path: source.path.clone(),
        name: name.to_owned(),
        found,
        expected: "F32, F16, BF16 or F64",
    }
}

fn not_finite_error(source: &Source, name: &str, (count, first): (usize, usize)) -> ClipError {
    ClipError::NotFinite { path: source.path.clone(), name: name.to_owned(), count, first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// A safetensors file of one tensor `t`.
    fn file(dtype: &str, shape: [usize; 2], data: &[u8]) -> Checkpoint {
        let end = data.len();
        let header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{end}]}}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        Checkpoint::from_bytes(bytes, Path::new("t.safetensors")).unwrap()
    }

    #[test]
    fn rows_of_every_float_type_are_added() {
        let values = [1.0f32, -2.0, 0.5, 3.0, 4.0, -0.25];
        let all = |f: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|&v| f(v)).collect::<Vec<u8>>();
        for (dtype, data) in [
            ("F32", all(&|v| v.to_le_bytes().to_vec())),
            ("F16", all(&|v| f16::from_f32(v).to_le_bytes().to_vec())),
            ("BF16", all(&|v| bf16::from_f32(v).to_le_bytes().to_vec())),
            ("F64", all(&|v| f64::from(v).to_le_bytes().to_vec())),
        ] {
            let checkpoint = file(dtype, [2, 3], &data);
            checkpoint.rows("t", [2, 3]).unwrap();
            let mut row = [10.0; 3];
            checkpoint.add_row("t", 1, &mut row);
            assert_eq!(row, [13.0, 14.0, 9.75], "{dtype}");
            assert!(matches!(checkpoint.rows("t", [3, 2]), Err(ClipError::TensorShape { .. })));
        }
        let integers = file("I16", [2, 3], &[0; 12]);
        assert!(matches!(
            integers.rows("t", [2, 3]),
            Err(ClipError::TensorDtype { found: Dtype::Other(2), .. })
        ));
    }

    #[test]
    fn a_table_with_values_that_are_no_numbers_is_refused_and_they_are_counted() {
        let mut values = vec![1.0f32; 400_000];
        for at in [70_000, 70_001, 399_999] {
            values[at] = f32::NAN;
        }
        let checkpoint = file("F32", [1000, 400], bytemuck::cast_slice(&values));
        let error = checkpoint.rows("t", [1000, 400]).unwrap_err();
        assert!(matches!(error, ClipError::NotFinite { count: 3, first: 70_000, .. }), "{error}");
    }
}
