//! Names and texts, as forms and query strings have them, to the equivalent JSON.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Number, Value};

use super::{MAX_ITEMS, Parameters, labels, list};
use crate::api_error::ApiError;

/// What was read so far.
#[derive(Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Adds one; a list grows, everything else may be there once.
    pub(super) fn add<P: Parameters>(&mut self, name: &str, text: &str) -> Result<(), ApiError> {
        let name = name.strip_suffix("[]").unwrap_or(name);
        if let Some((_, is_labels)) = P::LISTS.iter().find(|(list, _)| *list == name) {
            let list = self.0.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                let more = if *is_labels { labels::of_text(text)? } else { items(text)? };
                extend(list, more, name)?;
            }
            return Ok(());
        }
        let value = if P::NUMBERS.contains(&name) {
            let number = text.trim().parse::<u64>();
            number.map(Value::from).map_err(|_| wrong(name, text, "a whole number"))?
        } else if P::DECIMALS.contains(&name) {
            let number = text.trim().parse::<f64>().ok().and_then(Number::from_f64);
            number.map(Value::Number).ok_or_else(|| wrong(name, text, "a number"))?
        } else if P::FLAGS.contains(&name) {
            match text.trim() {
                "" | "1" | "true" | "yes" | "on" => Value::Bool(true),
                "0" | "false" | "no" | "off" => Value::Bool(false),
                _ => return Err(wrong(name, text, "true or false")),
            }
        } else if P::STRINGS.contains(&name) {
            Value::from(text)
        } else {
            let lists = P::LISTS.iter().map(|(list, _)| *list);
            let known: Vec<&str> = lists
                .chain(P::STRINGS.iter().chain(P::NUMBERS).chain(P::DECIMALS).chain(P::FLAGS).copied())
                .collect();
            return Err(ApiError::invalid(format!("no parameter {name:?}; there are {}", known.join(", "))));
        };
        match self.0.insert(name.to_owned(), value) {
            Some(_) => Err(ApiError::invalid(format!("parameter {name:?} is given twice"))),
            None => Ok(()),
        }
    }

    /// Adds a file with labels.
    pub(super) fn add_file<P: Parameters>(
        &mut self,
        name: &str,
        bytes: &[u8],
        file: &str,
    ) -> Result<(), ApiError> {
        let name = name.strip_suffix("[]").unwrap_or(name);
        if !P::LISTS.contains(&(name, true)) {
            return Err(ApiError::invalid(format!("a file named {name:?}; files are sent as `image`")));
        }
        let list = self.0.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        match list {
            Value::Array(list) => extend(list, labels::of_file(bytes, file)?, name),
            _ => Ok(()),
        }
    }

    /// The parameters.
    pub(super) fn read<P: DeserializeOwned>(self) -> Result<P, ApiError> {
        serde_json::from_value(Value::Object(self.0)).map_err(|error| unexpected(&error))
    }
}

fn extend(list: &mut Vec<Value>, more: Vec<Value>, name: &str) -> Result<(), ApiError> {
    if list.len() + more.len() > MAX_ITEMS {
        return Err(ApiError::invalid(format!("{name} has more than {MAX_ITEMS} items")));
    }
    list.extend(more);
    Ok(())
}

/// A JSON array of strings, or one text.
fn items(text: &str) -> Result<Vec<Value>, ApiError> {
    // Looked through first: what is no list of strings could take many times its size.
    if text.trim_start().starts_with('[') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        let mut json = serde_json::Deserializer::from_str(text);
        let items: Option<Vec<String>> = list(&mut json).map_err(|error| unexpected(&error))?;
        return Ok(items.into_iter().flatten().map(Value::from).collect());
    }
    Ok(vec![Value::from(text)])
}

fn unexpected(error: &serde_json::Error) -> ApiError {
    ApiError::invalid(format!("the parameters are not as expected: {error}"))
}

fn wrong(name: &str, found: &str, expected: &str) -> ApiError {
    let start: String = found.chars().take(40).collect();
    ApiError::invalid(format!("{name} is {start:?}; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::classify::ClassifyBody;

    fn read(pairs: &[(&str, &str)]) -> Result<ClassifyBody, String> {
        let mut fields = Fields::default();
        for (name, text) in pairs {
            fields.add::<ClassifyBody>(name, text).map_err(|error| error.message)?;
        }
        fields.read().map_err(|error| error.message)
    }

    #[test]
    fn lists_numbers_and_flags() {
        let body = read(&[
            ("labels", "cat, hot dog,"),
            ("labels[]", r#"["a, b"]"#),
            ("templates", "a photo of a {}, really"),
            ("k", "8"),
            ("min_score", "0.25"),
            ("min_similarity", "-1"),
            ("explain", ""),
            ("method", "xmore"),
        ])
        .unwrap();
        assert_eq!((body.min_score, body.min_similarity), (Some(0.25), Some(-1.0)));
        let names: Vec<_> = body.labels.unwrap().0.into_iter().map(|label| label.name).collect();
        assert_eq!(names, ["cat", "hot dog", "a, b"]);
        assert_eq!(body.templates.unwrap(), ["a photo of a {}, really"]);
        assert_eq!((body.k, body.explain, body.method.as_deref()), (Some(8), true, Some("xmore")));
    }

    #[test]
    fn mistakes_are_named() {
        for (pairs, message) in [
            (vec![("k", "-1")], "k is \"-1\"; expected a whole number"),
            (vec![("min_score", "inf")], "min_score is \"inf\"; expected a number"),
            (vec![("explain", "maybe")], "explain is \"maybe\"; expected true or false"),
            (vec![("k", "1"), ("k", "2")], "parameter \"k\" is given twice"),
            (vec![("lables", "a,b")], "no parameter \"lables\"; there are labels, "),
            (vec![("labels", "[1, 2]")], "the list of labels: expected a label, found 1"),
        ] {
            let found = read(&pairs).err().unwrap_or_default();
            assert!(found.starts_with(message), "{found}");
        }
    }
}
