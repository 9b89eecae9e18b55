//! What the image tower's ImageNet classifier knows, as pairs of an image feature and a text.
//!
//! A class's image side is its prototype in feature space: Σ (w_c − w̄), the direction along which linear discriminant analysis says that the
//! class's images differ from the mean, for a classifier weight w_c and the features' correlation Σ. Its text side is its name in a
//! template, a synonym or a hypernym from WordNet 3.0.

use std::error::Error;
use std::path::Path;

use ndarray::{Array1, Array2, Axis};
use xmore::NamedModel;
use xmore_clip::Checkpoint;

use crate::features::cached_texts;
use crate::folder;

/// Classes of ImageNet-1k.
const CLASSES: usize = 1000;
const NAMES: &str = include_str!("../data/imagenet_classes.txt");
const WORDNET: &str = include_str!("../data/wordnet.tsv");

/// Templates of class names; the first is the prompt that zero-shot classification uses.
const NAME_TEMPLATES: [&str; 6] = [
    "a photo of a {}.",
    "{}",
    "a close-up photo of a {}.",
    "a picture of the {}.",
    "a {} .",
    "there is a {} in the photo .",
];
/// Templates of WordNet's words.
const WORD_TEMPLATES: [&str; 2] = ["a photo of a {}.", "{}"];

/// Texts that mean a class or a group of classes.
pub struct Group {
    /// Classes that the texts are true of.
    pub members: Vec<usize>,
    /// Rows of [`Classes::texts`].
    pub texts: Vec<usize>,
}

/// The classifier and the texts of its classes.
pub struct Classes {
    /// `[classes, width]`.
    pub weight: Array2<f32>,
    /// `[classes]`.
    pub bias: Array1<f32>,
    /// Text features of all texts, `[texts, width]`.
    pub texts: Array2<f32>,
    /// For each class its name in each template.
    pub names: Vec<Group>,
    /// For each class its synonyms; may be empty.
    pub synonyms: Vec<Group>,
    /// Hypernyms of several classes.
    pub hypernyms: Vec<Group>,
    /// For each class, hypernyms of its alone.
    pub own_hypernyms: Vec<Group>,
}

impl Classes {
    /// Reads the classifier from the image tower's checkpoint and encodes the texts.
    pub fn load(model: &NamedModel, cache: &Path) -> Result<Self, Box<dyn Error>> {
        let checkpoint = Checkpoint::open(folder::image_tower(model)?)?;
        let bias = checkpoint.tensor("_fc.bias", &[CLASSES])?.into_owned();
        let Some(&[_, width]) = checkpoint.shape("_fc.weight") else {
            return Err("the image tower's checkpoint has no table _fc.weight".into());
        };
        let weight = checkpoint.tensor("_fc.weight", &[CLASSES, width])?.into_owned();
        let mut all: Vec<String> = Vec::new();
        let mut add = |words: &[&str], templates: &[&str]| -> Vec<usize> {
            let start = all.len();
            all.extend(words.iter().flat_map(|word| templates.iter().map(move |t| t.replace("{}", word))));
            (start..all.len()).collect()
        };
        let mut names = Vec::new();
        for (class, name) in NAMES.lines().enumerate() {
            names.push(Group { members: vec![class], texts: add(&[name], &NAME_TEMPLATES) });
        }
        let empty =
            || (0..names.len()).map(|class| Group { members: vec![class], texts: Vec::new() }).collect();
        let (mut synonyms, mut own_hypernyms): (Vec<Group>, Vec<Group>) = (empty(), empty());
        let mut hypernyms = Vec::new();
        for line in WORDNET.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [kind, members, words @ ..] = fields.as_slice() else {
                return Err("wordnet.tsv: short line".into());
            };
            let members = members.split(' ').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
            match (*kind, members.as_slice()) {
                ("lemma", &[class]) => synonyms[class].texts.extend(add(words, &WORD_TEMPLATES)),
                ("hypernym", &[class]) => own_hypernyms[class].texts.extend(add(words, &WORD_TEMPLATES[..1])),
                _ => hypernyms.push(Group { texts: add(words, &WORD_TEMPLATES), members }),
            }
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Ok(Self {
            weight: Array2::from_shape_vec((CLASSES, width), weight)?,
            bias: Array1::from_vec(bias),
            texts: cached_texts(model, cache, "class-texts", &all)?,
            names,
            synonyms,
            hypernyms,
            own_hypernyms,
        })
    }

    /// Image features of the classes in standardised space, `[classes, width]`; `z` are standardised features `[n, width]`, `std` their
    /// deviations before.
    pub fn prototypes(&self, z: &Array2<f32>, std: &Array1<f32>) -> Array2<f32> {
        /// Weight of the identity in the correlation: shrinkage.
        const SHRINKAGE: f32 = 0.3;
        let mean = self.weight.mean_axis(Axis(0)).expect("there are classes");
        let directions = (&self.weight - &mean) * std;
        let mut correlation = z.t().dot(z) * ((1.0 - SHRINKAGE) / z.nrows() as f32);
        correlation.diag_mut().mapv_inplace(|v| v + SHRINKAGE);
        let prototypes = directions.dot(&correlation);
        let deviation = prototypes.std(1.0);
        prototypes / deviation
    }

    /// The classifier's distributions, `[n, classes]`, for features `[n, width]`.
    pub fn classify(&self, features: &Array2<f32>) -> Array2<f32> {
        let mut logits = features.dot(&self.weight.t()) + &self.bias;
        logits.axis_iter_mut(Axis(0)).for_each(|mut row| {
            let max = row.fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            row.mapv_inplace(|v| (v - max).exp());
            let sum = row.sum();
            row.mapv_inplace(|v| v / sum);
        });
        logits
    }
}
