//! The datasets of the paper, as CoOp lays them out, and what was published on them.
//!
//! Folder names, splits and prompts are CoOp's (`DATASETS.md`, `trainers/zsclip.py`). Of the ten fine-grained datasets, class names are
//! read from their own split files; ImageNet's names and the subsets of ImageNet-A and -R are built in ([`imagenet`]).

pub mod imagenet;
pub mod published;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use xmore_files::WalkOptions;

use super::data::{Dataset, DatasetFormat, DatasetOptions};
use crate::error::{EvalError, Result};
use imagenet::Subset;
use xmore::Template;

/// A dataset that is known by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDataset {
    /// The name in tables.
    pub name: &'static str,
    /// Other names: CLIP_benchmark's, and the folder's.
    aliases: &'static [&'static str],
    /// Its folder below the data root.
    folder: &'static str,
    layout: Layout,
    /// CoOp's hand-written prompt.
    pub prompt: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// The name of CoOp's split file.
    Split(&'static str),
    Aircraft,
    /// The folder of the classes' folders, and which classes there are.
    Imagenet(&'static str, Subset),
}

const PHOTO: &str = "a photo of a {}.";

const fn split(
    name: &'static str,
    aliases: &'static [&'static str],
    folder: &'static str,
    file: &'static str,
    prompt: &'static str,
) -> KnownDataset {
    KnownDataset { name, aliases, folder, layout: Layout::Split(file), prompt }
}

const fn shift(
    name: &'static str,
    aliases: &'static [&'static str],
    folder: &'static str,
    classes: &'static str,
    subset: Subset,
) -> KnownDataset {
    KnownDataset { name, aliases, folder, layout: Layout::Imagenet(classes, subset), prompt: PHOTO }
}

/// The ten datasets of the paper's first table, in its order, then ImageNet and its shifts.
pub const DATASETS: [KnownDataset; 15] = [
    split(
        "Flowers102",
        &["flowers", "vtab/flowers", "oxford_flowers"],
        "oxford_flowers",
        "split_zhou_OxfordFlowers.json",
        "a photo of a {}, a type of flower.",
    ),
    split(
        "DTD",
        &["vtab/dtd", "describable_textures"],
        "dtd",
        "split_zhou_DescribableTextures.json",
        "{} texture.",
    ),
    split(
        "OxfordPets",
        &["pets", "vtab/pets", "oxford_pets"],
        "oxford_pets",
        "split_zhou_OxfordPets.json",
        "a photo of a {}, a type of pet.",
    ),
    split("StanfordCars", &["cars", "stanford_cars"], "stanford_cars", "split_zhou_StanfordCars.json", PHOTO),
    split("UCF101", &["ucf"], "ucf101", "split_zhou_UCF101.json", "a photo of a person doing {}."),
    split(
        "Caltech101",
        &["caltech", "vtab/caltech101", "caltech-101"],
        "caltech-101",
        "split_zhou_Caltech101.json",
        PHOTO,
    ),
    split(
        "Food101",
        &["food", "food-101"],
        "food-101",
        "split_zhou_Food101.json",
        "a photo of {}, a type of food.",
    ),
    split("SUN397", &["sun"], "sun397", "split_zhou_SUN397.json", PHOTO),
    KnownDataset {
        name: "FGVCAircraft",
        aliases: &["aircraft", "fgvc_aircraft"],
        folder: "fgvc_aircraft",
        layout: Layout::Aircraft,
        prompt: "a photo of a {}, a type of aircraft.",
    },
    split(
        "EuroSAT",
        &["vtab/eurosat"],
        "eurosat",
        "split_zhou_EuroSAT.json",
        "a centered satellite photo of {}.",
    ),
    shift("ImageNet", &["imagenet1k", "imagenet-1k", "imagenet_1k"], "imagenet", "images/val", Subset::All),
    shift(
        "ImageNet-A",
        &["imagenet-a", "imagenet_a", "imagenet-adversarial"],
        "imagenet-adversarial",
        "imagenet-a",
        Subset::A,
    ),
    shift(
        "ImageNet-V2",
        &["imagenetv2", "imagenet_v2"],
        "imagenetv2",
        "imagenetv2-matched-frequency-format-val",
        Subset::All,
    ),
    shift(
        "ImageNet-R",
        &["imagenet-r", "imagenet_r", "imagenet-rendition"],
        "imagenet-rendition",
        "imagenet-r",
        Subset::R,
    ),
    shift(
        "ImageNet-Sketch",
        &["imagenet_sketch", "imagenet-sketch"],
        "imagenet-sketch",
        "images",
        Subset::All,
    ),
];

/// A dataset that is not where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: &'static str,
    /// What was looked for.
    pub looked_for: PathBuf,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing: looked for {}", self.name, self.looked_for.display())
    }
}

impl KnownDataset {
    /// The dataset of that name, in any case.
    pub fn find(name: &str) -> Option<&'static KnownDataset> {
        DATASETS
            .iter()
            .find(|d| std::iter::once(&d.name).chain(d.aliases).any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Whether its images and labels are below the data root.
    ///
    /// # Errors
    /// [`Missing`], with the first thing that is not there.
    pub fn locate(&self, data_root: &Path) -> std::result::Result<PathBuf, Missing> {
        let folder = data_root.join(self.folder);
        let (wanted, place) = match self.layout {
            Layout::Split(file) => (folder.join(file), folder),
            Layout::Aircraft => (folder.join("images_variant_test.txt"), folder),
            Layout::Imagenet(classes, _) => (folder.join(classes), folder.join(classes)),
        };
        if wanted.exists() { Ok(place) } else { Err(Missing { name: self.name, looked_for: wanted }) }
    }

    /// Reads it from where [`KnownDataset::locate`] found it, with its name and prompt; `walk` is for layouts of folders.
    ///
    /// # Errors
    /// Those of [`Dataset::read`].
    pub fn read(&self, place: &Path, walk: &WalkOptions) -> Result<Dataset> {
        let with = |format| DatasetOptions { format, walk: walk.clone(), ..Default::default() };
        let dataset = match self.layout {
            Layout::Split(file) => Dataset::read_with(&place.join(file), &with(DatasetFormat::Coop))?,
            Layout::Aircraft => Dataset::read_with(place, &with(DatasetFormat::Aircraft))?,
            Layout::Imagenet(_, subset) => {
                Dataset::read_imagenet(place, &with(DatasetFormat::Imagenet), &imagenet::ids(subset))?
            }
        };
        Ok(Dataset { name: self.name.to_owned(), prompts: vec![Template::new(self.prompt)?], ..dataset })
    }
}

/// One of the paper's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The ten fine-grained datasets.
    Table1,
    /// ImageNet and its shifts.
    Table2,
    /// All of them, over the number of captions.
    K,
}

impl Suite {
    /// All, by their names.
    pub const NAMES: [(&str, Suite); 3] =
        [("paper-table1", Suite::Table1), ("paper-table2", Suite::Table2), ("paper-k", Suite::K)];

    /// The numbers of captions of the paper's sweep.
    pub const KS: [usize; 6] = [2, 4, 8, 16, 32, 64];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, suite)| *suite == self).map_or("", |(name, _)| name)
    }

    /// The datasets, in the table's order.
    pub fn datasets(self) -> &'static [KnownDataset] {
        match self {
            Suite::Table1 => &DATASETS[..10],
            Suite::Table2 => &DATASETS[10..],
            Suite::K => &DATASETS,
        }
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = || Self::NAMES.map(|(name, _)| name).join(", ");
        let found = Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, suite)| *suite);
        found.ok_or_else(|| format!("no suite {name:?}; there are {}", known()))
    }
}

impl KnownDataset {
    /// The dataset of that name.
    ///
    /// # Errors
    /// [`EvalError::UnknownDataset`] with all names.
    pub fn require(name: &str) -> Result<&'static KnownDataset> {
        Self::find(name).ok_or_else(|| EvalError::UnknownDataset {
            name: name.to_owned(),
            known: DATASETS.map(|d| d.name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_are_found_by_every_name_once() {
        let names: Vec<String> = DATASETS
            .iter()
            .flat_map(|d| std::iter::once(&d.name).chain(d.aliases))
            .map(|name| name.to_lowercase())
            .collect();
        let distinct: std::collections::HashSet<&String> =
            names.iter().filter(|name| KnownDataset::find(&name.to_uppercase()).is_some()).collect();
        // A dataset may have its own name in lower case among its aliases; two may not share one.
        for name in &distinct {
            let owners = DATASETS
                .iter()
                .filter(|d| std::iter::once(&d.name).chain(d.aliases).any(|n| n.eq_ignore_ascii_case(name)));
            assert_eq!(owners.count(), 1, "{name}");
        }
        assert_eq!(KnownDataset::require("imagenet1k").unwrap().name, "ImageNet");
        assert!(KnownDataset::require("mnist").unwrap_err().to_string().contains("EuroSAT"));
        assert_eq!(Suite::NAMES.map(|(_, suite)| suite.datasets().len()), [10, 5, 15]);
        assert!(DATASETS.iter().all(|d| d.prompt.contains("{}")));
    }

    #[test]
    fn what_is_missing_is_named_with_where_it_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let dtd = KnownDataset::find("dtd").unwrap();
        let missing = dtd.locate(root.path()).unwrap_err().to_string();
        assert!(
            missing.contains("DTD") && missing.contains("dtd/split_zhou_DescribableTextures.json"),
            "{missing}"
        );
        std::fs::create_dir_all(root.path().join("imagenet-adversarial/imagenet-a/n01498041")).unwrap();
        assert!(KnownDataset::find("ImageNet-A").unwrap().locate(root.path()).is_ok());
    }
}
