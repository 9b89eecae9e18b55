//! Python's JSON made JSON: bare `NaN` and `Infinity`, which Python's encoder writes, become `null`.

use std::borrow::Cow;

/// What Python writes for numbers that JSON has no words for.
const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The text with `null` for every bare `NaN`, `Infinity` and `-Infinity` outside strings; not copied if it has none.
pub(super) fn null_for_non_numbers(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(word) = word_at(text, at) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(b"null");
                    at += word.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

/// The word that stands alone at `at`.
fn word_at(text: &[u8], at: usize) -> Option<&'static [u8]> {
    let ends = |byte: Option<&u8>| byte.is_none_or(|b| b",:[]{} \t\r\n".contains(b));
    if !ends(at.checked_sub(1).and_then(|before| text.get(before))) {
        return None;
    }
    WORDS.into_iter().find(|word| text[at..].starts_with(word) && ends(text.get(at + word.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Option<Value> {
        serde_json::from_slice(&null_for_non_numbers(text.as_bytes())).ok()
    }

    #[test]
    fn words_that_are_no_numbers_become_null() {
        assert_eq!(read("NaN"), Some(Value::Null));
        assert_eq!(
            read(r#"[{"a": NaN, "NaN": "NaN, Infinity"},Infinity,-Infinity , 1]"#),
            Some(json!([{"a": null, "NaN": "NaN, Infinity"}, null, null, 1]))
        );
        // A quotation mark behind backslashes ends a string, or not.
        assert_eq!(
            read(r#"["\\", NaN, "\", NaN, \\\"", NaN]"#),
            Some(json!(["\\", null, "\", NaN, \\\"", null]))
        );
    }

    #[test]
    fn what_is_no_json_otherwise_stays_so() {
        for text in
            ["NaNa", "[aNaN]", "[-NaN]", "[1Infinity]", "[\"NaN", "\\NaN", "[NaN", "-", "I", "--Infinity"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[NaInfity\\\\\" :,\\[\\]\u{e9}-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[NaInfity\\\\\",]{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// As Python writes it, with a word for every null.
    fn python(value: &Value, word: &str) -> String {
        match value {
            Value::Null => word.to_owned(),
            Value::Array(items) => {
                format!("[{}]", items.iter().map(|v| python(v, word)).collect::<Vec<_>>().join(", "))
            }
            Value::Object(map) => {
                let entry = |(key, v): (&String, _)| format!("{}: {}", json!(key), python(v, word));
                format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn pythons_json_is_read_and_json_is_left_alone(value in value(), word in 0usize..3) {
            let text = value.to_string();
            prop_assert!(matches!(null_for_non_numbers(text.as_bytes()), Cow::Borrowed(_)));
            let python = python(&value, std::str::from_utf8(WORDS[word]).unwrap());
            prop_assert_eq!(read(&python), Some(value));
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(prop::sample::select(b"NaInfity\\\",:[]- x".to_vec()), 0..40)) {
            null_for_non_numbers(&bytes);
        }
    }
}
