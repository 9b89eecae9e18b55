//! The layouts, the choices that each of them leaves, and what was chosen.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use xmore_files::WalkOptions;

use super::LabelColumns;
use crate::error::{EvalError, Result};

/// A layout of labeled images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatasetFormat {
    /// What it looks like.
    #[default]
    Auto,
    /// A sub-folder for each class.
    Folder,
    /// A `.csv`, `.tsv` or `.jsonl` table with an image path and a label in each row.
    Table,
    /// CoOp's `split_zhou_*.json`.
    Coop,
    /// Tars with images and `.cls` members, as CLIP_benchmark reads them.
    Webdataset,
    /// A sub-folder for each WordNet id, or for each index of ImageNet's classes.
    Imagenet,
    /// FGVC-Aircraft's lists of variants, as CoOp lays them out.
    Aircraft,
}

impl DatasetFormat {
    /// All by the names that a command line takes.
    pub const NAMES: [(&str, DatasetFormat); 7] = [
        ("auto", Self::Auto),
        ("folder", Self::Folder),
        ("table", Self::Table),
        ("coop", Self::Coop),
        ("webdataset", Self::Webdataset),
        ("imagenet", Self::Imagenet),
        ("aircraft", Self::Aircraft),
    ];
}

impl fmt::Display for DatasetFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, format)| format == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for DatasetFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::NAMES.map(|(name, _)| name).join(", ");
        let found = Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, format)| *format);
        found.ok_or_else(|| format!("no dataset format {name:?}; there are {}", known()))
    }
}

/// How a dataset is read where its files leave a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetOptions {
    /// The layout.
    pub format: DatasetFormat,
    /// The split, where there are several; `test` where there is one of that name, else `val`.
    pub split: Option<String>,
    /// The folder that image paths are relative to, if not the one that the layout says.
    pub image_root: Option<PathBuf>,
    /// Names of the classes, in any form that [`LabelFile`](xmore::LabelFile) reads: of numbered classes in their order, each after its WordNet id, or with
    /// prompts of their own. Where the layout names its classes itself, they get the file's prompts by name, or its names by number.
    pub class_names: Option<PathBuf>,
    /// Columns of a table.
    pub columns: LabelColumns,
    /// Which files and sub-folders are looked at.
    pub walk: WalkOptions,
}

/// A choice of [`DatasetOptions`] that not every layout leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetOption {
    /// The layout itself.
    Format,
    /// The split.
    Split,
    /// The folder that image paths are relative to.
    ImageRoot,
    /// The file of class names.
    ClassNames,
    /// The column of image paths.
    ImageColumn,
    /// The column of labels.
    LabelColumn,
    /// That hidden files are taken.
    IncludeHidden,
    /// The files to leave out.
    Exclude,
}

impl fmt::Display for DatasetOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "a layout",
            Self::Split => "a split",
            Self::ImageRoot => "a folder of images",
            Self::ClassNames => "a file of class names",
            Self::ImageColumn => "a column of images",
            Self::LabelColumn => "a column of labels",
            Self::IncludeHidden => "hidden files",
            Self::Exclude => "files to leave out",
        })
    }
}

impl DatasetFormat {
    /// The choices that the layout leaves. A split is checked where the splits are looked for.
    fn options(self) -> &'static [DatasetOption] {
        use DatasetOption::*;
        match self {
            Self::Auto | Self::Folder | Self::Webdataset | Self::Imagenet => {
                &[Format, Split, ClassNames, IncludeHidden, Exclude]
            }
            Self::Table => &[Format, Split, ImageRoot, ClassNames, ImageColumn, LabelColumn],
            Self::Coop | Self::Aircraft => &[Format, Split, ImageRoot, ClassNames],
        }
    }
}

impl DatasetOptions {
    /// What was chosen.
    fn chosen(&self) -> impl Iterator<Item = DatasetOption> {
        use DatasetOption::*;
        [
            (Format, self.format != DatasetFormat::Auto),
            (Split, self.split.is_some()),
            (ImageRoot, self.image_root.is_some()),
            (ClassNames, self.class_names.is_some()),
            (ImageColumn, self.columns.image.is_some()),
            (LabelColumn, self.columns.label.is_some()),
            (IncludeHidden, self.walk.include_hidden),
            (Exclude, !self.walk.exclude.is_empty()),
        ]
        .into_iter()
        .filter_map(|(option, is_chosen)| is_chosen.then_some(option))
    }

    /// That every choice has an effect on a dataset of this layout.
    pub(super) fn check_used(&self, path: &Path, format: DatasetFormat) -> Result<()> {
        let used = format.options();
        match self.chosen().find(|option| !used.contains(option)) {
            Some(option) => {
                Err(EvalError::unused(path, option, format!("the layout `{format}` leaves no such choice")))
            }
            None => Ok(()),
        }
    }
}
