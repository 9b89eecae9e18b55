//! The pairs of a demo: Debian's stamps, or a folder of the user's with one sub-folder for each label.

use std::path::{Path, PathBuf};

use xmore::Labels;
use xmore_files::{path_from_text, path_to_text};
use xmore_memory::ingest::{ImageRef, InputFormat, Skip, Source, SourceOptions};

use super::stamps;
use crate::error::{CliError, Result};

/// Labels with fewer pairs are left out of a user's folder: a random split would too often have none of them in the memory or among the queries.
const MIN_PAIRS: usize = 4;

/// A picture, its caption, its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub image: PathBuf,
    /// Path below the set's folder, for people.
    pub name: String,
    pub caption: String,
    /// Index of the label.
    pub label: usize,
}

/// Labeled pairs and where they are from.
#[derive(Clone, Debug)]
pub(super) struct PairSet {
    /// Whether they are Debian's stamps, whose terms the report states.
    pub stamps: bool,
    pub dir: PathBuf,
    pub labels: Labels,
    pub pairs: Vec<Pair>,
    /// What gave no pair, and why, for people.
    pub skipped: Vec<String>,
}

impl PairSet {
    /// The photos of the stamps in `dir`, which [`stamps::fetch`] returned.
    pub fn stamps(dir: &Path) -> Result<Self> {
        let found = stamps::pairs(dir)?;
        let skipped = match found.without_caption {
            0 => Vec::new(),
            n => vec![format!("{n} picture(s) without a caption")],
        };
        let pairs = found.stamps.into_iter().map(|stamp| Pair {
            name: name_below(dir, &stamp.image),
            image: stamp.image,
            caption: stamp.caption,
            label: stamp.label,
        });
        let labels = Labels::new(stamps::LABELS.map(|(_, label)| label))?;
        Ok(Self { stamps: true, dir: dir.to_owned(), labels, pairs: pairs.collect(), skipped })
    }

    /// Pictures with captions of the same stem below the sub-folders of `dir`; a sub-folder's name, with spaces for underscores, is the
    /// label.
    pub fn folder(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(CliError::Usage(format!(
                "--pairs {}: expected a folder, found {}",
                dir.display(),
                if dir.exists() { "a file" } else { "nothing" }
            )));
        }
        let ingested = Source::detect(dir, InputFormat::Files, &SourceOptions::default())?.read()?;
        let told = |skip: &Skip| format!("{}: {}", name_below(dir, &path_from_text(&skip.path)), skip.reason);
        let mut skipped: Vec<String> = ingested.skipped.iter().map(told).collect();
        for row in ingested.left_out.reasons() {
            skipped.push(format!("{} {}, such as {}", row.count, row.reason, row.examples.join(", ")));
        }
        let mut found: Vec<(String, Vec<Pair>)> = Vec::new();
        for pair in ingested.pairs {
            let ImageRef::File(image) = pair.image else { continue };
            let name = name_below(dir, &image);
            let mut below = image.strip_prefix(dir).unwrap_or(&image).components();
            // Sorted by path, so the pairs of one sub-folder follow one another.
            let (Some(folder), Some(_)) = (below.next(), below.next()) else {
                skipped.push(format!("{name}: in no sub-folder, so it has no label"));
                continue;
            };
            let label = folder.as_os_str().to_string_lossy().replace('_', " ");
            if found.last().is_none_or(|(last, _)| *last != label) {
                found.push((label, Vec::new()));
            }
            let of_label = &mut found.last_mut().expect("one was just pushed").1;
            let caption = pair.captions.into_iter().next().unwrap_or_default();
            of_label.push(Pair { image, name, caption, label: 0 });
        }
        Self::from_groups(dir, found, skipped)
    }

    fn from_groups(
        dir: &Path,
        mut groups: Vec<(String, Vec<Pair>)>,
        mut skipped: Vec<String>,
    ) -> Result<Self> {
        let seen: Vec<String> =
            groups.iter().map(|(label, pairs)| format!("{label} ({})", pairs.len())).collect();
        groups.retain(|(label, pairs)| {
            let enough = pairs.len() >= MIN_PAIRS;
            if !enough {
                skipped.push(format!("label {label:?}: {} pair(s), {MIN_PAIRS} are needed", pairs.len()));
            }
            enough
        });
        if groups.len() < 2 {
            let seen = if seen.is_empty() { "no pairs".to_owned() } else { seen.join(", ") };
            return Err(CliError::Usage(format!(
                "{}: expected at least two sub-folders (their names are the labels) with at least {MIN_PAIRS} readable pictures \
                 each (the caption in the first line of a .txt of the same stem); found {seen}",
                dir.display()
            )));
        }
        let labels = Labels::new(groups.iter().map(|(label, _)| label.as_str()))?;
        let pairs = groups
            .into_iter()
            .enumerate()
            .flat_map(|(label, (_, pairs))| pairs.into_iter().map(move |pair| Pair { label, ..pair }));
        Ok(Self { stamps: false, dir: dir.to_owned(), labels, pairs: pairs.collect(), skipped })
    }

    /// The same set without the pairs whose pictures could not be read.
    pub fn keeping(self, kept: &[usize], mut unreadable: Vec<String>) -> Result<Self> {
        if unreadable.is_empty() {
            return Ok(self);
        }
        let mut skipped = self.skipped;
        skipped.append(&mut unreadable);
        let pairs: Vec<Pair> = kept.iter().map(|&i| self.pairs[i].clone()).collect();
        // A label that lost pictures stays: dropping it now would change the choice between the others.
        let labels_left =
            (0..self.labels.names().len()).filter(|l| pairs.iter().any(|p| p.label == *l)).count();
        if labels_left < 2 || pairs.len() < 2 * MIN_PAIRS {
            return Err(CliError::Usage(format!(
                "{}: only {} of {} pictures could be read, which is too few; the first: {}",
                self.dir.display(),
                pairs.len(),
                self.pairs.len(),
                skipped.last().map_or("", String::as_str)
            )));
        }
        Ok(Self { pairs, skipped, ..self })
    }

    /// The name of a label.
    pub fn label(&self, label: usize) -> &str {
        &self.labels.names()[label]
    }
}

/// Path below `dir`, with forward slashes on every platform.
fn name_below(dir: &Path, path: &Path) -> String {
    let below = path_to_text(path.strip_prefix(dir).unwrap_or(path));
    if cfg!(windows) { below.replace('\\', "/") } else { below.into_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(dir: &Path, folder: &str, count: usize) {
        fs::create_dir_all(dir.join(folder)).unwrap();
        for i in 0..count {
            fs::write(dir.join(folder).join(format!("{i}.png")), "").unwrap();
            fs::write(dir.join(folder).join(format!("{i}.txt")), format!("{folder} number {i}\n")).unwrap();
        }
    }

    #[test]
    fn folder_names_are_labels_and_small_ones_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "fire_truck", 4);
        put(dir.path(), "dog/small", 3);
        put(dir.path(), "dog", 2);
        put(dir.path(), "rare", 3);
        put(dir.path(), "", 1);
        let set = PairSet::folder(dir.path()).unwrap();
        assert_eq!(set.labels.names(), ["dog", "fire truck"]);
        assert_eq!(set.pairs.len(), 9);
        assert_eq!((set.pairs[4].name.as_str(), set.pairs[4].label), ("dog/small/2.png", 0));
        assert_eq!(set.pairs[8].caption, "fire_truck number 3");
        assert_eq!(set.skipped.len(), 2, "{:?}", set.skipped);
    }

    #[test]
    fn too_little_says_what_was_found() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "dog", 4);
        put(dir.path(), "cat", 3);
        let message = PairSet::folder(dir.path()).unwrap_err().to_string();
        assert!(message.contains("found cat (3), dog (4)"), "{message}");
        let message = PairSet::folder(&dir.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("found nothing"), "{message}");
    }

    #[test]
    fn unreadable_pictures_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "dog", 5);
        put(dir.path(), "cat", 5);
        let set = PairSet::folder(dir.path()).unwrap();
        let kept =
            set.clone().keeping(&[0, 1, 2, 3, 4, 5, 6, 7, 8], vec!["dog/4.png: broken".into()]).unwrap();
        assert_eq!((kept.pairs.len(), kept.skipped.len()), (9, 1));
        assert!(set.keeping(&[0, 1, 2, 3, 4], vec!["all of the dogs".into()]).is_err());
    }
}
