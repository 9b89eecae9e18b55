//! PyTorch's files: what their pickle describes, under dotted names, and where it lies.
//!
//! The two containers (`legacy`, `archive`) find the pickle and the storages; this module reads the tensors out of the object.

mod archive;
mod legacy;
mod zip;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

pub(super) use archive::{index_archive, is_archive};
pub(super) use legacy::{index_legacy, is_legacy};

use super::pickle::{Pickle, Value};
use super::tensor::{Dtype, TensorInfo};

/// Nesting of dictionaries and modules that is followed; a tower's modules nest to about ten.
const MAX_DEPTH: usize = 32;
/// Values looked at. A dictionary may occur in many places, so that this can exceed what the pickle holds.
const MAX_VISITS: usize = 1 << 20;
/// Tensors of a file; a training checkpoint of the largest CLIP has some five thousand.
const MAX_TENSORS: usize = 1 << 16;
/// Bytes of a tensor's name.
const MAX_NAME: usize = 1024;
/// Dimensions of a tensor; a convolution's weight has four.
const MAX_DIMS: usize = 8;

/// A tensor as the pickle describes it, before its storage's place is known.
struct Described<'a> {
    name: String,
    storage: &'a str,
    dtype: Dtype,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Gathers a pickled object's tensors under dotted names: keys of dictionaries, attributes of TorchScript's modules.
fn describe(pickle: &Pickle) -> Result<Vec<Described<'_>>, String> {
    let mut walk = Walk { pickle, visits: 0, out: Vec::new() };
    walk.collect(&pickle.value, String::new(), 0)?;
    if walk.out.is_empty() {
        return Err("it holds no named tensors, expected a model's state dict".into());
    }
    Ok(walk.out)
}

struct Walk<'a> {
    pickle: &'a Pickle,
    visits: usize,
    out: Vec<Described<'a>>,
}

impl<'a> Walk<'a> {
    fn collect(&mut self, value: &'a Value, name: String, depth: usize) -> Result<(), String> {
        self.visits += 1;
        if depth > MAX_DEPTH || self.visits > MAX_VISITS || name.len() > MAX_NAME {
            let name: String = name.chars().take(80).collect();
            return Err(format!("`{name}` is nested too deeply or in too many places for a state dict"));
        }
        if let Some(entries) = self.pickle.entries(value) {
            for (key, value) in entries {
                // An optimizer's states go by numbers.
                let Some(key) = key.as_str() else { continue };
                let inner = matches!(value, Value::Dict(_) | Value::Object(_) | Value::Call(..));
                if !inner {
                    continue;
                }
                let name = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
                self.collect(value, name, depth + 1)?;
            }
            return Ok(());
        }
        let Some((function, args)) = self.pickle.call(value) else { return Ok(()) };
        let malformed = |name: &str, what: &str| Err(format!("tensor `{name}` is malformed: {what}"));
        let (function, args) = match (function, args) {
            // (function, class, arguments, attributes): a tensor of a class of its own.
            ("torch._tensor._rebuild_from_type_v2", [Value::Global(function), _, args, ..]) => {
                match self.pickle.items(args) {
                    Some(args) => (&**function, args),
                    None => return malformed(&name, "it has no arguments"),
                }
            }
            other => other,
        };
        match function {
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch.nn.parameter.Parameter"
            | "torch.nn.parameter.Buffer" => match args.first() {
                Some(data) => self.collect(data, name, depth + 1),
                None => malformed(&name, "a parameter without data"),
            },
            "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3" => {
                if self.out.len() == MAX_TENSORS {
                    return Err(format!("it holds more than {MAX_TENSORS} tensors"));
                }
                let v3 = function.ends_with("v3");
                match self.tensor(&name, v3, args) {
                    Ok(tensor) => self.out.push(tensor),
                    Err(what) => return malformed(&name, what),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `_rebuild_tensor(storage, storage_offset, size, stride)`; `_v2` adds `requires_grad, backward_hooks, metadata`, and `_v3` a
    /// dtype before the metadata.
    fn tensor(&self, name: &str, v3: bool, args: &'a [Value]) -> Result<Described<'a>, &'static str> {
        let [storage, offset, shape, strides, rest @ ..] = args else { return Err("it lacks arguments") };
        let storage = self.pickle.persistent(storage).and_then(|id| Storage::of(self.pickle, id));
        let storage = storage.ok_or("its storage is not described as PyTorch does")?;
        let dtype = match (v3, rest.get(2)) {
            (false, _) => storage.dtype,
            (true, Some(Value::Global(dtype))) => named_dtype(dtype).ok_or("it has an unknown dtype")?,
            (true, _) => return Err("it has no dtype"),
        };
        let metadata = rest.get(if v3 { 3 } else { 2 });
        if metadata.and_then(|m| self.pickle.entries(m)).is_some_and(|entries| !entries.is_empty()) {
            return Err("it is stored as the conjugate or negative of its elements; save it after .clone()");
        }
        let sizes = |v: &Value| {
            let items = self.pickle.items(v)?;
            (items.len() <= MAX_DIMS)
                .then(|| items.iter().map(Value::as_usize).collect::<Option<Vec<_>>>())?
        };
        Ok(Described {
            name: name.to_owned(),
            storage: storage.key,
            dtype,
            offset: offset.as_usize().ok_or("its offset is no number")?,
            shape: sizes(shape).ok_or("its shape is no short tuple of numbers")?,
            strides: sizes(strides).ok_or("its strides are no short tuple of numbers")?,
        })
    }
}

/// A reference to a storage: `("storage", storage type, key, device, element count[, view])`.
struct Storage<'a> {
    key: &'a str,
    dtype: Dtype,
}

impl<'a> Storage<'a> {
    fn of(pickle: &'a Pickle, id: &'a Value) -> Option<Self> {
        let [kind, Value::Global(class), key, _device, _count, rest @ ..] = pickle.items(id)? else {
            return None;
        };
        // Views of other storages were last written by PyTorch 0.1.
        if kind.as_str() != Some("storage") || rest.iter().any(|view| !matches!(view, Value::None)) {
            return None;
        }
        let dtype = match &**class {
            "torch.FloatStorage" => Dtype::F32,
            "torch.HalfStorage" => Dtype::F16,
            "torch.BFloat16Storage" => Dtype::Bf16,
            "torch.DoubleStorage" => Dtype::F64,
            "torch.ComplexDoubleStorage" => Dtype::Other(16),
            "torch.LongStorage" | "torch.ComplexFloatStorage" => Dtype::Other(8),
            "torch.IntStorage" | "torch.QInt32Storage" => Dtype::Other(4),
            "torch.ShortStorage" => Dtype::Other(2),
            "torch.CharStorage"
            | "torch.ByteStorage"
            | "torch.BoolStorage"
            | "torch.QInt8Storage"
            | "torch.QUInt8Storage"
            | "torch.storage.UntypedStorage" => Dtype::Other(1),
            _ => return None,
        };
        Some(Self { key: key.as_str()?, dtype })
    }
}

/// The dtypes that `_rebuild_tensor_v3` writes are those without a storage type; the others are here for completeness.
fn named_dtype(name: &str) -> Option<Dtype> {
    Some(match name.strip_prefix("torch.")? {
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "float64" => Dtype::F64,
        "uint64" | "int64" => Dtype::Other(8),
        "uint32" | "int32" => Dtype::Other(4),
        "uint16" | "int16" => Dtype::Other(2),
        "uint8" | "int8" | "bool" => Dtype::Other(1),
        float8 if float8.starts_with("float8_") => Dtype::Other(1),
        _ => return None,
    })
}

/// Places the tensors in their storages' bytes.
fn resolve(
    tensors: Vec<Described<'_>>,
    storages: &HashMap<String, Range<usize>>,
    file_len: usize,
) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut index = BTreeMap::new();
    for t in tensors {
        let overflow = || format!("tensor `{}` of shape {:?} overflows", t.name, t.shape);
        let storage = storages
            .get(t.storage)
            .ok_or_else(|| format!("tensor `{}` has no storage {:?}", t.name, t.storage))?;
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
        let size = t.dtype.size();
        let start = t.offset.checked_mul(size).and_then(|o| o.checked_add(storage.start));
        let start = start.ok_or_else(overflow)?;
        let end = extent.checked_mul(size).and_then(|n| n.checked_add(start)).ok_or_else(overflow)?;
        if end > storage.end {
            return Err(format!(
                "tensor `{}` ends at byte {end}, its storage {:?} at {}",
                t.name, t.storage, storage.end
            ));
        }
        // Without elements or with one there is nothing to stride over.
        let strides = (!contiguous && elements > 1).then_some(t.strides);
        let info = TensorInfo { source: 0, dtype: t.dtype, shape: t.shape, strides, range: start..end };
        if index.insert(t.name.clone(), info).is_some() {
            return Err(format!("two tensors are named `{}`", t.name));
        }
    }
    Ok(index)
}
