//! Prompt templates: a text with a place for the label.

use std::fmt;

use super::error::LabelError;
use crate::error::Result;

/// The prompt unless told otherwise.
pub const DEFAULT_TEMPLATE: &str = "a photo of a {}.";

/// OpenAI's 80 ImageNet templates (CLIP repository, `notebooks/Prompt_Engineering_for_ImageNet.ipynb`, MIT), one a line.
const IMAGENET_TEMPLATES: &str = include_str!("imagenet_templates.txt");

/// A prompt with a place for the label: `{}` (open_clip, transformers) or `{c}` (CLIP_benchmark).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// # Errors
    /// [`LabelError::Template`] if there is no place for the label.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.contains("{}") || text.contains("{c}") {
            Ok(Self(text))
        } else {
            Err(LabelError::Template { template: text }.into())
        }
    }

    /// The prompt for a label. What looks like a place in the label itself stays.
    pub fn apply(&self, label: &str) -> String {
        fill(&self.0, label)
    }

    /// Whether it adds nothing to the label.
    pub fn is_bare(&self) -> bool {
        ["{}", "{c}"].contains(&self.0.as_str())
    }

    /// Bytes of the prompt for a label of `label` bytes.
    pub fn prompt_len(&self, label: usize) -> usize {
        parts(&self.0).map(|part| part.len() + label).sum::<usize>() - label
    }

    /// The 80 templates of the CLIP paper's ImageNet evaluation.
    pub fn imagenet() -> Vec<Self> {
        IMAGENET_TEMPLATES.lines().map(|line| Self(line.to_owned())).collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Template {
    fn default() -> Self {
        Self(DEFAULT_TEMPLATE.to_owned())
    }
}

/// A prompt with the label in its places; one without places stays as it is.
pub(super) fn fill(prompt: &str, label: &str) -> String {
    parts(prompt).collect::<Vec<_>>().join(label)
}

/// The text before, between and behind the places: one part more than there are places.
fn parts(prompt: &str) -> impl Iterator<Item = &str> {
    prompt.split("{}").flat_map(|part| part.split("{c}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_both_manners() {
        assert_eq!(Template::default().apply("dog"), "a photo of a dog.");
        assert_eq!(Template::new("a {c}!").unwrap().apply("dog"), "a dog!");
        let both = Template::new("{c}{} {c}").unwrap();
        assert_eq!(both.apply("{c}{}"), "{c}{}{c}{} {c}{}", "a label is no template");
        assert_eq!(both.prompt_len(5), both.apply("{c}{}").len());
        assert!(Template::new("a photo").is_err());
        let imagenet = Template::imagenet();
        assert_eq!(imagenet.len(), 80);
        assert!(imagenet.iter().all(|template| template.0.contains("{}")));
    }
}
