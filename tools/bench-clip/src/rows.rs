//! What is timed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xmore_clip::Pixels;

use crate::Result;

/// One line of the table.
pub struct Row {
    pub name: String,
    /// The architecture, as open_clip names it.
    pub arch: &'static str,
    /// Side of its images, in pixels.
    side: usize,
    pub input: Input,
}

/// What the engines are given.
pub enum Input {
    /// Images that are preprocessed already: random numbers.
    Images { batch: usize },
    /// Captions. `cut`: the peers get tokens up to the longest caption's end, not all 77.
    Texts { texts: Vec<String>, cut: bool },
}

/// Architectures whose loading is timed.
const LOADS: [&str; 2] = ["ViT-B-16", "ViT-B-32"];

/// Precisions in which it is timed.
const LOAD_PRECISIONS: [&str; 2] = ["f32", "bf16"];

pub fn load_name(arch: &str, precision: &str) -> String {
    format!("load/{arch}/{precision}")
}

/// All of [`LOADS`] in each of [`LOAD_PRECISIONS`].
pub fn loads() -> impl Iterator<Item = (&'static str, &'static str)> {
    LOADS.into_iter().flat_map(|arch| LOAD_PRECISIONS.map(|precision| (arch, precision)))
}

/// Architectures whose image towers are timed, with the side of their images in pixels.
const IMAGES: [(&str, usize); 6] = [
    ("ViT-B-16", 224),
    ("ViT-B-32", 224),
    ("RN50", 224),
    ("ViT-B-16-SigLIP", 224),
    ("MobileCLIP-B", 224),
    ("ViT-SO400M-14-SigLIP-384", 384),
];

pub fn all(captions: Vec<String>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (arch, side) in IMAGES {
        for batch in [1, 8] {
            let name = format!("image/{arch}/{batch}");
            rows.push(Row { name, arch, side, input: Input::Images { batch } });
        }
    }
    for (name, cut) in [("text/ViT-B-16/64/77-tokens", false), ("text/ViT-B-16/64/cut", true)] {
        let input = Input::Texts { texts: captions.clone(), cut };
        rows.push(Row { name: name.into(), arch: "ViT-B-16", side: 224, input });
    }
    rows
}

impl Row {
    /// The images `[batch, 3, side, side]`, the same numbers in every run.
    fn channels_first(&self) -> Vec<f32> {
        let Input::Images { batch } = self.input else { return Vec::new() };
        let mut rng = fastrand::Rng::with_seed(7);
        (0..batch * 3 * self.side * self.side).map(|_| rng.f32() * 4.0 - 2.0).collect()
    }

    /// The images as xmore-clip takes them.
    pub fn pixels(&self) -> Vec<Pixels> {
        let area = self.side * self.side;
        let image = |planes: &[f32]| {
            Pixels::new((0..area).flat_map(|p| [0, 1, 2].map(|c| planes[c * area + p])).collect())
        };
        self.channels_first().chunks(3 * area).map(image).collect()
    }

    /// The row as the workers take it; images go through a file in the cache.
    pub fn request(&self, cache: &Path) -> Result<Value> {
        Ok(match &self.input {
            Input::Images { batch } => {
                let path = cache.join(format!("images-{batch}-{}.f32", self.side));
                let bytes: Vec<u8> = self.channels_first().into_iter().flat_map(f32::to_le_bytes).collect();
                std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
                json!({"arch": self.arch, "kind": "images", "batch": batch, "input": path})
            }
            Input::Texts { texts, cut } => {
                json!({"arch": self.arch, "kind": "texts", "texts": texts, "cut": cut})
            }
        })
    }
}

/// `count` captions, taken evenly from a file, or from Flickr8k beside the repository; without either 64 that are made of a few words.
pub fn captions(path: Option<&Path>, count: usize) -> Result<Vec<String>> {
    let shared = PathBuf::from("../shared/data/flickr8k/captions.csv");
    let path = path.or_else(|| shared.is_file().then_some(shared.as_path()));
    let Some(path) = path else { return Ok(built_in()) };
    let name = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let all: Vec<String> = if path.extension().is_some_and(|e| e == "csv") {
        let mut reader = csv::Reader::from_path(path).map_err(|e| name(&e))?;
        let headers = reader.headers().map_err(|e| name(&e))?;
        let column =
            headers.iter().position(|h| h == "caption").ok_or_else(|| name(&"no column `caption`"))?;
        let record = |r: csv::Result<csv::StringRecord>| Ok(r.map_err(|e| name(&e))?[column].to_owned());
        reader.records().map(record).collect::<Result<_>>()?
    } else {
        std::fs::read_to_string(path).map_err(|e| name(&e))?.lines().map(str::to_owned).collect()
    };
    if all.len() < count {
        return Err(name(&format!("{} captions, expected at least {count}", all.len())).into());
    }
    let step = all.len() / count;
    Ok(all.into_iter().step_by(step).take(count).collect())
}

/// As long as captions of photos usually are: 8 to 15 words.
fn built_in() -> Vec<String> {
    let subjects = ["a brown dog", "two children", "an old man in a hat", "a woman with a camera"];
    let actions =
        ["running across a field", "sitting on a bench", "waiting at a crossing", "playing in the water"];
    let places = ["near the sea .", "on a sunny day .", "with a red ball and a small boat .", "at night ."];
    let mut captions = Vec::new();
    for subject in subjects {
        for action in actions {
            captions.extend(places.map(|place| format!("{subject} {action} {place}")));
        }
    }
    captions
}
