//! Labels in plain words, and what they are to the model: one unit vector each.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use xmore_clip::{Embeddings, Model};

use crate::error::{Result, XmoreError};

/// The prompt unless told otherwise.
pub const DEFAULT_TEMPLATE: &str = "a photo of a {}.";

/// Prompts that are encoded together: bounds memory.
const BATCH: usize = 1024;

/// OpenAI's 80 ImageNet templates (CLIP repository, `notebooks/Prompt_Engineering_for_ImageNet.ipynb`, MIT), one a line.
const IMAGENET_TEMPLATES: &str = include_str!("imagenet_templates.txt");

/// A prompt with a place for the label: `{}` (open_clip, transformers) or `{c}` (CLIP_benchmark).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// # Errors
    /// [`XmoreError::Template`] if there is no place for the label.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.contains("{}") || text.contains("{c}") {
            Ok(Self(text))
        } else {
            Err(XmoreError::Template { template: text })
        }
    }

    /// The prompt for a label. What looks like a place in the label itself stays.
    pub fn apply(&self, label: &str) -> String {
        self.parts().collect::<Vec<_>>().join(label)
    }

    /// Bytes of the prompt for a label of `label` bytes.
    pub fn prompt_len(&self, label: usize) -> usize {
        self.parts().map(|part| part.len() + label).sum::<usize>() - label
    }

    /// What stands before, between and behind the places: one part more than there are places.
    fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split("{}").flat_map(|part| part.split("{c}"))
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

/// At least two different labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Vec<String>);

impl Labels {
    /// # Errors
    /// [`XmoreError::TooFewLabels`] or [`XmoreError::DuplicateLabel`].
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let labels = Self::repeatable(names)?;
        let mut seen = HashSet::new();
        if let Some(label) = labels.0.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(XmoreError::DuplicateLabel { label: label.clone() });
        }
        Ok(labels)
    }

    /// Labels of a published dataset, in which two classes may have one name: ImageNet has two kinds of missile. Such classes share
    /// their probability, and the first of them is the answer.
    ///
    /// # Errors
    /// [`XmoreError::TooFewLabels`].
    pub(crate) fn repeatable(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.len() < 2 {
            return Err(XmoreError::TooFewLabels { found: names.len() });
        }
        Ok(Self(names))
    }

    /// From a comma-separated list, spaces around labels ignored.
    ///
    /// # Errors
    /// As [`Labels::new`].
    pub fn parse(list: &str) -> Result<Self> {
        Self::new(list.split(',').map(str::trim).filter(|label| !label.is_empty()))
    }

    /// From a file with one label a line; empty lines are ignored.
    ///
    /// # Errors
    /// As [`Labels::new`], and [`XmoreError::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| XmoreError::io("read", path, e))?;
        Self::new(text.lines().map(str::trim).filter(|label| !label.is_empty()))
    }

    /// The labels, in the order given.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Unit label embeddings `[C, dim]`: the mean of the templates' unit embeddings, renormalised (open_clip, CLIP_benchmark).
    ///
    /// # Errors
    /// Those of the text tower.
    pub fn embed(&self, model: &Model, templates: &[Template]) -> Result<Embeddings> {
        let prompts: Vec<String> =
            self.0.iter().flat_map(|name| templates.iter().map(|template| template.apply(name))).collect();
        let dim = model.dim();
        let mut rows = Vec::with_capacity(prompts.len() * dim);
        for batch in prompts.chunks(BATCH) {
            rows.extend_from_slice(model.encode_texts(batch)?.embeddings.as_slice());
        }
        let prompts = Embeddings::new(rows, dim);
        if templates.len() == 1 {
            return Ok(prompts);
        }
        let mut means = Vec::with_capacity(self.0.len() * dim);
        for of_label in prompts.as_slice().chunks_exact(templates.len() * dim) {
            let mut sum = vec![0f64; dim];
            for row in of_label.chunks_exact(dim) {
                sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
            }
            // The length of the sum instead of the mean: renormalising takes the count out again.
            let norm = sum.iter().map(|s| s * s).sum::<f64>().sqrt();
            means.extend(sum.iter().map(|s| (s / norm) as f32));
        }
        Ok(Embeddings::new(means, dim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_mistakes() {
        assert_eq!(Labels::parse(" cat , hot dog,").unwrap().names(), ["cat", "hot dog"]);
        assert!(matches!(Labels::parse("cat"), Err(XmoreError::TooFewLabels { found: 1 })));
        assert!(
            matches!(Labels::parse("cat,dog,cat"), Err(XmoreError::DuplicateLabel { label }) if label == "cat")
        );
    }

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
