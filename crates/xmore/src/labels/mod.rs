//! Labels in plain words, and what they are to the model: one unit vector each.
//!
//! [`LabelFile`] and [`LabelList`] read labels as users have them, [`Labels`] checks them, and [`Labels::warnings`] names those that a
//! model cannot tell apart.

mod columns;
mod distinct;
mod entries;
pub(crate) mod error;
mod file;
mod json;
mod lines;
mod list;
mod quoted;
mod table;
mod template;

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;
use xmore_clip::Embeddings;

use crate::encoder::Encoder;
use crate::error::Result;

pub use distinct::LabelWarning;
pub use entries::{LabelEntry, is_wordnet_id};
use error::LabelError;
pub use file::{LabelFile, MAX_LABEL_BYTES};
pub use list::LabelList;
use template::fill;
pub use template::{DEFAULT_TEMPLATE, Template};

/// Prompts that are encoded together: bounds memory.
const BATCH: usize = 1024;

/// A label, with prompts and further names of its own where it has any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Label {
    /// The label.
    pub name: String,
    /// Prompts that are used for this label instead of the templates, as they are; where one has `{}` or `{c}`, the label goes there.
    /// Empty: the templates are used.
    pub prompts: Vec<String>,
    /// Further names. Captions of a memory that have one of them name the label; prompts and embeddings do not depend on them.
    pub synonyms: Vec<String>,
}

impl Label {
    /// A label for which the templates are used.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// At least two labels, in Unicode's normal form C and without white space around them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    names: Vec<String>,
    /// For each label its own prompts.
    prompts: Vec<Vec<String>>,
    /// For each label its further names.
    synonyms: Vec<Vec<String>>,
}

impl Labels {
    /// Labels for which the templates are used.
    ///
    /// # Errors
    /// [`LabelError::TooFew`], [`LabelError::Empty`] or [`LabelError::Duplicate`].
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        Self::with_prompts(names.into_iter().map(Label::new))
    }

    /// Labels of which some have prompts or further names of their own.
    ///
    /// # Errors
    /// As [`Labels::new`].
    pub fn with_prompts(labels: impl IntoIterator<Item = Label>) -> Result<Self> {
        let labels = Self::repeatable_with_prompts(labels)?;
        match labels.repeated() {
            Some((_, second)) => {
                Err(LabelError::Duplicate { label: labels.names[second].clone(), lines: None }.into())
            }
            None => Ok(labels),
        }
    }

    /// Labels of a published dataset, in which two classes may have one name: ImageNet has two kinds of missile. Such classes share
    /// their probability, and the first of them is the answer.
    ///
    /// # Errors
    /// [`LabelError::TooFew`], [`LabelError::Empty`].
    pub fn repeatable(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        Self::repeatable_with_prompts(names.into_iter().map(Label::new))
    }

    /// The same with prompts and further names.
    ///
    /// # Errors
    /// As [`Labels::repeatable`].
    pub fn repeatable_with_prompts(labels: impl IntoIterator<Item = Label>) -> Result<Self> {
        let (mut names, mut prompts, mut synonyms) = (Vec::new(), Vec::new(), Vec::new());
        for label in labels {
            names.push(normalized(&label.name));
            prompts.push(all_normalized(&label.prompts));
            synonyms.push(all_normalized(&label.synonyms));
        }
        if names.len() < 2 {
            return Err(LabelError::TooFew { found: names.len() }.into());
        }
        match names.iter().position(String::is_empty) {
            Some(place) => Err(LabelError::Empty { place }.into()),
            None => Ok(Self { names, prompts, synonyms }),
        }
    }

    /// The places of the first label that is there twice.
    fn repeated(&self) -> Option<(usize, usize)> {
        let mut seen = HashMap::with_capacity(self.names.len());
        self.names
            .iter()
            .enumerate()
            .find_map(|(i, name)| seen.insert(name.as_str(), i).map(|first| (first, i)))
    }

    /// From a list as it is typed: labels between commas or on lines, quoted as in csv where one has a comma in it; or JSON, as
    /// [`LabelList`] reads it.
    ///
    /// # Errors
    /// As [`Labels::new`], and [`LabelError::List`].
    pub fn parse(list: &str) -> Result<Self> {
        Self::with_prompts(LabelList::parse(list)?.0)
    }

    /// The labels, in the order given.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// For each label its own prompts; empty where the templates are used.
    pub fn own_prompts(&self) -> &[Vec<String>] {
        &self.prompts
    }

    /// For each label its further names.
    pub fn synonyms(&self) -> &[Vec<String>] {
        &self.synonyms
    }

    /// How many labels have prompts of their own: for these, templates do not matter.
    pub fn with_own_prompts(&self) -> usize {
        self.prompts.iter().filter(|prompts| !prompts.is_empty()).count()
    }

    /// The prompts of a label: its own, else the templates with the label in them; without templates, the label.
    pub fn prompts<'a>(
        &'a self,
        label: usize,
        templates: &'a [Template],
    ) -> impl Iterator<Item = String> + use<'a> {
        let (name, own) = (&self.names[label], &self.prompts[label]);
        let templates = if own.is_empty() { templates } else { &[] };
        let bare = (own.is_empty() && templates.is_empty()).then(|| name.clone());
        let own = own.iter().map(|prompt| fill(prompt, name));
        own.chain(templates.iter().map(|template| template.apply(name))).chain(bare)
    }

    /// Unit label embeddings `[C, dim]`: the mean of the unit embeddings of each label's prompts, renormalized (open_clip,
    /// CLIP_benchmark); of a single prompt its embedding.
    ///
    /// # Errors
    /// Those of the text tower.
    pub fn embed(&self, model: &dyn Encoder, templates: &[Template]) -> Result<Embeddings> {
        let dim = model.dim();
        let mut means =
            Means { dim, sum: vec![0.0; dim], count: 0, rows: Vec::with_capacity(self.names.len() * dim) };
        let mut all = (0..self.names.len())
            .flat_map(|label| self.prompts(label, templates).map(move |prompt| (label, prompt)))
            .peekable();
        while all.peek().is_some() {
            let (labels, prompts): (Vec<usize>, Vec<String>) = all.by_ref().take(BATCH).unzip();
            let next = all.peek().map(|(label, _)| *label);
            let rows = model.embed_texts(&prompts.iter().map(String::as_str).collect::<Vec<_>>())?.embeddings;
            for (i, row) in rows.rows().enumerate() {
                let following = labels.get(i + 1).copied().or(next);
                means.add(row, following != Some(labels[i]));
            }
        }
        Ok(Embeddings::new(means.rows, dim))
    }
}

/// Unit means of rows that come label by label.
struct Means {
    dim: usize,
    sum: Vec<f64>,
    count: usize,
    rows: Vec<f32>,
}

impl Means {
    /// Adds a row of the label at hand; `last` ends it.
    fn add(&mut self, row: &[f32], last: bool) {
        if last && self.count == 0 {
            self.rows.extend_from_slice(row);
            return;
        }
        self.sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        self.count += 1;
        if last {
            // The length of the sum instead of the mean: renormalizing takes the count out again.
            let norm = self.sum.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
            self.rows.extend(self.sum.iter().map(|sum| (sum / norm) as f32));
            self.sum = vec![0.0; self.dim];
            self.count = 0;
        }
    }
}

/// A label or prompt as it is compared and shown: Unicode's normal form C, without white space and invisible marks around it.
pub fn normalized(text: &str) -> String {
    // Byte order marks, zero-width spaces and word joiners are left over from other programs; white space is Unicode's.
    let invisible = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}' | '\u{2060}');
    text.trim_matches(invisible).nfc().collect()
}

/// Texts as they are compared and shown, without empty ones.
fn all_normalized(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| normalized(text)).filter(|text| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::XmoreError;

    #[test]
    fn mistakes_in_labels_are_named() {
        assert_eq!(Labels::new([" cat ", "cafe\u{301}"]).unwrap().names(), ["cat", "caf\u{e9}"]);
        assert!(matches!(Labels::new(["cat"]), Err(XmoreError::Label(LabelError::TooFew { found: 1 }))));
        assert!(matches!(
            Labels::new(["cat", " \u{feff}"]),
            Err(XmoreError::Label(LabelError::Empty { place: 1 }))
        ));
        let twice = Labels::new(["caf\u{e9}", "dog", "cafe\u{301}"]);
        assert!(
            matches!(twice, Err(XmoreError::Label(LabelError::Duplicate { label, lines: None })) if label == "café")
        );
        assert!(Labels::repeatable(["missile", "missile"]).is_ok());
    }

    #[test]
    fn a_label_has_its_own_prompts_or_the_templates() {
        let own = vec!["a photo of a church.".to_owned(), " a {} with a {c} ".to_owned(), String::new()];
        let labels =
            Labels::with_prompts([Label { prompts: own, ..Label::new("church") }, Label::new("tench")])
                .unwrap();
        let templates = [Template::default(), Template::new("{}!").unwrap()];
        let prompts = |label, templates| labels.prompts(label, templates).collect::<Vec<_>>();
        assert_eq!(prompts(0, &templates), ["a photo of a church.", "a church with a church"]);
        assert_eq!(prompts(1, &templates), ["a photo of a tench.", "tench!"]);
        assert_eq!(prompts(1, &[]), ["tench"]);
        assert_eq!(labels.with_own_prompts(), 1);
    }

    #[test]
    fn synonyms_make_a_difference_to_labels_but_not_to_prompts() {
        let synonyms = vec![" cafe\u{301} ".to_owned(), " ".to_owned(), "bar".to_owned()];
        let with = Labels::with_prompts([Label { synonyms, ..Label::new("inn") }, Label::new("tench")]);
        let (with, without) = (with.unwrap(), Labels::new(["inn", "tench"]).unwrap());
        assert_eq!(with.synonyms(), [vec!["caf\u{e9}".to_owned(), "bar".to_owned()], vec![]]);
        assert_ne!(with, without);
        let prompts = |labels: &Labels| labels.prompts(0, &[Template::default()]).collect::<Vec<_>>();
        assert_eq!(prompts(&with), prompts(&without));
    }

    #[test]
    fn means_are_those_of_each_label_alone() {
        let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures/tiny");
        let model = crate::NamedModel::open(&format!("local-dir:{}", tiny.display())).unwrap();
        let label = |name: &str, count: usize| Label {
            prompts: (0..count).map(|i| format!("{name} {i}")).collect(),
            ..Label::new(name)
        };
        // More prompts than a batch, ending within a label.
        let labels = Labels::with_prompts([label("a", 700), label("b", 1), label("c", 700)]).unwrap();
        let rows = labels.embed(&model, &[]).unwrap();
        for (i, own) in labels.own_prompts().iter().enumerate() {
            let each = model.encode_texts(own).unwrap().embeddings;
            let mut sum = vec![0f64; model.dim()];
            each.rows().for_each(|row| sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v)));
            let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            let mean: Vec<f32> = match own.len() {
                1 => each.row(0).to_vec(),
                _ => sum.iter().map(|v| (v / norm) as f32).collect(),
            };
            assert_eq!(rows.row(i), mean);
        }
        assert_eq!(rows.len(), 3);
    }
}
