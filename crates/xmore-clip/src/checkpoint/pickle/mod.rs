//! Just enough of Python's pickle to read the index of a PyTorch checkpoint, without executing anything.
//!
//! A pickle is a program for a stack machine whose `REDUCE` calls any Python function it names. Here a call of a name that is
//! not in `names.rs` is refused, and the allowed ones are not made either: a call stays a [`Value::Call`], which the `torch`
//! module reads as data. Kept by hand because the crates that parse PyTorch files read only the zip format (since PyTorch 1.6), or
//! bring a tensor framework along.

mod machine;
mod names;

use std::rc::Rc;

/// A pickled value, as data. Containers are numbers into their [`Pickle`], so that no nesting and no cycle of a hostile file can
/// overflow the stack or leak.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    /// A tuple, list or set.
    Seq(usize),
    /// A dictionary or ordered dictionary.
    Dict(usize),
    /// A global's `module.name`, mentioned and not called.
    Global(Rc<str>),
    /// An allowed global, and the sequence of arguments it would be called with.
    Call(Rc<str>, usize),
    /// An instance of an allowed class.
    Object(usize),
    /// A reference that the file format resolves (to a storage, here).
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
    /// Each object's attributes, once BUILD has set them.
    objects: Vec<Option<Value>>,
    persistent: Vec<Value>,
}

impl Heap {
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

    fn entries(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(n) => Some(&self.dicts[*n]),
            Value::Object(n) => match self.objects[*n].as_ref()? {
                Value::Dict(n) => Some(&self.dicts[*n]),
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

    /// The entries of a dictionary, or the attributes of an object, in order.
    pub(super) fn entries(&self, value: &Value) -> Option<&[(Value, Value)]> {
        self.heap.entries(value)
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
            Value::Persistent(n) => self.heap.persistent.get(*n),
            _ => None,
        }
    }

    /// What all persistent references wrap.
    pub(super) fn all_persistent(&self) -> &[Value] {
        &self.heap.persistent
    }
}

/// Reads one pickle from the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    machine::Machine::new(bytes).run()
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
