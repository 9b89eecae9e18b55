//! Labels in the API's description, and from a form to the equivalent JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use xmore::{Label, LabelFile, LabelList};

use crate::api_error::ApiError;

/// Labels: a list, or an object with a prompt or several for each label. What other forms [`LabelList`] reads are not described.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = Labels)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum LabelsSchema {
    /// One after another.
    List(Vec<LabelSchema>),
    /// Prompts by label.
    Prompts(BTreeMap<String, PromptsSchema>),
}

/// A label.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = Label)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum LabelSchema {
    /// Alone: the templates are used.
    Name(String),
    /// With prompts or further names of its own.
    WithTexts {
        /// The label.
        label: String,
        /// Used as they are, instead of the templates; several are averaged.
        #[schema(required = false)]
        prompts: Vec<String>,
        /// Further names: captions that have one of them name the label. Prompts do not depend on them.
        #[schema(required = false)]
        synonyms: Vec<String>,
    },
}

/// The prompts of a label.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = Prompts)]
#[allow(dead_code, reason = "a schema")]
pub(crate) enum PromptsSchema {
    /// One.
    One(String),
    /// Several, which are averaged.
    Several(Vec<String>),
}

/// Labels as JSON, of a field's text: between commas, on lines, or JSON.
pub(super) fn of_text(text: &str) -> Result<Vec<Value>, ApiError> {
    Ok(values(LabelList::parse(text)?.0))
}

/// The same of a file.
pub(super) fn of_file(bytes: &[u8], name: &str) -> Result<Vec<Value>, ApiError> {
    Ok(values(LabelFile::parse(bytes, name, None)?.into_labels()))
}

fn values(labels: Vec<Label>) -> Vec<Value> {
    let value = |label: Label| match label.prompts.is_empty() && label.synonyms.is_empty() {
        true => Value::from(label.name),
        false => json!({"label": label.name, "prompts": label.prompts, "synonyms": label.synonyms}),
    };
    labels.into_iter().map(value).collect()
}
