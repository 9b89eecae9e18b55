//! Pickle's stack machine: opcodes in, inert values out.

use std::collections::HashMap;

use super::names::{allowed, makes_dict};
use super::{Heap, Pickle, Value};

/// What one pickle may put on the stack at once.
const MAX_STACK: usize = 1 << 20;

/// What one pickle may make in all: containers, their items, memo entries. A training checkpoint of the largest CLIP needs some
/// hundred thousand.
const MAX_VALUES: usize = 1 << 21;

/// Longest pickle that is read. That of a training checkpoint takes a few megabytes.
const MAX_LEN: usize = 64 << 20;

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    pos: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    heap: Heap,
    made: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0, stack: Vec::new(), memo: HashMap::new(), heap: Heap::default(), made: 0 }
    }

    pub(super) fn run(mut self) -> Result<Pickle, String> {
        loop {
            let at = self.pos;
            let op = self.take(1)?[0];
            if op == b'.' {
                let value = self.pop()?;
                return Ok(Pickle { value, len: self.pos, heap: self.heap });
            }
            self.step(op).map_err(|e| format!("pickle, byte {at}: {e}"))?;
            if self.stack.len() > MAX_STACK || self.made > MAX_VALUES || self.pos > MAX_LEN {
                return Err(format!(
                    "pickle, byte {at}: larger than any checkpoint's index (limits: {MAX_STACK} values on the stack, \
                     {MAX_VALUES} in all, {MAX_LEN} bytes)"
                ));
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
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.take(1)?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => {
                let n = self.take(1)?[0];
                self.long(n.into())?
            }
            0x8b => {
                let n = self.len4()?;
                self.long(n)?
            }
            b'G' => self.take(8).map(|_| Value::Float)?,
            // The BINUNICODE family; BINSTRING is Python 2's.
            b'X' => {
                let n = self.len4()?;
                self.string(n)?
            }
            0x8c => {
                let n = self.take(1)?[0];
                self.string(n.into())?
            }
            0x8d => {
                let n = self.len8()?;
                self.string(n)?
            }
            b'T' => {
                let n = self.len4()?;
                self.string(n)?
            }
            b'U' => {
                let n = self.take(1)?[0];
                self.string(n.into())?
            }
            b'C' => {
                let n = self.take(1)?[0];
                self.take(n.into()).map(|_| Value::Bytes)?
            }
            b'B' => {
                let n = self.len4()?;
                self.take(n).map(|_| Value::Bytes)?
            }
            0x8e | 0x96 => {
                let n = self.len8()?;
                self.take(n).map(|_| Value::Bytes)?
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                Value::Global(format!("{module}.{name}").into())
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module.as_str(), name.as_str()) {
                    (Some(module), Some(name)) if module.len() + name.len() < 512 => {
                        Value::Global(format!("{module}.{name}").into())
                    }
                    _ => return Err("a global's name is not a short string".into()),
                }
            }
            b')' | b']' | 0x8f => self.seq(Vec::new()),
            b'}' => self.dict(Vec::new()),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' | 0x91 => {
                let items = self.pop_mark()?;
                self.seq(items)
            }
            b'R' => {
                let (args, function) = (self.pop()?, self.pop()?);
                self.call(&function, &args)?
            }
            0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.instance(&class, &args)?
            }
            0x92 => {
                let (_keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.instance(&class, &args)?
            }
            b'b' => return self.build(),
            b'Q' => {
                let id = self.pop()?;
                self.made += 1;
                self.heap.persistent.push(id);
                Value::Persistent(self.heap.persistent.len() - 1)
            }
            b'a' => {
                let item = self.pop()?;
                return self.extend(vec![item]);
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                return self.extend(items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set_items(&[key, value]);
            }
            b'u' => {
                let items = self.pop_mark()?;
                return self.set_items(&items);
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
            b'1' => return self.pop_mark().map(|_| ()),
            b'2' => self.stack.last().ok_or("the stack is empty")?.clone(),
            other => return Err(format!("opcode 0x{other:02x} is not one that checkpoints use")),
        };
        self.stack.push(value);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
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

    fn len4(&mut self) -> Result<usize, String> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn len8(&mut self) -> Result<usize, String> {
        let n = u64::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| format!("a value of {n} bytes"))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.pos..];
        let n = rest.iter().take(256).position(|&b| b == b'\n').ok_or("a global's name does not end")?;
        let line = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    /// Text; what is not UTF-8 (Python 2's byte strings) is kept as `Bytes`.
    fn string(&mut self, n: usize) -> Result<Value, String> {
        let bytes = self.take(n)?;
        Ok(std::str::from_utf8(bytes).map_or(Value::Bytes, |s| Value::Str(s.into())))
    }

    /// Little-endian two's complement. Longer than 8 bytes (PyTorch's magic number) is kept as `Bytes`.
    fn long(&mut self, n: usize) -> Result<Value, String> {
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

    fn seq(&mut self, items: Vec<Value>) -> Value {
        self.made += 1 + items.len();
        self.heap.seqs.push(items);
        Value::Seq(self.heap.seqs.len() - 1)
    }

    fn dict(&mut self, items: Vec<(Value, Value)>) -> Value {
        self.made += 1 + items.len();
        self.heap.dicts.push(items);
        Value::Dict(self.heap.dicts.len() - 1)
    }

    fn tuple(&mut self, n: usize) -> Result<Value, String> {
        let start = self.stack.len().checked_sub(n).ok_or("the stack is empty")?;
        if self.stack[start..].iter().any(|v| matches!(v, Value::Mark)) {
            return Err("the stack is empty".into());
        }
        let items = self.stack.split_off(start);
        Ok(self.seq(items))
    }

    fn extend(&mut self, new: Vec<Value>) -> Result<(), String> {
        self.made += new.len();
        match self.stack.last() {
            Some(Value::Seq(n)) => self.heap.seqs[*n].extend(new),
            // A list's subclass: opaque.
            Some(Value::Call(..) | Value::Object(_)) => {}
            _ => return Err("append to something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, flat: &[Value]) -> Result<(), String> {
        self.made += flat.len();
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a dictionary's key has no value".into());
        }
        match self.stack.last() {
            Some(Value::Dict(n)) => {
                self.heap.dicts[*n].extend(pairs.iter().map(|[k, v]| (k.clone(), v.clone())));
            }
            // A dictionary's subclass: opaque.
            Some(Value::Call(..) | Value::Object(_)) => {}
            _ => return Err("item set on something that is no dictionary".into()),
        }
        Ok(())
    }

    /// REDUCE: notes the call. Dictionaries by other names become dictionaries.
    fn call(&mut self, function: &Value, args: &Value) -> Result<Value, String> {
        let Value::Global(name) = function else {
            return Err("a call of something that is no global".into());
        };
        allowed(name)?;
        let Value::Seq(args) = args else { return Err("a call whose arguments are no tuple".into()) };
        if name.ends_with("._reconstructor") {
            // Python 2's way to make an instance: the class is the first argument.
            match self.heap.seqs[*args].first() {
                Some(Value::Global(class)) => allowed(class)?,
                _ => return Err(format!("`{name}` of something that is no class")),
            }
        }
        if !makes_dict(name) {
            return Ok(Value::Call(name.clone(), *args));
        }
        // OrderedDict([[key, value], …]) is Python 2's; Counter({…}) and defaultdict(factory, {…}) have a dictionary.
        let Some(source) = self.heap.seqs[*args].last() else { return Ok(self.dict(Vec::new())) };
        // Copies can multiply a file's size: counted before they are made.
        let size =
            self.heap.items(source).map_or(0, <[_]>::len) + self.heap.entries(source).map_or(0, <[_]>::len);
        if self.made + size > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        let pairs = if let Some(list) = self.heap.items(source) {
            let pairs = list.iter().filter_map(|pair| match self.heap.items(pair) {
                Some([key, value]) => Some((key.clone(), value.clone())),
                _ => None,
            });
            pairs.collect()
        } else {
            self.heap.entries(source).unwrap_or_default().to_vec()
        };
        Ok(self.dict(pairs))
    }

    /// NEWOBJ: an instance of an allowed class, without its arguments: no class of the list that holds tensors takes any.
    fn instance(&mut self, class: &Value, args: &Value) -> Result<Value, String> {
        let (Value::Global(name), Value::Seq(_)) = (class, args) else {
            return Err("an instance of something that is no class".into());
        };
        allowed(name)?;
        if makes_dict(name) {
            return Ok(self.dict(Vec::new()));
        }
        self.made += 1;
        self.heap.objects.push(None);
        Ok(Value::Object(self.heap.objects.len() - 1))
    }

    /// BUILD: sets attributes. Only an object's are kept; an ordered dictionary's are its `_metadata`.
    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        match self.stack.last() {
            Some(Value::Object(n)) => self.heap.objects[*n] = Some(state),
            Some(Value::Call(..) | Value::Dict(_) | Value::Seq(_)) => {}
            _ => return Err("attributes set on something that is no object".into()),
        }
        Ok(())
    }

    fn put(&mut self, key: u32) -> Result<(), String> {
        let top = self.stack.last().ok_or("the stack is empty")?.clone();
        self.made += 1;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&self, key: u32) -> Result<Value, String> {
        self.memo.get(&key).cloned().ok_or_else(|| format!("memo {key} was never set"))
    }
}
