//! A model's numbers, computed here, against those that others published of the same weights.

mod table;

use std::path::Path;

use serde::Serialize;
use xmore::ModelName;
use xmore_clip::{Embeddings, Model};

use crate::error::Result;
use table::{Check, PUBLISHED, Picture, Published};

/// How far a component of a unit vector, or a probability, may be from the published one.
const TOLERANCE: f64 = 2e-5;

/// What came of comparing a model's numbers.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Numbers {
    /// No values are known of this model.
    NonePublished,
    /// Its files are not what was recorded, so its numbers were not computed.
    NotCompared,
    /// All were compared.
    Compared {
        /// Where the published values are from.
        source: String,
        checks: Vec<Compared>,
    },
}

/// One published output beside the model's own.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    /// Of what it is.
    what: String,
    /// The largest difference of a component or a probability; none where the two cannot be compared.
    largest_difference: Option<f64>,
    as_published: bool,
}

impl Numbers {
    pub(super) fn is_good(&self) -> bool {
        match self {
            Self::Compared { checks, .. } => checks.iter().all(|check| check.as_published),
            _ => true,
        }
    }

    /// Lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::NonePublished => {
                vec!["no published values for this model are known: bytes only".to_owned()]
            }
            Self::NotCompared => vec!["numbers not compared: the files are not what was recorded".to_owned()],
            Self::Compared { source, checks } => {
                let lines = checks.iter().map(Compared::line);
                lines.chain([format!("published: {source}")]).collect()
            }
        }
    }
}

impl Compared {
    fn line(&self) -> String {
        let verdict = match (self.as_published, self.largest_difference) {
            (true, Some(largest)) => format!("as published, to {largest:.0e}"),
            (_, Some(largest)) => {
                format!(
                    "DIFFERENT from what was published by up to {largest:.1e}; expected {TOLERANCE:.0e} at most"
                )
            }
            (_, None) => "DIFFERENT from what was published: another number of components".to_owned(),
        };
        format!("{}: {verdict}", self.what)
    }

    fn new(what: String, largest_difference: Option<f64>) -> Self {
        // What is not a number is as far off as can be, and JSON has no infinity.
        let largest = largest_difference.map(|largest| if largest.is_finite() { largest } else { f64::MAX });
        let as_published = largest.is_some_and(|largest| largest <= TOLERANCE);
        Self { what, largest_difference: largest, as_published }
    }
}

/// Compares the model of that name; `open` is called if there is something to compare.
pub(super) fn compare(name: &ModelName, open: impl FnOnce() -> Result<xmore::NamedModel>) -> Result<Numbers> {
    match find(name)? {
        Some(published) => {
            let model = open()?;
            published.compare(&model)
        }
        None => Ok(Numbers::NonePublished),
    }
}

/// What is published of a model: by its name, or by its file's digest where it is a checkpoint of the user's.
fn find(name: &ModelName) -> Result<Option<&'static Published<'static>>> {
    if let Some(path) = name.local_path() {
        let digest = if path.is_file() { xmore_hub::sha256(path)? } else { String::new() };
        return Ok(PUBLISHED.iter().find(|published| published.checkpoint == digest));
    }
    let name = name.to_string();
    Ok(PUBLISHED.iter().find(|published| published.names.contains(&name.as_str())))
}

impl Published<'_> {
    fn compare(&self, model: &Model) -> Result<Numbers> {
        let checks = self.checks.iter().map(|check| check.compare(model)).collect::<Result<_>>()?;
        Ok(Numbers::Compared { source: self.source.to_owned(), checks })
    }
}

impl Check<'_> {
    fn compare(&self, model: &Model) -> Result<Compared> {
        Ok(match *self {
            Self::Texts { texts, vectors } => {
                let what = format!("embeddings of {}", quoted(texts));
                let found = model.encode_texts(texts)?.embeddings;
                Compared::new(what, vector_difference(&found, &npy(vectors)))
            }
            Self::Image { picture, vector } => {
                let what = format!("embedding of the picture {}", picture.name);
                Compared::new(what, vector_difference(&picture.encode(model)?, &npy(vector)))
            }
            Self::TextPart { text, first, sum } => {
                let what = format!("{} components and the sum of the embedding of {text:?}", first.len());
                let found = model.encode_texts(&[text])?.embeddings;
                Compared::new(what, part_difference(found.row(0), first, sum))
            }
            Self::Probabilities { picture, texts, probabilities } => {
                let what = format!("probabilities of {} for the picture {}", quoted(texts), picture.name);
                let image = picture.encode(model)?;
                let texts = model.encode_texts(texts)?.embeddings;
                let scale = f64::from(model.logit_scale());
                let weights: Vec<f64> =
                    texts.rows().map(|text| (scale * dot(image.row(0), text)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let found = weights.iter().map(|weight| weight / sum);
                Compared::new(what, Some(largest(found.zip(probabilities.iter().copied()))))
            }
        })
    }
}

impl Picture<'_> {
    fn encode(&self, model: &Model) -> Result<Embeddings> {
        let loaded = model.preprocess().load_bytes(self.bytes, Path::new(self.name))?;
        Ok(model.encode_images(&[loaded.pixels])?)
    }
}

/// The rows of an `.npy` file that is part of this program.
fn npy(bytes: &[u8]) -> Embeddings {
    let file = npyz::NpyFile::new(bytes).expect("an .npy file of this program");
    let dim = file.shape().last().map_or(0, |dim| *dim as usize);
    Embeddings::new(file.into_vec().expect("32-bit floats in an .npy file of this program"), dim)
}

/// The largest difference of components, both rows as unit vectors; none for rows of other lengths.
fn vector_difference(found: &Embeddings, expected: &Embeddings) -> Option<f64> {
    if (found.len(), found.dim()) != (expected.len(), expected.dim()) {
        return None;
    }
    let pairs = found.rows().zip(expected.rows()).flat_map(|(found, expected)| {
        let [found_length, length] = [found, expected].map(|row| dot(row, row).sqrt());
        found.iter().zip(expected).map(move |(&f, &e)| (f64::from(f) / found_length, f64::from(e) / length))
    });
    Some(largest(pairs))
}

/// The same of a vector of which only the first components and the sum are published. Its length is not: the one that fits the components
/// best is taken. The sum's difference is divided by the root of the number of components, as one of independent errors of that size.
fn part_difference(found: &[f32], first: &[f64], sum: f64) -> Option<f64> {
    let start = found.get(..first.len())?;
    let products: f64 = first.iter().zip(start).map(|(&e, &f)| e * f64::from(f)).sum();
    let length = products / dot(start, start);
    let found_sum: f64 = found.iter().map(|&f| f64::from(f)).sum();
    let of_sum = (found_sum - sum / length) / (found.len() as f64).sqrt();
    // A negative length is that of the opposite vector.
    let of_sum = if length > 0.0 { of_sum } else { f64::INFINITY };
    let components = start.iter().zip(first).map(|(&f, &e)| (f64::from(f), e / length));
    Some(largest(components.chain([(of_sum, 0.0)])))
}

/// The largest difference; infinite where one is not a number.
fn largest(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let differences = pairs.map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0, |most, one| if one.is_nan() { f64::INFINITY } else { most.max(one) })
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use npyz::WriterBuilder;

    use super::*;

    const TEXTS: &[&str] = &["a cat", "a dog in the snow"];

    fn tiny() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures/tiny")
    }

    /// A tiny model with random weights.
    fn stand_in() -> Model {
        Model::load(tiny()).unwrap()
    }

    /// The same with one other number in each head.
    fn other_weights() -> (tempfile::TempDir, Model) {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(tiny()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let heads = dir.path().join("heads.safetensors");
        let mut bytes = std::fs::read(&heads).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        for bias in ["text.proj.bias", "visual.proj.bias"] {
            let at = 8 + header + json[bias]["data_offsets"][0].as_u64().unwrap() as usize;
            let value = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&(value + 1.0).to_le_bytes());
        }
        std::fs::write(heads, bytes).unwrap();
        let model = Model::load(dir.path()).unwrap();
        (dir, model)
    }

    fn npy_of(rows: &Embeddings, factor: f32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let shape = [rows.len() as u64, rows.dim() as u64];
        let mut writer =
            npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().unwrap();
        writer.extend(rows.as_slice().iter().map(|value| value * factor)).unwrap();
        writer.finish().unwrap();
        bytes
    }

    /// What the stand-in gives, as others would publish it: its vectors are not of unit length.
    struct World {
        texts: Vec<u8>,
        image: Vec<u8>,
        first: Vec<f64>,
        sum: f64,
        probabilities: Vec<f64>,
    }

    const PICTURE: Picture = Picture {
        name: "wide.png",
        bytes: include_bytes!("../../../../../xmore-clip/tests/fixtures/images/wide.png"),
    };

    impl World {
        fn of(model: &Model) -> Self {
            let texts = model.encode_texts(TEXTS).unwrap().embeddings;
            let image = PICTURE.encode(model).unwrap();
            let logits =
                texts.rows().map(|text| (f64::from(model.logit_scale()) * dot(image.row(0), text)).exp());
            let weights: Vec<f64> = logits.collect();
            let row = texts.row(0).iter().map(|&value| 3.0 * f64::from(value));
            Self {
                texts: npy_of(&texts, 7.5),
                image: npy_of(&image, 11.0),
                first: row.clone().take(5).collect(),
                sum: row.sum(),
                probabilities: weights.iter().map(|weight| weight / weights.iter().sum::<f64>()).collect(),
            }
        }

        fn compared(&self, model: &Model) -> Vec<Compared> {
            let checks = [
                Check::Texts { texts: TEXTS, vectors: &self.texts },
                Check::TextPart { text: TEXTS[0], first: &self.first, sum: self.sum },
                Check::Image { picture: PICTURE, vector: &self.image },
                Check::Probabilities { picture: PICTURE, texts: TEXTS, probabilities: &self.probabilities },
            ];
            let published = Published { names: &[], checkpoint: "", source: "here", checks: &checks };
            match published.compare(model).unwrap() {
                Numbers::Compared { checks, .. } => checks,
                other => panic!("{other:?}"),
            }
        }

        fn verdicts(&self, model: &Model) -> Vec<bool> {
            self.compared(model).iter().map(|check| check.as_published).collect()
        }
    }

    #[test]
    fn the_same_numbers_and_other_ones() {
        let model = stand_in();
        let mut world = World::of(&model);
        assert_eq!(world.verdicts(&model), [true; 4]);
        // Other weights: every output differs, and it is said by how much.
        let (_dir, other) = other_weights();
        let compared = world.compared(&other);
        assert!(compared.iter().all(|check| !check.as_published), "{compared:?}");
        assert!(compared[..3].iter().all(|check| check.largest_difference.unwrap() > 1e-3), "{compared:?}");
        assert!(compared[0].line().contains("DIFFERENT"), "{}", compared[0].line());

        // One published number is another.
        world.sum += 0.05;
        world.probabilities[1] += 1e-4;
        assert_eq!(world.verdicts(&model), [true, false, true, false]);
        let one = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - 4;
            let value = f32::from_le_bytes(bytes[at..].try_into().unwrap());
            bytes[at..].copy_from_slice(&(value + 0.01).to_le_bytes());
        };
        one(&mut world.texts);
        one(&mut world.image);
        assert_eq!(world.verdicts(&model), [false; 4]);
    }

    #[test]
    fn what_cannot_be_compared_is_different() {
        let model = stand_in();
        let numbers = PUBLISHED[0].compare(&model).unwrap();
        assert!(!numbers.is_good(), "{numbers:?}");
        let text = numbers.lines().join("\n");
        assert!(text.contains("another number of components"), "{text}");
        let pair =
            |found, expected| Compared::new(String::new(), Some(largest([(found, expected)].into_iter())));
        assert!(pair(1.0, 1.0 + 1e-5).as_published && !pair(1.0, 1.0001).as_published);
        assert!(!pair(f64::NAN, 1.0).as_published);
        serde_json::to_string(&pair(f64::NAN, 1.0)).unwrap();
        // The opposite vector.
        assert!(part_difference(&[1.0, 0.0], &[-3.0], -3.0).unwrap() > TOLERANCE);
        assert!(part_difference(&[1.0, 0.0], &[3.0], 3.0).unwrap() <= TOLERANCE);
    }

    #[test]
    fn the_table_is_whole() {
        for published in PUBLISHED {
            assert_eq!(published.checkpoint.len(), 64);
            for name in published.names {
                let parsed = ModelName::parse(name, None).unwrap();
                assert_eq!(parsed.to_string(), *name);
                assert!(find(&parsed).unwrap().is_some(), "{name}");
            }
            for check in published.checks {
                match check {
                    Check::Texts { texts, vectors } => assert_eq!(npy(vectors).len(), texts.len()),
                    Check::Image { vector, .. } => assert_eq!(npy(vector).len(), 1),
                    Check::TextPart { first, .. } => assert!(first.len() > 1),
                    Check::Probabilities { texts, probabilities, .. } => {
                        assert_eq!(texts.len(), probabilities.len());
                    }
                }
            }
        }
        assert!(find(&ModelName::parse("ViT-B/32", None).unwrap()).unwrap().is_some());
        assert!(find(&ModelName::parse("ViT-B/16", None).unwrap()).unwrap().is_none());
        assert!(find(&ModelName::parse("/nowhere", None).unwrap()).unwrap().is_none());
    }
}
