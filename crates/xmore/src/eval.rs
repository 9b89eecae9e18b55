//! Evaluation on labelled images: top-1 of each method from one encoding pass, every image counted.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::ser::SerializeMap;
use xmore_memory::ingest::is_image_name;

use crate::classify::Evidence;
use crate::ensemble::{Method, argmax};
use crate::error::{Result, XmoreError};
use crate::labels::Labels;

/// Images with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The folder's name.
    pub name: String,
    /// One label a class.
    pub labels: Labels,
    /// Image files, sorted by class and name.
    pub images: Vec<PathBuf>,
    /// For each image the index of its label.
    pub truth: Vec<usize>,
}

impl Dataset {
    /// Reads a folder with one sub-folder a class; the label is the sub-folder's name with spaces for underscores.
    ///
    /// # Errors
    /// [`XmoreError::Dataset`] if there are no images, or fewer than two classes; [`XmoreError::Io`].
    pub fn read(dir: &Path) -> Result<Self> {
        let folders: Vec<PathBuf> = entries(dir)?.into_iter().filter(|path| path.is_dir()).collect();
        let (mut names, mut images, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        for folder in folders {
            let files: Vec<PathBuf> =
                entries(&folder)?.into_iter().filter(|path| is_image_name(path) && path.is_file()).collect();
            if files.is_empty() {
                continue;
            }
            truth.extend(std::iter::repeat_n(names.len(), files.len()));
            names.push(file_name(&folder).replace('_', " "));
            images.extend(files);
        }
        if names.len() < 2 {
            return Err(XmoreError::Dataset {
                path: dir.to_owned(),
                message: format!(
                    "expected a folder with one sub-folder of images (jpg, png, webp) for each class, at least two of them; \
                     found {} such sub-folder(s)",
                    names.len()
                ),
            });
        }
        let name = file_name(&dir.canonicalize().unwrap_or_else(|_| dir.to_owned()));
        Ok(Self { name, labels: Labels::new(names)?, images, truth })
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| XmoreError::io("list", dir, e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Accuracy of one method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Share of all images whose first answer is right, in [0, 1].
    pub acc1: f64,
}

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// Name of the dataset.
    pub dataset: String,
    /// All images, those that could not be read included: they count as wrong.
    pub images: usize,
    /// How many of them could not be read.
    pub unreadable: usize,
    /// Share of the images for which captions were retrieved.
    pub coverage: f64,
    /// Accuracy of each method, in the order asked for.
    #[serde(serialize_with = "as_map")]
    pub methods: Vec<(Method, Accuracy)>,
}

fn as_map<S: serde::Serializer>(methods: &[(Method, Accuracy)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(methods.len()))?;
    for (method, accuracy) in methods {
        map.serialize_entry(method.name(), accuracy)?;
    }
    map.end()
}

/// Counts right answers. `evidence` and `truth` are those of the images that could be read; the others make the denominator.
///
/// # Errors
/// Those of [`Evidence::scores`].
pub fn evaluate(
    dataset: &str,
    evidence: &[Evidence],
    truth: &[usize],
    unreadable: usize,
    methods: &[Method],
) -> Result<EvalReport> {
    assert_eq!(evidence.len(), truth.len(), "one truth for each image that was read");
    let images = evidence.len() + unreadable;
    let share = |count: usize| if images == 0 { 0.0 } else { count as f64 / images as f64 };
    let mut results = Vec::with_capacity(methods.len());
    for &method in methods {
        let mut right = 0;
        for (evidence, &truth) in evidence.iter().zip(truth) {
            right += usize::from(argmax(&evidence.scores(method)?) == truth);
        }
        results.push((method, Accuracy { acc1: share(right) }));
    }
    let covered = evidence.iter().filter(|e| e.captions.is_some()).count();
    Ok(EvalReport {
        dataset: dataset.to_owned(),
        images,
        unreadable,
        coverage: share(covered),
        methods: results,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::Belief;

    fn evidence(image: [f64; 2], captions: Option<[f64; 2]>) -> Evidence {
        Evidence {
            image: Belief::new(image.to_vec()),
            templates: None,
            captions: captions.map(|c| Belief::new(c.to_vec())),
            retrieved: Vec::new(),
            votes: Vec::new(),
            note: None,
        }
    }

    #[test]
    fn every_image_counts() {
        let evidence = [evidence([0.6, 0.4], Some([0.1, 0.9])), evidence([0.9, 0.1], None)];
        let methods = [Method::ZeroShot, Method::Captions];
        let report = evaluate("two", &evidence, &[0, 0], 2, &methods).unwrap();
        assert_eq!(report.images, 4);
        assert_eq!(report.coverage, 0.25);
        assert_eq!(report.methods[0].1.acc1, 0.5);
        // Captions are wrong on the first; without captions the second falls back to the image.
        assert_eq!(report.methods[1].1.acc1, 0.25);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["methods"]["zero-shot"]["acc1"], 0.5);
    }

    #[test]
    fn reads_a_folder_per_class() {
        let dir = tempfile::tempdir().unwrap();
        for file in
            ["fire_truck/b.JPG", "fire_truck/a.png", "dog/x.webp", "dog/notes.txt", "empty/readme.txt"]
        {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let dataset = Dataset::read(dir.path()).unwrap();
        assert_eq!(dataset.labels.names(), ["dog", "fire truck"]);
        assert_eq!(dataset.truth, [0, 1, 1]);
        assert!(dataset.images[1].ends_with("fire_truck/a.png"));
        let error = Dataset::read(&dir.path().join("dog")).unwrap_err().to_string();
        assert!(error.contains("found 0 such"), "{error}");
    }
}
