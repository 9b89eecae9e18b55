//! A list of labels as it is typed on a command line, into a form, or sent as JSON.

use serde::de::{Deserialize, Deserializer, Error as _};

use super::Label;
use super::entries::check_count;
use super::error::LabelError;
use super::json::{self, Count};
use super::quoted::split_quoted;
use crate::error::Result;

/// Values of all kinds in one list that is sent: bounds memory.
const MAX_VALUES: usize = 200_000;
/// Names the list in errors.
const ORIGIN: &str = "the list of labels";

/// Labels as they were given, not yet checked: [`Labels::with_prompts`](super::Labels::with_prompts) does that.
///
/// In JSON a list of strings or of objects with `label`, `prompts` and `synonyms`; or an object with a prompt, or a list of them, for each label; or
/// what else [`LabelFile`](super::LabelFile) reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelList(pub Vec<Label>);

impl LabelList {
    /// Labels between commas or on lines, with quotes as csv has them where a label has a comma in it; spaces around labels and empty
    /// ones are left out. Text that is a JSON list or object is read as that.
    ///
    /// # Errors
    /// [`LabelError::List`] for a quote that is not closed, or JSON that has no labels.
    pub fn parse(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        if (trimmed.starts_with('[') && trimmed.ends_with(']'))
            || (trimmed.starts_with('{') && trimmed.ends_with('}'))
        {
            let labels = json::parse(trimmed, ORIGIN)?;
            return Ok(Self(labels.entries.into_iter().map(|entry| entry.label).collect()));
        }
        let separates = |c: char| matches!(c, ',' | '\n' | '\r');
        check_count(text.chars().filter(|&c| separates(c)).count(), ORIGIN)?;
        let fields = split_quoted(text, separates);
        let fields = fields.ok_or_else(|| LabelError::List {
            origin: ORIGIN.to_owned(),
            line: None,
            expected: "a closing quote for each label that begins with one".to_owned(),
            found: "none before the end".to_owned(),
        })?;
        Ok(Self(fields.into_iter().filter(|field| !field.is_empty()).map(Label::new).collect()))
    }
}

impl<'de> Deserialize<'de> for LabelList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Count::up_to(MAX_VALUES).deserialize(deserializer)?;
        let labels = json::labels(value, ORIGIN).map_err(D::Error::custom)?;
        Ok(Self(labels.entries.into_iter().map(|entry| entry.label).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::Labels;

    fn names(list: &str) -> Vec<String> {
        LabelList::parse(list).unwrap().0.into_iter().map(|label| label.name).collect()
    }

    #[test]
    fn lists_with_quotes_lines_and_json() {
        assert_eq!(names(" cat , hot dog,"), ["cat", "hot dog"]);
        assert_eq!(names("\"church, with a tower\",dog"), ["church, with a tower", "dog"]);
        assert_eq!(names("dog,  \"a \"\"b\"\", c\" ,5\" nail"), ["dog", "a \"b\", c", "5\" nail"]);
        assert_eq!(names("cat\r\ndog\n"), ["cat", "dog"]);
        assert_eq!(names(r#"["a, b", "c"]"#), ["a, b", "c"]);
        assert_eq!(names("[unknown],cat"), ["[unknown]", "cat"]);
        let own = LabelList::parse(r#"{"b": ["x", "y"], "a": "z"}"#).unwrap().0;
        assert_eq!(own[0], Label { prompts: vec!["x".to_owned(), "y".to_owned()], ..Label::new("b") });
        assert_eq!(own[1].prompts, ["z"]);
        let error = LabelList::parse("\"cat,dog").unwrap_err().to_string();
        assert!(error.contains("closing quote"), "{error}");
        assert!(matches!(
            Labels::parse("cat"),
            Err(crate::XmoreError::Label(LabelError::TooFew { found: 1 }))
        ));
        assert!(
            matches!(Labels::parse("cat,dog,cat"), Err(crate::XmoreError::Label(LabelError::Duplicate { label, .. })) if label == "cat")
        );
    }

    #[test]
    fn json_of_a_request() {
        let read = |json: &str| serde_json::from_str::<LabelList>(json);
        assert_eq!(
            read(r#"["cat", {"label": "dog", "prompts": ["a dog."]}]"#).unwrap().0[1].prompts,
            ["a dog."]
        );
        let synonyms = r#"["cat", {"label": "dog", "synonyms": ["hound", "canine"]}]"#;
        assert_eq!(read(synonyms).unwrap().0[1].synonyms, ["hound", "canine"]);
        assert!(read(r#"["cat", {"label": "dog", "synonyms": [1]}]"#).is_err());
        assert!(read("[1, 2]").unwrap_err().to_string().contains("expected a label, found 1"));
        assert!(read("\"cat,dog\"").is_err());
        let many = format!("[{}0]", "0,".repeat(300_000));
        assert!(read(&many).unwrap_err().to_string().contains("at most 200000 values"));
    }

    proptest! {
        #[test]
        fn quoted_fields_come_back(fields in proptest::collection::vec("[a-c\", é\n]{0,6}", 1..6)) {
            let quoted: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            let found = split_quoted(&quoted.join(" , "), |c| c == ',').unwrap();
            prop_assert_eq!(found, fields.iter().map(|f| f.trim().to_owned()).collect::<Vec<_>>());
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = LabelList::parse(&text);
        }
    }
}
