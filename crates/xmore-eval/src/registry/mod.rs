//! The datasets of the paper, as CoOp lays them out, and what was published on them.
//!
//! Folder names, splits and prompts are CoOp's (`DATASETS.md`, `trainers/zsclip.py`). Of the ten fine-grained datasets, class names are
//! read from their own split files; ImageNet's names and the subsets of ImageNet-A and -R are built in ([`imagenet`]).

pub mod imagenet;
pub mod published;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::data::{Dataset, DatasetFormat, DatasetOption, DatasetOptions};
use crate::error::{EvalError, Result};
use imagenet::Subset;
use xmore::Template;

/// A dataset that is known by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDataset {
    /// The name in tables.
    pub name: &'static str,
    /// Other names, as [`plain_name`] has them: of CoOp's classes and configurations, of CLIP_benchmark, and of the scripts of the paper's
    /// authors, which are TPT's.
    aliases: &'static [&'static str],
    layout: Layout,
    /// Where it is below the data root: CoOp's place, then that of the authors' scripts. Of ImageNet and its shifts it is the folder of the classes.
    places: &'static [&'static str],
    /// CoOp's hand-written prompt.
    pub prompt: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// The name of CoOp's split file.
    Split(&'static str),
    Aircraft,
    /// A folder for each class, and which classes there are.
    Imagenet(Subset),
}

/// The list of the variants of FGVC-Aircraft's test images.
const AIRCRAFT_LIST: &str = "images_variant_test.txt";
const PHOTO: &str = "a photo of a {}.";

/// The ten datasets of the paper's first table, in its order, then ImageNet and its shifts.
#[rustfmt::skip]
pub const DATASETS: [KnownDataset; 15] = [
    KnownDataset {
        name: "Flowers102",
        aliases: &["flowers", "flower102", "vtabflowers", "oxfordflowers"],
        layout: Layout::Split("split_zhou_OxfordFlowers.json"),
        places: &["oxford_flowers", "Flower102"],
        prompt: "a photo of a {}, a type of flower.",
    },
    KnownDataset {
        name: "DTD",
        aliases: &["vtabdtd", "describabletextures"],
        layout: Layout::Split("split_zhou_DescribableTextures.json"),
        places: &["dtd", "DTD"],
        prompt: "{} texture.",
    },
    KnownDataset {
        name: "OxfordPets",
        aliases: &["pets", "vtabpets", "oxfordiiitpet"],
        layout: Layout::Split("split_zhou_OxfordPets.json"),
        places: &["oxford_pets", "OxfordPets"],
        prompt: "a photo of a {}, a type of pet.",
    },
    KnownDataset {
        name: "StanfordCars",
        aliases: &["cars"],
        layout: Layout::Split("split_zhou_StanfordCars.json"),
        places: &["stanford_cars", "StanfordCars"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "UCF101",
        aliases: &["ucf"],
        layout: Layout::Split("split_zhou_UCF101.json"),
        places: &["ucf101", "UCF101"],
        prompt: "a photo of a person doing {}.",
    },
    KnownDataset {
        name: "Caltech101",
        aliases: &["caltech", "vtabcaltech101"],
        layout: Layout::Split("split_zhou_Caltech101.json"),
        places: &["caltech-101", "Caltech101"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "Food101",
        aliases: &["food"],
        layout: Layout::Split("split_zhou_Food101.json"),
        places: &["food-101", "Food101"],
        prompt: "a photo of {}, a type of food.",
    },
    KnownDataset {
        name: "SUN397",
        aliases: &["sun"],
        layout: Layout::Split("split_zhou_SUN397.json"),
        places: &["sun397", "SUN397"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "FGVCAircraft",
        aliases: &["aircraft"],
        layout: Layout::Aircraft,
        places: &["fgvc_aircraft"],
        prompt: "a photo of a {}, a type of aircraft.",
    },
    KnownDataset {
        name: "EuroSAT",
        aliases: &["vtabeurosat"],
        layout: Layout::Split("split_zhou_EuroSAT.json"),
        places: &["eurosat"],
        prompt: "a centered satellite photo of {}.",
    },
    KnownDataset {
        name: "ImageNet",
        aliases: &["imagenet1k", "i"],
        layout: Layout::Imagenet(Subset::All),
        places: &["imagenet/images/val", "ImageNet/val"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "ImageNet-A",
        aliases: &["imagenetadversarial", "a"],
        layout: Layout::Imagenet(Subset::A),
        places: &["imagenet-adversarial/imagenet-a", "imagenet-a"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "ImageNet-V2",
        aliases: &["imagenetv2matchedfrequencyformatval", "v"],
        layout: Layout::Imagenet(Subset::All),
        places: &["imagenetv2/imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency-format-val"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "ImageNet-R",
        aliases: &["imagenetrendition", "r"],
        layout: Layout::Imagenet(Subset::R),
        places: &["imagenet-rendition/imagenet-r", "imagenet-r"],
        prompt: PHOTO,
    },
    KnownDataset {
        name: "ImageNet-Sketch",
        aliases: &["k"],
        layout: Layout::Imagenet(Subset::All),
        places: &["imagenet-sketch/images", "ImageNet-Sketch"],
        prompt: PHOTO,
    },
];

/// A name without what papers, folders and scripts write differently: case, separators, CLIP_benchmark's `wds/`.
fn plain_name(name: &str) -> String {
    let name = name.to_lowercase();
    let name = ["wds/", "wds_", "wds-"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
    name.chars().filter(|c| !matches!(c, '-' | '_' | '/' | ' ')).collect()
}

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
    /// The dataset of that name, by whatever name it is known.
    pub fn find(name: &str) -> Option<&'static KnownDataset> {
        let name = plain_name(name);
        DATASETS.iter().find(|d| plain_name(d.name) == name || d.aliases.contains(&name.as_str()))
    }

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

    /// The dataset that CoOp's split file of this name is of.
    pub(crate) fn of_split_file(name: &str) -> Option<&'static KnownDataset> {
        DATASETS.iter().find(|d| matches!(d.layout, Layout::Split(file) if file == name))
    }

    /// The dataset that the lists of variants are of.
    pub(crate) fn of_aircraft_lists() -> Option<&'static KnownDataset> {
        DATASETS.iter().find(|d| d.layout == Layout::Aircraft)
    }

    /// The dataset that a folder has the files of, as CoOp lays them out.
    pub fn at(path: &Path) -> Option<&'static KnownDataset> {
        let has_files = |dataset: &&KnownDataset| match dataset.layout {
            Layout::Split(file) => path.join(file).is_file(),
            Layout::Aircraft => path.join(AIRCRAFT_LIST).is_file(),
            Layout::Imagenet(_) => false,
        };
        DATASETS.iter().find(has_files).or_else(|| Some(Self::imagenet_at(path)?.0))
    }

    /// ImageNet or the shift of it that a path leads to, as its folders are named, with the folder of the classes. The path may end at any
    /// folder of the usual place, so that `…/imagenet-adversarial` and `…/imagenet-adversarial/imagenet-a` are the same.
    pub(crate) fn imagenet_at(path: &Path) -> Option<(&'static KnownDataset, PathBuf)> {
        let path = path.canonicalize().ok()?;
        DATASETS.iter().filter(|d| matches!(d.layout, Layout::Imagenet(_))).find_map(|dataset| {
            let mut places = dataset.places.iter().flat_map(|place| {
                let place = Path::new(place);
                place.ancestors().filter_map(move |head| Some((head, place.strip_prefix(head).ok()?)))
            });
            let (_, below) = places.find(|(head, below)| {
                !head.as_os_str().is_empty() && path.ends_with(head) && path.join(below).is_dir()
            })?;
            // Joining nothing would leave a slash at the end.
            let place = if below.as_os_str().is_empty() { path.clone() } else { path.join(below) };
            Some((dataset, place))
        })
    }

    /// Whether its images and labels are below the data root, and where.
    ///
    /// # Errors
    /// [`Missing`], with what CoOp has at its place.
    pub fn locate(&self, data_root: &Path) -> std::result::Result<PathBuf, Missing> {
        let of_place = |place: &&'static str| {
            let place = data_root.join(place);
            let wanted = match self.layout {
                Layout::Split(file) => place.join(file),
                Layout::Aircraft => place.join(AIRCRAFT_LIST),
                Layout::Imagenet(_) => place.clone(),
            };
            (place, wanted)
        };
        let mut places = self.places.iter().map(of_place);
        let (first, looked_for) = places.next().unwrap_or_default();
        if looked_for.exists() {
            return Ok(first);
        }
        let found = places.find(|(_, wanted)| wanted.exists()).map(|(place, _)| place);
        found.ok_or(Missing { name: self.name, looked_for })
    }

    /// The layout that it is in below the data root.
    fn format(&self) -> DatasetFormat {
        match self.layout {
            Layout::Split(_) => DatasetFormat::Coop,
            Layout::Aircraft => DatasetFormat::Aircraft,
            Layout::Imagenet(_) => DatasetFormat::Imagenet,
        }
    }

    /// Its prompt, ready for labels.
    pub(crate) fn template(&self) -> Result<Template> {
        Ok(Template::new(self.prompt)?)
    }

    /// Reads it from where [`KnownDataset::locate`] found it, with its name and prompt.
    ///
    /// # Errors
    /// Those of [`Dataset::read_with`]; [`EvalError::UnusedOption`] for another layout than that of its place.
    pub fn read(&self, place: &Path, options: &DatasetOptions) -> Result<Dataset> {
        let format = self.format();
        if ![DatasetFormat::Auto, format].contains(&options.format) {
            let reason = format!("{} has the layout `{format}` there", self.name);
            return Err(EvalError::unused(place, DatasetOption::Format, reason));
        }
        let options = DatasetOptions { format, ..options.clone() };
        let dataset = match self.layout {
            Layout::Split(file) => Dataset::read_with(&place.join(file), &options)?,
            Layout::Aircraft => Dataset::read_with(place, &options)?,
            Layout::Imagenet(subset) => {
                let (place, options) = of_imagenet(place, &options);
                Dataset::read_imagenet(&place, &options, &imagenet::ids(subset))?
            }
        };
        // Which dataset it is needs no note.
        let notes = Vec::new();
        Ok(Dataset { name: self.name.to_owned(), prompts: vec![self.template()?], notes, ..dataset })
    }
}

/// What is evaluated of ImageNet and its shifts is `val` on disk and `test` in CoOp and CLIP_benchmark, so both name it; another split is
/// a folder beside `val`.
fn of_imagenet(place: &Path, options: &DatasetOptions) -> (PathBuf, DatasetOptions) {
    let Some(split) = &options.split else { return (place.to_owned(), options.clone()) };
    if ["test", "val"].iter().any(|name| split.eq_ignore_ascii_case(name)) {
        return (place.to_owned(), DatasetOptions { split: None, ..options.clone() });
    }
    let beside = place.with_file_name(split);
    let found = if place.ends_with("val") && beside.is_dir() { beside } else { place.to_owned() };
    (found, options.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_are_found_by_every_name_once() {
        for dataset in &DATASETS {
            for name in std::iter::once(&dataset.name).chain(dataset.aliases) {
                let plain = plain_name(name);
                let owners = DATASETS
                    .iter()
                    .filter(|d| plain_name(d.name) == plain || d.aliases.contains(&plain.as_str()));
                assert_eq!(owners.count(), 1, "{name}");
            }
            assert!(dataset.aliases.iter().all(|name| plain_name(name) == *name), "{:?}", dataset.aliases);
        }
        assert!(KnownDataset::require("mnist").unwrap_err().to_string().contains("EuroSAT"));
    }

    /// The names of CoOp's classes and configurations, of CLIP_benchmark, and of the authors' scripts.
    #[test]
    fn names_of_other_programs_are_known() {
        let known = [
            (
                "Flowers102",
                "OxfordFlowers oxford_flowers vtab/flowers wds/vtab/flowers flower102 Flower102 flowers102",
            ),
            ("DTD", "DescribableTextures dtd vtab/dtd wds/vtab/dtd DTD"),
            ("OxfordPets", "OxfordPets oxford_pets vtab/pets wds/vtab/pets wds_vtab-pets pets Pets"),
            ("StanfordCars", "StanfordCars stanford_cars cars wds/cars Cars"),
            ("UCF101", "UCF101 ucf101"),
            ("Caltech101", "Caltech101 caltech101 caltech-101 vtab/caltech101 wds/vtab/caltech101"),
            ("Food101", "Food101 food101 food-101 wds/food101"),
            ("SUN397", "SUN397 sun397 wds/sun397"),
            ("FGVCAircraft", "FGVCAircraft fgvc_aircraft wds/fgvc_aircraft Aircraft aircraft"),
            ("EuroSAT", "EuroSAT eurosat vtab/eurosat wds/vtab/eurosat"),
            ("ImageNet", "ImageNet imagenet imagenet1k wds/imagenet1k imagenet-1k I"),
            ("ImageNet-A", "ImageNetA imagenet_a imagenet-a wds/imagenet-a A"),
            ("ImageNet-V2", "ImageNetV2 imagenetv2 wds/imagenetv2 V"),
            ("ImageNet-R", "ImageNetR imagenet_r imagenet-r wds/imagenet-r R"),
            ("ImageNet-Sketch", "ImageNetSketch imagenet_sketch imagenet-sketch wds/imagenet_sketch K"),
        ];
        for (name, others) in known {
            for other in others.split(' ') {
                assert_eq!(KnownDataset::find(other).map(|d| d.name), Some(name), "{other}");
            }
        }
    }

    #[test]
    fn suites_have_their_datasets() {
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
