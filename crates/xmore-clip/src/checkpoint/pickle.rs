//! Just enough of Python's pickle to read the index of a PyTorch checkpoint, without executing anything.
//!
//! A pickle is a program for a stack machine whose `REDUCE` calls any Python function it names. Here a name outside
//! [`ALLOWED`] is refused, and the allowed ones are not called either: a call stays a [`Value::Call`], which `torch.rs`
//! reads as data. Kept by hand because the crates that parse PyTorch files read only the zip format (since PyTorch 1.6), or bring
//! a tensor framework along.

use std::collections::HashMap;
use std::rc::Rc;

/// `module.name` pairs that a state dict may mention. Nothing else is accepted.
const ALLOWED: &[&str] = &[
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "torch.Size",
];

/// Nesting and size limits: a state dict of the largest CLIP has about a thousand entries.
const MAX_STACK: usize = 1 << 20;

/// A pickled value, as data. Containers are numbers into their [`Pickle`], so that no nesting and no cycle of a hostile file can
/// overflow the stack or leak.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    /// A tuple or list.
    Seq(usize),
    /// A dictionary or ordered dictionary.
    Dict(usize),
    /// An allowed global's `module.name`.
    Global(Rc<str>),
    /// An allowed global, and the sequence of arguments it would be called with.
    Call(Rc<str>, usize),
    /// A reference that the file format resolves (to a storage, here): a sequence of one.
    Persistent(usize),
    /// The mark of the stack machine; never inside a finished value.
    Mark,
}

impl Value {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    pub(super) fn as_usize(&self) -> Option<usize> {
        match self {
            Value::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }
}

/// One pickle: its value and everything that the value refers to.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) value: Value,
    /// Bytes that the pickle took.
    pub(super) len: usize,
    heap: Heap,
}

#[derive(Debug, Default)]
struct Heap {
    seqs: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Heap {
    fn seq(&mut self, items: Vec<Value>) -> usize {
        self.seqs.push(items);
        self.seqs.len() - 1
    }

    fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Seq(n) => Some(&self.seqs[*n]),
            // torch.Size((1, 2)) is a tuple by another name.
            Value::Call(name, args) if &**name == "torch.Size" => match self.seqs[*args].first()? {
                Value::Seq(n) => Some(&self.seqs[*n]),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Pickle {
    /// The elements of a tuple or list.
    pub(super) fn items(&self, value: &Value) -> Option<&[Value]> {
        self.heap.items(value)
    }

    /// The entries of a dictionary, in order.
    pub(super) fn entries(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(n) => Some(&self.heap.dicts[*n]),
            _ => None,
        }
    }

    /// The name and arguments of a call.
    pub(super) fn call<'a>(&'a self, value: &'a Value) -> Option<(&'a str, &'a [Value])> {
        match value {
            Value::Call(name, args) => Some((name, &self.heap.seqs[*args])),
            _ => None,
        }
    }

    /// What a persistent reference wraps.
    pub(super) fn persistent(&self, value: &Value) -> Option<&Value> {
        match value {
            Value::Persistent(n) => self.heap.seqs[*n].first(),
            _ => None,
        }
    }
}

/// Reads one pickle from the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    Machine { bytes, pos: 0, stack: Vec::new(), memo: HashMap::new(), heap: Heap::default() }.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    pos: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    heap: Heap,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Pickle, String> {
        loop {
            let at = self.pos;
            let op = self.take(1)?[0];
            if op == b'.' {
                let value = self.pop()?;
                return Ok(Pickle { value, len: self.pos, heap: self.heap });
            }
            self.step(op).map_err(|e| format!("pickle, byte {at}: {e}"))?;
            if self.stack.len() > MAX_STACK {
                return Err(format!("pickle, byte {at}: more than {MAX_STACK} values on the stack"));
            }
        }
    }

    fn step(&mut self, op: u8) -> Result<(), String> {
        let value = match op {
            0x80 => {
                let version = self.take(1)?[0];
                return if version <= 5 {
                    Ok(())
                } else {
                    Err(format!("protocol {version}, expected at most 5"))
                };
            }
            // FRAME only announces a length.
            0x95 => return self.take(8).map(|_| ()),
            b'(' => Value::Mark,
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool,
            b'K' => Value::Int(self.take(1)?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => self.long1()?,
            b'G' => self.take(8).map(|_| Value::Float)?,
            b'X' => {
                let n = u32::from_le_bytes(self.array()?);
                self.string(n as usize)?
            }
            0x8c => {
                let n = self.take(1)?[0];
                self.string(n.into())?
            }
            b'C' => {
                let n = self.take(1)?[0];
                self.take(n.into()).map(|_| Value::Bytes)?
            }
            b'B' => {
                let n = u32::from_le_bytes(self.array()?);
                self.take(n as usize).map(|_| Value::Bytes)?
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                global(&module, &name)?
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module.as_str(), name.as_str()) {
                    (Some(module), Some(name)) => global(module, name)?,
                    _ => return Err("a global's name is not a string".into()),
                }
            }
            b')' | b']' => Value::Seq(self.heap.seq(Vec::new())),
            b'}' => self.dict(Vec::new()),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_mark()?;
                Value::Seq(self.heap.seq(items))
            }
            b'R' => {
                let (args, function) = (self.pop()?, self.pop()?);
                self.call(&function, &args)?
            }
            b'b' => {
                // BUILD sets attributes (`__dict__`); of a state dict only `_metadata`, which is not needed.
                self.pop()?;
                return Ok(());
            }
            b'Q' => {
                let id = self.pop()?;
                Value::Persistent(self.heap.seq(vec![id]))
            }
            b'a' => {
                let item = self.pop()?;
                return self.extend(vec![item]);
            }
            b'e' => {
                let items = self.pop_mark()?;
                return self.extend(items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set_items(vec![key, value]);
            }
            b'u' => {
                let items = self.pop_mark()?;
                return self.set_items(items);
            }
            b'q' => {
                let key = self.take(1)?[0];
                return self.put(key.into());
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                return self.put(key);
            }
            0x94 => {
                let key = self.memo.len() as u32;
                return self.put(key);
            }
            b'h' => {
                let key = self.take(1)?[0];
                self.get(key.into())?
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.get(key)?
            }
            b'0' => return self.pop().map(|_| ()),
            other => return Err(format!("opcode 0x{other:02x} is not one that a state dict uses")),
        };
        self.stack.push(value);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let end = self.pos.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end =
            end.ok_or_else(|| format!("{n} bytes wanted at {}, the file ends: it is truncated", self.pos))?;
        let slice = &self.bytes[self.pos..end];
        self.pos = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("take returns N bytes"))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.pos..];
        let n = rest.iter().take(256).position(|&b| b == b'\n').ok_or("a global's name does not end")?;
        let line = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    fn string(&mut self, n: usize) -> Result<Value, String> {
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map(|s| Value::Str(s.into())).map_err(|e| format!("string: {e}"))
    }

    /// LONG1: little-endian two's complement. Longer than 8 bytes (PyTorch's magic number) is kept as `Bytes`.
    fn long1(&mut self) -> Result<Value, String> {
        let n = usize::from(self.take(1)?[0]);
        let bytes = self.take(n)?;
        if n > 8 {
            return Ok(Value::Bytes);
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..n].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn pop(&mut self) -> Result<Value, String> {
        match self.stack.pop() {
            Some(Value::Mark) | None => Err("the stack is empty".into()),
            Some(value) => Ok(value),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or("no mark on the stack")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, n: usize) -> Result<Value, String> {
        let start = self.stack.len().checked_sub(n).ok_or("the stack is empty")?;
        let items = self.stack.split_off(start);
        Ok(Value::Seq(self.heap.seq(items)))
    }

    fn extend(&mut self, new: Vec<Value>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::Seq(n)) => self.heap.seqs[*n].extend(new),
            _ => return Err("append to something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, flat: Vec<Value>) -> Result<(), String> {
        let pairs = flat.as_chunks::<2>().0.iter().map(|[k, v]| (k.clone(), v.clone()));
        match self.stack.last() {
            Some(Value::Dict(n)) => self.heap.dicts[*n].extend(pairs),
            _ => return Err("item set on something that is no dictionary".into()),
        }
        Ok(())
    }

    fn dict(&mut self, items: Vec<(Value, Value)>) -> Value {
        self.heap.dicts.push(items);
        Value::Dict(self.heap.dicts.len() - 1)
    }

    /// REDUCE: notes the call. An ordered dictionary becomes a dictionary, from its list of pairs (Python 2) or empty.
    fn call(&mut self, function: &Value, args: &Value) -> Result<Value, String> {
        let Value::Global(name) = function else {
            return Err("a call of something that is no global".into());
        };
        let Value::Seq(args) = args else { return Err("a call whose arguments are no tuple".into()) };
        if &**name != "collections.OrderedDict" {
            return Ok(Value::Call(name.clone(), *args));
        }
        let pairs = self.heap.seqs[*args].first().and_then(|list| self.heap.items(list)).unwrap_or_default();
        let pairs = pairs.iter().filter_map(|pair| match self.heap.items(pair) {
            Some([key, value]) => Some((key.clone(), value.clone())),
            _ => None,
        });
        let pairs = pairs.collect();
        Ok(self.dict(pairs))
    }

    fn put(&mut self, key: u32) -> Result<(), String> {
        let top = self.stack.last().ok_or("the stack is empty")?.clone();
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&self, key: u32) -> Result<Value, String> {
        self.memo.get(&key).cloned().ok_or_else(|| format!("memo {key} was never set"))
    }
}

fn global(module: &str, name: &str) -> Result<Value, String> {
    let full = format!("{module}.{name}");
    if ALLOWED.contains(&full.as_str()) {
        Ok(Value::Global(full.into()))
    } else {
        Err(format!(
            "it names `{full}`, which is not on the allow-list of a state dict; refused, nothing was executed"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_to_run_a_command() {
        // pickle.dumps of an object whose __reduce__ is os.system("true")
        let evil = b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.";
        let error = read(evil).unwrap_err();
        assert!(error.contains("posix.system"), "{error}");
    }

    #[test]
    fn reads_a_dictionary_and_tells_its_length() {
        // pickle.dumps({"a": 1, "b": (2, -3)}, 2) and a tail
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01X\x01\x00\x00\x00bq\x02K\x02J\xfd\xff\xff\xff\x86q\x03u.tail";
        let pickle = read(bytes).unwrap();
        assert_eq!(&bytes[pickle.len..], b"tail");
        let entries = pickle.entries(&pickle.value).unwrap();
        assert_eq!(entries[0].0.as_str(), Some("a"));
        assert_eq!(entries[0].1.as_usize(), Some(1));
        let pair = pickle.items(&entries[1].1).unwrap();
        assert!(matches!(pair[1], Value::Int(-3)));
    }

    #[test]
    fn cycles_and_deep_nesting_neither_loop_nor_overflow() {
        // l = []; l.append(l)
        assert!(read(b"\x80\x02]q\x00h\x00a.").is_ok());
        let mut deep = b"N".to_vec();
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert!(read(&deep).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn never_panics_on_likely_opcodes(bytes in proptest::collection::vec(
            proptest::sample::select(b"(.}])tuseaRQbqhK\x00\x01\x85\x86\x87\x94N0".to_vec()), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
