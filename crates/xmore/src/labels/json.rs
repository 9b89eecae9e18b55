//! Labels in JSON: lists, objects with prompts, tables of numbers and names, and one value on each line.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Label;
use super::columns::{NAME_COLUMNS, PROMPT_COLUMNS, SYNONYM_COLUMNS, plain_name};
use super::entries::{Found, LabelEntry, in_order, is_wordnet_id};
use super::error::LabelError;
use crate::error::{Result, XmoreError};

/// Values of all kinds in one file: bounds memory.
const MAX_VALUES: usize = 1_000_000;
/// Keys under which a file for other purposes has its labels.
const WRAPPERS: [&str; 10] = [
    "id2label",
    "labels",
    "classes",
    "class_names",
    "classnames",
    "names",
    "categories",
    "label2id",
    "class_to_idx",
    "prompts",
];

/// A JSON value that keeps the order of its keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    /// A number without fraction or sign.
    Whole(u64),
    /// A number, true, false or null, as it is written.
    Other(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Reads values, counting them.
pub(super) struct Count {
    read: Cell<usize>,
    most: usize,
}

impl Count {
    /// One that reads so many values at most.
    pub(super) fn up_to(most: usize) -> Self {
        Self { read: Cell::new(0), most }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Value, D::Error> {
        DeserializeSeed::deserialize(self, deserializer)
    }
}

impl<'de> DeserializeSeed<'de> for &Count {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.read.set(self.read.get() + 1);
        if self.read.get() > self.most {
            return Err(D::Error::custom(format!("expected at most {} values, found more", self.most)));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Count {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(u64::try_from(number).map_or_else(|_| Value::Other(number.to_string()), Value::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Other(number.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Other(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            fields.push((key, map.next_value_seed(self)?));
        }
        Ok(Value::Object(fields))
    }
}

impl Value {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// All texts of a text or a list of them.
    fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => Some(vec![text.clone()]),
            Self::List(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
            _ => None,
        }
    }

    fn object(&self) -> Option<&[(String, Value)]> {
        if let Self::Object(fields) = self { Some(fields) } else { None }
    }
}

/// For error messages.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{:?}", text.chars().take(40).collect::<String>()),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Other(written) => f.write_str(written),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Object(fields) => match fields.first() {
                Some((key, _)) => write!(f, "an object with {:?}", key.chars().take(40).collect::<String>()),
                None => f.write_str("an empty object"),
            },
        }
    }
}

fn error(origin: &str, line: Option<u64>, expected: &str, found: impl fmt::Display) -> XmoreError {
    LabelError::List {
        origin: origin.to_owned(),
        line,
        expected: expected.to_owned(),
        found: found.to_string(),
    }
    .into()
}

/// Reads JSON, or a JSON value on each line.
pub(super) fn parse(text: &str, origin: &str) -> Result<Found> {
    let count = Count::up_to(MAX_VALUES);
    let invalid = |e: &serde_json::Error, line: Option<u64>| {
        error(origin, line, "JSON, since it begins with [ or {", e)
    };
    let mut whole = serde_json::Deserializer::from_str(text);
    let first = count.deserialize(&mut whole).map_err(|e| invalid(&e, None))?;
    let Err(behind) = whole.end() else { return labels(first, origin) };
    let mut found = Found::default();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let mut value = serde_json::Deserializer::from_str(line);
        let read = count.deserialize(&mut value).and_then(|read| value.end().map(|()| read));
        let read = match (read, found.entries.is_empty()) {
            (Ok(read), _) => read,
            // Not even the first line is a value: this is no file of lines.
            (Err(_), true) => return Err(invalid(&behind, None)),
            (Err(e), false) => return Err(error(origin, Some(number), "a JSON value on each line", e)),
        };
        for entry in labels(Value::List(vec![read]), origin)?.entries {
            found.entries.push(LabelEntry { line: Some(number), ..entry });
        }
    }
    Ok(found)
}

/// The labels of a list or an object.
pub(super) fn labels(value: Value, origin: &str) -> Result<Found> {
    let entries = match &value {
        Value::List(items) => of_list(items, origin)?,
        Value::Object(fields) => match wrapped(fields) {
            Some(inner) => return labels(inner.clone(), origin),
            None => of_object(fields, origin)?,
        },
        other => return Err(error(origin, None, "a list or an object of labels", other)),
    };
    Ok(Found { entries, notes: Vec::new() })
}

/// The labels of an object that has other things too: the rest is not prompts, or there is nothing else.
fn wrapped(fields: &[(String, Value)]) -> Option<&Value> {
    let holds = |value: &Value| matches!(value, Value::List(_) | Value::Object(_));
    let find = |name: &&str| fields.iter().find(|(key, value)| key == name && holds(value));
    let (key, value) = WRAPPERS.iter().find_map(find)?;
    // Among prompts for labels there may be some for a label `classes`: they speak of it.
    let speaks = |text: &String| text.to_lowercase().contains(key.trim_end_matches('s'));
    let all_prompts = fields.len() > 1 && fields.iter().all(|(_, value)| value.texts().is_some());
    let is_label = all_prompts && value.texts().is_some_and(|texts| texts.iter().any(speaks));
    (!is_label).then_some(value)
}

fn of_list(items: &[Value], origin: &str) -> Result<Vec<LabelEntry>> {
    items.iter().map(|item| of_item(item).ok_or_else(|| error(origin, None, "a label", item))).collect()
}

/// A name, an id and a name, or an object that describes a label.
fn of_item(item: &Value) -> Option<LabelEntry> {
    match item {
        Value::Text(name) => Some(LabelEntry::new(name)),
        Value::List(parts) => match &parts[..] {
            [Value::Text(id), Value::Text(name), ..] if is_wordnet_id(id) => {
                Some(LabelEntry { id: Some(id.clone()), ..LabelEntry::new(name) })
            }
            [Value::Whole(_), Value::Text(name)] => Some(LabelEntry::new(name)),
            [Value::Text(name), Value::List(_)] => Some(LabelEntry {
                label: Label { prompts: parts[1].texts()?, ..Label::new(name) },
                ..LabelEntry::default()
            }),
            _ => None,
        },
        Value::Object(fields) => described(fields).or_else(|| match fields {
            // A line of a file of prompts.
            fields if fields.len() == 1 => of_object(fields, "").ok()?.pop(),
            _ => None,
        }),
        Value::Whole(_) | Value::Other(_) => None,
    }
}

/// A label with its name, and perhaps prompts, synonyms and an id, under the usual keys.
fn described(fields: &[(String, Value)]) -> Option<LabelEntry> {
    let find = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| fields.iter().find(|(key, _)| plain_name(key) == *name))
            .map(|(_, value)| value)
    };
    let name = find(&NAME_COLUMNS)?.text()?.to_owned();
    let texts = |names| find(names).map_or_else(|| Some(Vec::new()), Value::texts);
    let (prompts, synonyms) = (texts(&PROMPT_COLUMNS)?, texts(&SYNONYM_COLUMNS)?);
    let id = find(&["wnid", "synset", "id"]).and_then(Value::text).map(str::to_owned);
    Some(LabelEntry { label: Label { name, prompts, synonyms }, id, line: None })
}

fn of_object(fields: &[(String, Value)], origin: &str) -> Result<Vec<LabelEntry>> {
    // Names by number.
    let numbered: Option<Vec<_>> =
        fields.iter().map(|(key, value)| Some((key.parse().ok()?, named(value)?))).collect();
    if let Some(numbered) = numbered {
        return Ok(in_order(numbered));
    }
    // Numbers by name.
    let numbers = fields.iter().map(|(key, value)| match value {
        Value::Whole(number) => Some((*number, LabelEntry::new(key))),
        _ => None,
    });
    if let Some(numbered) = numbers.collect::<Option<Vec<_>>>() {
        return Ok(in_order(numbered));
    }
    // Names by id.
    let identified = fields.iter().map(|(key, value)| {
        let name = value.text().filter(|_| is_wordnet_id(key))?;
        Some(LabelEntry { id: Some(key.clone()), ..LabelEntry::new(name) })
    });
    if let Some(entries) = identified.collect() {
        return Ok(entries);
    }
    let entry = |(key, value): &(String, Value)| {
        let own = match value.object() {
            Some(fields) => own_texts(fields),
            None => value.texts().map(|prompts| (prompts, Vec::new())),
        };
        let (prompts, synonyms) = own.ok_or_else(|| {
            let expected = format!("a prompt or a list of prompts for label {key:?}");
            error(origin, None, &expected, value)
        })?;
        let id = Some(key.clone()).filter(|key| is_wordnet_id(key));
        Ok(LabelEntry { label: Label { name: key.clone(), prompts, synonyms }, id, line: None })
    };
    fields.iter().map(entry).collect()
}

/// The prompts and synonyms of a label that stand in an object of its own; `None` without either.
fn own_texts(fields: &[(String, Value)]) -> Option<(Vec<String>, Vec<String>)> {
    let find = |names: &[&str]| fields.iter().find(|(key, _)| names.contains(&key.as_str()));
    let (prompts, synonyms) = (find(&PROMPT_COLUMNS), find(&SYNONYM_COLUMNS));
    prompts.or(synonyms)?;
    let texts = |field: Option<&(String, Value)>| field.map_or_else(|| Some(Vec::new()), |(_, v)| v.texts());
    Some((texts(prompts)?, texts(synonyms)?))
}

/// What stands behind a number: a name, an id and a name, or a description.
fn named(value: &Value) -> Option<LabelEntry> {
    match value {
        Value::Text(name) => Some(LabelEntry::new(name)),
        Value::List(parts) => match &parts[..] {
            [Value::Text(id), ..] if is_wordnet_id(id) => of_item(value),
            _ => None,
        },
        Value::Object(fields) => described(fields),
        _ => None,
    }
}
