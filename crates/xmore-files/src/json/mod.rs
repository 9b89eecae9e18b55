//! Lenient JSON: a few fields of an object, whatever else is in it; what has another type than expected counts as absent.

mod limited;

use std::fmt;

pub use limited::LimitedStrings;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value, as far as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// The texts of a list.
    Texts(Vec<String>),
    /// Null, or nothing.
    #[default]
    Null,
    /// Anything else.
    Other,
}

impl Value {
    /// The texts in it: one, several or none.
    pub fn into_texts(self) -> Vec<String> {
        match self {
            Value::Text(text) => vec![text],
            Value::Texts(texts) => texts,
            Value::Integer(_) | Value::Null | Value::Other => Vec::new(),
        }
    }

    /// Its text, if it is one.
    pub fn into_text(self) -> Option<String> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }
}

impl<'de> serde::Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Value, E> {
                Ok(Value::Text(text))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Integer(number.into()))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
                Ok(Value::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
                Ok(Value::Other)
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(value) = list.next_element::<Value>()? {
                    texts.extend(value.into_text());
                }
                Ok(Value::Texts(texts))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Reads an object's fields of these names, in this order; of a name that comes twice the last, as Python does.
/// Gives `None` for what is no object.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Option<Vec<Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Option<Vec<Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![Value::Null; self.0.len()];
        while let Some(key) = map.next_key_seed(Key(self.0))? {
            match key {
                Some(index) => values[index] = map.next_value()?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Some(values))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Which of the wanted names a key is, without a copy of it.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a>(pub &'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

/// Fields of the object in `bytes`, `None` if it is no object.
///
/// # Errors
/// What the parser says of bytes that are not JSON. Python's bare `NaN` and `Infinity` are read as null.
pub fn fields(bytes: &[u8], names: &[&str]) -> serde_json::Result<Option<Vec<Value>>> {
    let parse = |bytes: &[u8]| {
        let mut parser = serde_json::Deserializer::from_slice(bytes);
        let value = Fields(names).deserialize(&mut parser)?;
        parser.end().map(|()| value)
    };
    parse(bytes).or_else(|error| without_python_numbers(bytes).map_or(Err(error), |bytes| parse(&bytes)))
}

/// Adds the keys of the object in `bytes` that are not there yet, until there are `max`. What is no object adds none.
pub fn add_keys(bytes: &[u8], max: usize, keys: &mut Vec<String>) {
    let parsed = serde_json::from_slice::<KeysOf>(bytes);
    let parsed = parsed.or_else(|error| {
        without_python_numbers(bytes).map_or(Err(error), |bytes| serde_json::from_slice(&bytes))
    });
    for key in parsed.map(|KeysOf(keys)| keys).unwrap_or_default() {
        if keys.len() < max && !keys.contains(&key) {
            keys.push(key);
        }
    }
}

/// The keys of an object.
struct KeysOf(Vec<String>);

impl<'de> serde::Deserialize<'de> for KeysOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeysOf, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = KeysOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeysOf, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = map.next_key()? {
                    keys.push(key);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(KeysOf(keys))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Puts null for bare `NaN`, `Infinity` and `-Infinity`, which Python's json module writes; `None` if there are none.
fn without_python_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut in_string, mut changed) = (0, false, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let number = [&b"NaN"[..], b"Infinity", b"-Infinity"].into_iter().find(|n| rest.starts_with(n));
        if let (Some(number), false) = (number, in_string) {
            out.extend(b"null");
            at += number.len();
            changed = true;
            continue;
        }
        if in_string && rest[0] == b'\\' && rest.len() > 1 {
            out.push(rest[0]);
            at += 1;
        } else if rest[0] == b'"' {
            in_string = !in_string;
        }
        out.push(bytes[at]);
        at += 1;
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn caption(json: &str) -> Option<Value> {
        fields(json.as_bytes(), &["caption"]).unwrap().map(|mut values| values.remove(0))
    }

    #[test]
    fn the_wanted_field_is_found_among_any_others() {
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        assert_eq!(caption(r#"{"a": [{"caption": 1}], "caption": "x", "b": {"c": 1e5}}"#), text("x"));
        assert_eq!(caption(r#"{"caption": "a", "caption": "b"}"#), text("b"));
        assert_eq!(caption(r#"{"caption": null}"#), Some(Value::Null));
        assert_eq!(caption(r#"{"caption": true}"#), Some(Value::Other));
        assert_eq!(
            caption(r#"{"caption": ["a", 1, "b"]}"#),
            Some(Value::Texts(vec!["a".into(), "b".into()]))
        );
        assert_eq!(caption("[1, 2]"), None);
        assert_eq!(caption("3.5"), None);
    }

    #[test]
    fn pythons_bare_numbers_are_read_as_null() {
        let json = r#"{"p": NaN, "caption": "NaN \" Infinity", "q": -Infinity}"#;
        assert_eq!(caption(json), Some(Value::Text("NaN \" Infinity".to_owned())));
        assert!(fields(br#"{"p": nan}"#, &["p"]).is_err());
    }

    #[test]
    fn deep_nesting_neither_overflows_nor_hides_what_is_around_it() {
        let deep = format!(r#"{{"x": {}{}, "caption": "y"}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(caption(&deep), Some(Value::Text("y".to_owned())));
        assert!(fields(format!(r#"{{"caption": {}"#, "[".repeat(200_000)).as_bytes(), &["caption"]).is_err());
    }

    #[test]
    fn keys_are_added_once() {
        let mut keys = Vec::new();
        for object in [r#"{"a": {"x": 1}, "b": NaN}"#, "[1]", "{", r#"{"b": 1, "c": 2, "d": 3}"#] {
            add_keys(object.as_bytes(), 3, &mut keys);
        }
        assert_eq!(keys, ["a", "b", "c"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&bytes, &["caption"]);
            let _ = fields(&[b"{\"caption\":", &bytes[..], b"}"].concat(), &["caption"]);
        }
    }
}
