//! Labels that a model cannot tell apart, or does not read as they are.

use std::collections::HashMap;
use std::fmt;

use super::{Labels, Template};
use crate::encoder::Encoder;
use crate::error::Result;

/// Warnings about labels that are alike; where there are more, their number is told.
const MAX_GROUPS: usize = 20;
/// Labels named in one warning.
const MAX_NAMES: usize = 8;
/// Characters of a label in a warning.
const MAX_CHARACTERS: usize = 60;

/// What a model cannot make of labels. Displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelWarning {
    /// All prompts of these labels become the same tokens, so that they have the same embedding.
    Alike(Vec<String>),
    /// So many more groups of labels are alike.
    MoreAlike(usize),
    /// The tokenizer knows no part of these labels.
    Unknown(Vec<String>),
    /// A prompt of these labels is longer than the model reads, and cut.
    Cut {
        /// The labels.
        labels: Vec<String>,
        /// Tokens that the model reads.
        context: usize,
    },
}

impl fmt::Display for LabelWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alike(labels) => write!(
                f,
                "the model cannot tell {} apart: they become the same tokens and share their probability",
                listed(labels)
            ),
            Self::MoreAlike(groups) => {
                write!(f, "the model cannot tell apart {groups} more groups of labels")
            }
            Self::Unknown(labels) => {
                write!(
                    f,
                    "the model's tokenizer knows no part of {}: scores of such a label mean nothing",
                    listed(labels)
                )
            }
            Self::Cut { labels, context } => {
                write!(
                    f,
                    "the model reads {context} tokens, fewer than there are in the prompts for {}: the rest is cut off",
                    listed(labels)
                )
            }
        }
    }
}

fn listed(labels: &[String]) -> String {
    let short = |label: &String| match label.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{:?}", format!("{}…", &label[..end])),
        None => format!("{label:?}"),
    };
    let mut names: Vec<String> = labels.iter().take(MAX_NAMES).map(short).collect();
    let more = labels.len().saturating_sub(MAX_NAMES);
    let last = if more > 0 { Some(format!("{more} more")) } else { names.pop() };
    match (names.is_empty(), last) {
        (true, last) => last.unwrap_or_default(),
        (false, last) => format!("{} and {}", names.join(", "), last.unwrap_or_default()),
    }
}

impl Labels {
    /// What the model cannot make of these labels under these templates: those that become the same tokens (by case or accents that its
    /// tokenizer drops, or cut at the context's end), those of unknown tokens only, and those that are cut.
    ///
    /// # Errors
    /// [`xmore_clip::ClipError::Tokenize`], and those of loading the tokenizer.
    pub fn warnings(&self, model: &dyn Encoder, templates: &[Template]) -> Result<Vec<LabelWarning>> {
        let (mut unknown, mut cut) = (Vec::new(), Vec::new());
        // By the tokens of their first prompts: labels whose first prompts differ have different embeddings, whatever the others are.
        let mut groups: HashMap<Vec<u32>, Vec<usize>> = HashMap::new();
        for (i, name) in self.names().iter().enumerate() {
            let Some(prompt) = self.prompts(i, templates).next() else { continue };
            let Some(tokens) = model.tokens(&prompt)? else { return Ok(Vec::new()) };
            if tokens.truncated {
                cut.push(name.clone());
            }
            // A prompt has other words; the label alone tells whether it is known.
            if self.own_prompts()[i].is_empty()
                && model.tokens(name)?.is_some_and(|tokens| tokens.is_unknown())
            {
                unknown.push(name.clone());
            }
            groups.entry(tokens.ids).or_default().push(i);
        }
        let mut alike: Vec<Vec<usize>> = Vec::new();
        for group in groups.into_values().filter(|group| group.len() > 1) {
            let mut same: HashMap<Vec<Vec<u32>>, Vec<usize>> = HashMap::new();
            for label in group {
                let all = self
                    .prompts(label, templates)
                    .map(|prompt| Ok(model.tokens(&prompt)?.map(|tokens| tokens.ids).unwrap_or_default()));
                same.entry(all.collect::<Result<_>>()?).or_default().push(label);
            }
            alike.extend(same.into_values().filter(|labels| labels.len() > 1));
        }
        alike.sort_unstable();
        let mut warnings: Vec<LabelWarning> = alike
            .iter()
            .take(MAX_GROUPS)
            .map(|labels| LabelWarning::Alike(labels.iter().map(|&i| self.names()[i].clone()).collect()))
            .collect();
        warnings
            .extend((alike.len() > MAX_GROUPS).then(|| LabelWarning::MoreAlike(alike.len() - MAX_GROUPS)));
        warnings.extend((!unknown.is_empty()).then_some(LabelWarning::Unknown(unknown)));
        let context = model.context_length().unwrap_or_default();
        warnings.extend((!cut.is_empty()).then_some(LabelWarning::Cut { labels: cut, context }));
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::NamedModel;
    use crate::labels::Label;

    fn model() -> NamedModel {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures/tiny");
        NamedModel::open(&format!("local-dir:{}", tiny.display())).unwrap()
    }

    fn said(model: &NamedModel, labels: Labels, templates: &[Template]) -> Vec<String> {
        labels.warnings(model, templates).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn labels_that_the_model_takes_for_one_are_named() {
        let model = model();
        let templates = [Template::default(), Template::new("{}").unwrap()];
        let of = |names: &[&str]| said(&model, Labels::new(names.iter().copied()).unwrap(), &templates);
        assert!(of(&["cat", "dog"]).is_empty());
        let found = of(&["church", "dog", "Church"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("tell \"church\" and \"Church\" apart"), "{found:?}");
        let long = |end: &str| format!("{}{end}", "cat ".repeat(200));
        let found = of(&[&long("a"), &long("b"), "dog"]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("apart") && found[1].contains("cut off"), "{found:?}");
        let found = said(&model, Labels::new(["🐶", "⛪", "cat"]).unwrap(), &templates);
        assert!(found[0].contains("tell \"🐶\" and \"⛪\" apart"), "{found:?}");
        assert!(found[1].contains("knows no part of \"🐶\" and \"⛪\""), "{found:?}");
    }

    #[test]
    fn own_prompts_are_compared_instead_of_labels() {
        let model = model();
        let label = |name: &str, prompts: &[&str]| Label {
            prompts: prompts.iter().map(|&prompt| prompt.to_owned()).collect(),
            ..Label::new(name)
        };
        let labels = Labels::with_prompts([
            label("a", &["x", "y"]),
            label("b", &["X", "Y"]),
            label("c", &["x", "z"]),
            label("x", &[]),
        ]);
        let found = said(&model, labels.unwrap(), &[Template::default()]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("tell \"a\" and \"b\" apart"), "{found:?}");
    }

    #[test]
    fn many_warnings_are_counted() {
        let model = model();
        // Six words each, cats for the ones of a number.
        let words =
            |i: u32| (0..6).map(|bit| if i >> bit & 1 == 1 { "cat " } else { "dog " }).collect::<String>();
        let names = (0..50).flat_map(|i| [words(i), words(i).to_uppercase()]);
        let found = said(&model, Labels::new(names).unwrap(), &[Template::default()]);
        assert_eq!(found.len(), MAX_GROUPS + 1);
        assert!(found[MAX_GROUPS].contains("30 more groups"), "{found:?}");
        let same = (0..10).map(|i| Label { prompts: vec!["x".to_owned()], ..Label::new(i.to_string()) });
        let found = said(&model, Labels::with_prompts(same).unwrap(), &[]);
        assert!(found[0].contains("\"7\" and 2 more apart"), "{found:?}");
    }
}
