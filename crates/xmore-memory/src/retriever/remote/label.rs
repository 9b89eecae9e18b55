//! What an uploaded index says about itself: which model its embeddings are of, and how many pairs were announced.

use serde::{Deserialize, Serialize};

use crate::store::ModelIdentity;

/// Version of the form in which pairs are kept.
pub(super) const FORM: u64 = 2;
/// The first version, whose models are written as in memories before format version 4.
const FIRST_FORM: u64 = 1;

/// The label, kept as JSON in the description of a collection or the comment of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    xmore_memory: u64,
    pub model: ModelIdentity,
    pub pairs: u64,
}

impl Label {
    pub fn new(model: &ModelIdentity, pairs: u64) -> Self {
        Self { xmore_memory: FORM, model: model.clone(), pairs }
    }

    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|e| e.to_string())
    }

    /// Reads a label; an error says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let label: Self = serde_json::from_str(text)
            .map_err(|_| "was not made by xmore: its description names no model".to_owned())?;
        match label.xmore_memory {
            FIRST_FORM..=FORM if label.model.dim > 0 => Ok(label),
            FIRST_FORM..=FORM => Err("has a damaged description".into()),
            form => Err(format!(
                "has form {form}, and this version of xmore reads {FIRST_FORM} to {FORM}: update xmore"
            )),
        }
    }
}

/// Why pairs of `ours` do not belong where those of `theirs` are; `None` if they do. `name` is how the user knows it, such as
/// `collection "pairs"`.
pub(super) fn other_model(name: &str, theirs: &ModelIdentity, ours: &ModelIdentity) -> Option<String> {
    if theirs.is_same(ours) {
        return None;
    }
    let describe =
        |model: &ModelIdentity| format!("{model} ({}, {} values)", model.short_fingerprint(), model.dim);
    let kind = name.split(' ').next().unwrap_or_default();
    Some(format!(
        "{name} holds embeddings of model {}, the memory those of {}; choose another {kind}",
        describe(theirs),
        describe(ours)
    ))
}

/// What searches tell of an index that holds fewer pairs than were announced.
pub(super) fn incomplete(kind: &str, pairs: u64, announced: u64) -> Option<String> {
    (pairs < announced).then(|| {
        format!(
            "the {kind} holds {pairs} of its memory's {announced} pairs: if its upload was not finished, the same upload \
             again goes on"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_both_forms_are_read() {
        let int8 = ModelIdentity::new("lite", "00-int8", 4).with_precision("int8");
        let older = r#"{"xmore_memory": 1, "model": {"name": "lite int8", "sha256": "00-int8", "dim": 4}, "pairs": 7}"#;
        let read = Label::read(older).unwrap();
        assert_eq!((&read.model, read.pairs), (&int8, 7));
        let written = Label::new(&int8, 7).to_json().unwrap();
        assert_eq!(Label::read(&written).unwrap(), Label::new(&int8, 7));
        assert!(written.contains("\"fingerprint\""), "{written}");
    }
}
