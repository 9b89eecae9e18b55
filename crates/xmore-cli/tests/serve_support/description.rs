//! The API's description: what it says a value is like, checked against values and used to make some.

use serde_json::{Map, Value, json};

use crate::support::files::Random;

/// Everything that the description's schemas are written with: a keyword that is not here is not understood, and so an error.
const KEYWORDS: [&str; 16] = [
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maximum",
    "minimum",
    "oneOf",
    "properties",
    "propertyNames",
    "required",
    "type",
];

/// Optional properties without which little can be asked.
const LIKELY: [&str; 3] = ["image", "labels", "text"];

/// A parsed description.
pub struct Description(pub Value);

/// A method of a path.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub value: &'a Value,
}

impl Description {
    /// Every method of every path.
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, methods)| of_path(path, methods)).collect()
    }

    /// A schema behind its reference.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => {
                let found = self.0.pointer(name.trim_start_matches('#'));
                self.resolve(found.unwrap_or_else(|| panic!("{name} leads nowhere")))
            }
            None => schema,
        }
    }

    /// What is wrong with a value, by the schema.
    pub fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        let keywords = schema.as_object().expect("a schema is an object");
        if let Some(unknown) = keywords.keys().find(|key| !KEYWORDS.contains(&key.as_str())) {
            panic!("the keyword {unknown:?} is not understood: {schema}");
        }
        let fits = |type_: &Value| has_type(value, type_.as_str().unwrap_or_default());
        let good = match &schema["type"] {
            Value::Null => true,
            Value::Array(types) => types.iter().any(fits),
            type_ => fits(type_),
        };
        if !good {
            return Err(format!("{value} is no {}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
            return Err(format!("{value} is none of {}", schema["enum"]));
        }
        if let Some(number) = value.as_f64() {
            let below = schema["minimum"].as_f64().is_some_and(|least| number < least);
            let above = schema["maximum"].as_f64().is_some_and(|most| number > most);
            if below || above {
                return Err(format!("{value} is out of range: {schema}"));
            }
        }
        if let (Some(items), false) = (value.as_array(), schema["items"].is_null()) {
            items.iter().try_for_each(|item| self.check(&schema["items"], item))?;
        }
        if let Some(object) = value.as_object() {
            self.check_object(schema, object)?;
        }
        self.check_choices(schema, value)
    }

    fn check_object(&self, schema: &Value, object: &Map<String, Value>) -> Result<(), String> {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Err(format!("{name} is missing: {object:?}"));
            }
        }
        for (name, value) in object {
            let of_name = &schema["properties"][name];
            let described = if of_name.is_null() { &schema["additionalProperties"] } else { of_name };
            match described {
                Value::Bool(false) => return Err(format!("{name} is not described")),
                Value::Object(_) => self.check(described, value).map_err(|e| format!("{name}: {e}"))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_choices(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let choices = |name: &str| schema[name].as_array().map(|choices| choices.iter());
        for choice in choices("allOf").into_iter().flatten() {
            self.check(choice, value)?;
        }
        for (name, most) in [("oneOf", 1), ("anyOf", usize::MAX)] {
            let Some(choices) = choices(name) else { continue };
            let results: Vec<_> = choices.map(|choice| self.check(choice, value)).collect();
            let good = results.iter().filter(|result| result.is_ok()).count();
            if good == 0 || good > most {
                return Err(format!("{good} of {name} fit {value}: {results:?}"));
            }
        }
        Ok(())
    }

    /// A value that fits a schema; `name` is what it is called where it stands.
    pub fn make(&self, schema: &Value, name: &str, random: &mut Random, made: &Makers) -> Value {
        if let Some(value) = (random.below(5) > 0).then(|| made.sensible(name, random)).flatten()
            && self.check(schema, &value).is_ok()
        {
            return value;
        }
        let schema = self.resolve(schema);
        for choices in ["oneOf", "anyOf"] {
            if let Some(choices) = schema[choices].as_array() {
                return self.make(pick(choices, random), name, random, made);
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let parts = parts.iter().map(|part| self.make(part, name, random, made));
            return parts.filter_map(|part| part.as_object().cloned()).flatten().collect();
        }
        if let Some(values) = schema["enum"].as_array() {
            return pick(values, random).clone();
        }
        let type_ = match &schema["type"] {
            Value::Array(types) => pick(types, random),
            type_ => type_,
        };
        match type_.as_str().unwrap_or("null") {
            "string" => Value::from(word(random)),
            "boolean" => Value::from(random.below(2) == 0),
            "integer" => {
                let least = schema["minimum"].as_u64().unwrap_or(0);
                let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
                match random.below(4) {
                    0 => Value::from(least),
                    1 => Value::from(most),
                    _ => Value::from((least + random.below(20)).min(most)),
                }
            }
            "number" => {
                let least = schema["minimum"].as_f64().unwrap_or(-1.0);
                let most = schema["maximum"].as_f64().unwrap_or(1.0);
                Value::from(least + random.unit() * (most - least))
            }
            "array" => {
                let count = random.below(4);
                (0..count).map(|_| self.make(&schema["items"], name, random, made)).collect()
            }
            "object" => {
                let required = schema["required"].as_array();
                let is_required = |name: &str| required.is_some_and(|names| names.contains(&json!(name)));
                let properties = schema["properties"].as_object().into_iter().flatten();
                let mut object = Map::new();
                for (name, schema) in properties {
                    let is_likely = LIKELY.contains(&name.as_str()) && random.below(4) > 0;
                    if is_required(name) || is_likely || random.below(3) == 0 {
                        object.insert(name.clone(), self.make(schema, name, random, made));
                    }
                }
                Value::Object(object)
            }
            _ => Value::Null,
        }
    }
}

/// Values that mean something, by what they are called: a random string is hardly ever an image.
pub struct Makers(pub Vec<(&'static str, Vec<Value>)>);

impl Makers {
    fn sensible(&self, name: &str, random: &mut Random) -> Option<Value> {
        let (_, values) = self.0.iter().find(|(of, _)| *of == name)?;
        Some(pick(values, random).clone())
    }
}

fn of_path<'a>(path: &'a str, methods: &'a Value) -> Vec<Operation<'a>> {
    let methods = methods.as_object().expect("methods").iter();
    methods.map(|(method, value)| Operation { method, path, value }).collect()
}

fn has_type(value: &Value, type_: &str) -> bool {
    match type_ {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("the type {other:?} is not understood"),
    }
}

pub fn pick<'a, T>(from: &'a [T], random: &mut Random) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

/// A short string, of any characters.
pub fn word(random: &mut Random) -> String {
    let characters: Vec<char> =
        "aZ09 ,;:%/\\\"'{}[]<>&?#+-_.=\u{0}\n\t\u{7f}é漢😀\u{202e}\u{feff}".chars().collect();
    (0..random.below(12)).map(|_| *pick(&characters, random)).collect()
}
