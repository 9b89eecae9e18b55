//! Labeled images in the layouts that people have them in.
//!
//! A dataset of [`registry`](crate::registry) is recognized in its layout, with its prompt, and a note says so.
//!
//! | layout | known by | labels |
//! |---|---|---|
//! | class per folder | sub-folders with images | the sub-folders' names |
//! | table | `.csv`, `.tsv`, `.jsonl` | column `label` |
//! | CoOp | `split_zhou_*.json` in it, or that file | in the file |
//! | CLIP_benchmark's webdataset | `nshards.txt` or tars | `classnames.txt` |
//! | ImageNet | sub-folders named by WordNet ids, or 1,000 by numbers | a names file, else the built-in table |
//! | FGVC-Aircraft | `images_variant_test.txt` | `variants.txt` |
//!
//! Images are listed, not opened: one that cannot be read later counts as wrong.

mod aircraft;
mod coop;
mod folder;
mod imagenet;
mod options;
mod table;
#[cfg(test)]
mod tests;
mod webdataset;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use xmore_files::table::TableKind;
use xmore_files::{LeftOut, WalkOptions, open_regular};
use xmore_memory::ingest::ImageRef;

pub use options::{DatasetFormat, DatasetOption, DatasetOptions};
pub use table::LabelColumns;

use crate::error::{EvalError, Result};
use crate::registry::KnownDataset;
use xmore::{Label, LabelFile, Labels, Template, normalized};

/// Largest list of images, classes or templates that is read: ImageNet's training set in CoOp's form has about 100 MB.
const MAX_LIST_BYTES: u64 = 512 << 20;

/// Images with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The folder's or file's name, or that of the registry.
    pub name: String,
    /// The folder of the images.
    pub root: PathBuf,
    /// One label a class.
    pub labels: Labels,
    /// The images, in the layout's order.
    pub images: Vec<ImageRef>,
    /// For each image the index of its label.
    pub truth: Vec<usize>,
    /// The dataset's own prompts, if it has any.
    pub prompts: Vec<Template>,
    /// Rows or members that name no labeled image, and why.
    pub skipped: Vec<String>,
    /// What is worth knowing of how it was read.
    pub notes: Vec<String>,
    /// Files of the folders that were not taken.
    pub left_out: LeftOut,
    /// Sub-folders without images, so that they are no classes.
    pub empty_classes: Vec<String>,
}

impl DatasetFormat {
    /// What a path looks like.
    ///
    /// # Errors
    /// [`EvalError::Dataset`] for a file of no known kind; [`EvalError::NoSplit`], [`EvalError::UnusedOption`] for a split that is not there;
    /// [`EvalError::Io`].
    pub fn detect(path: &Path, options: &DatasetOptions) -> Result<DatasetFormat> {
        if path.is_file() {
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            return match extension.as_str() {
                _ if TableKind::of_name(path).is_some() => Ok(DatasetFormat::Table),
                "json" => Ok(DatasetFormat::Coop),
                "tar" => Ok(DatasetFormat::Webdataset),
                _ => Err(EvalError::dataset(
                    path,
                    "expected a folder, or a .csv, .tsv, .jsonl, .json or .tar file",
                )),
            };
        }
        let entries = entries(path)?;
        let names: Vec<String> = entries.iter().map(|path| file_name(path)).collect();
        if names.iter().any(|name| coop::is_split(name)) {
            return Ok(DatasetFormat::Coop);
        }
        if names.iter().any(|name| name == aircraft::TEST_LIST) {
            return Ok(DatasetFormat::Aircraft);
        }
        if webdataset::looks_like(path) {
            return Ok(DatasetFormat::Webdataset);
        }
        let folder = folder::descend(path, options.split.as_deref(), &options.walk)?;
        if imagenet::looks_like(&folder, &options.walk)? {
            Ok(DatasetFormat::Imagenet)
        } else {
            Ok(DatasetFormat::Folder)
        }
    }
}

impl Dataset {
    /// Reads a dataset in whatever layout it is.
    ///
    /// # Errors
    /// [`EvalError::Dataset`] if it is of no known layout, or there are no images, or fewer than two classes; [`EvalError::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_with(path, &DatasetOptions::default())
    }

    /// Reads a dataset with choices of the caller's.
    ///
    /// # Errors
    /// Those of [`Dataset::read`]; [`EvalError::UnusedOption`] for a choice that the layout does not leave.
    pub fn read_with(path: &Path, options: &DatasetOptions) -> Result<Self> {
        let format = match options.format {
            DatasetFormat::Auto => {
                if let Some((known, place)) = KnownDataset::imagenet_at(path) {
                    let dataset = known.read(&place, options)?;
                    let note = format!(
                        "taken for {}, as its folder is named: {} labels",
                        known.name,
                        dataset.labels.names().len()
                    );
                    return Ok(Self { name: name_of(path), ..dataset }.noted(note));
                }
                DatasetFormat::detect(path, options)?
            }
            format => format,
        };
        options.check_used(path, format)?;
        let dataset = match format {
            DatasetFormat::Auto | DatasetFormat::Folder => folder::read(path, options)?.renamed(options)?,
            DatasetFormat::Table => table::read(path, options)?,
            DatasetFormat::Coop => coop::read(path, options)?.renamed(options)?,
            DatasetFormat::Webdataset => webdataset::read(path, options)?,
            DatasetFormat::Imagenet => imagenet::read(path, options, None)?,
            DatasetFormat::Aircraft => aircraft::read(path, options)?,
        };
        dataset.checked(path)
    }

    fn noted(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    /// With the prompt of a dataset that this was recognized as.
    fn taken_for(mut self, known: &KnownDataset, by: &str) -> Result<Self> {
        self.prompts = vec![known.template()?];
        Ok(self.noted(format!("taken for {}, by {by}: its own prompt is {:?}", known.name, known.prompt)))
    }

    /// ImageNet or one of its shifts: folders of WordNet ids or class numbers with only the classes that `subset` has, in its order.
    pub(super) fn read_imagenet(path: &Path, options: &DatasetOptions, subset: &[&str]) -> Result<Self> {
        options.check_used(path, DatasetFormat::Imagenet)?;
        imagenet::read(path, options, Some(subset))?.checked(path)
    }

    /// With the names and prompts that a file has for the classes: each by its name, else, where there are as many, all by their numbers.
    fn renamed(mut self, options: &DatasetOptions) -> Result<Self> {
        let Some(path) = &options.class_names else { return Ok(self) };
        let file = LabelFile::read(path, None)?;
        let by_name = by_plain_name(&file);
        let found: Result<Vec<Label>, &String> = (self.labels.names().iter())
            .map(|name| by_name.get(&plain(name)).map(|&label| label.clone()).ok_or(name))
            .collect();
        let labels = match found {
            Ok(labels) => labels,
            Err(_) if file.entries().len() == self.labels.names().len() => {
                file.entries().iter().map(|entry| entry.label.clone()).collect()
            }
            Err(missing) => {
                let message = format!(
                    "expected a name for each of the {} classes of {}, found {} and none for {missing:?}",
                    self.labels.names().len(),
                    self.name,
                    file.entries().len()
                );
                return Err(EvalError::dataset(path, message));
            }
        };
        self.labels = Labels::repeatable_with_prompts(labels)?;
        Ok(self)
    }

    fn checked(self, path: &Path) -> Result<Self> {
        if self.images.is_empty() {
            let skipped = self.skipped.first().map_or(String::new(), |why| {
                format!("; the first of {} left out: {why}", self.skipped.len())
            });
            let left_out = match self.left_out.is_empty() {
                true => String::new(),
                false => format!("; {}", self.left_out),
            };
            let message = format!("expected labeled images, found none{skipped}{left_out}");
            return Err(EvalError::dataset(path, message));
        }
        Ok(self)
    }
}

/// A file's labels by their names as they are compared.
fn by_plain_name(file: &LabelFile) -> HashMap<String, &Label> {
    file.entries().iter().map(|entry| (plain(&entry.label.name), &entry.label)).collect()
}

/// A class's name without what folders and files write differently: case, underscores.
fn plain(name: &str) -> String {
    normalized(name).replace('_', " ").to_lowercase()
}

/// The names of a folder's entries, sorted, as paths.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| EvalError::io("list", dir, e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The sub-folders that are looked at, sorted.
pub(super) fn sub_folders(dir: &Path, options: &WalkOptions) -> Result<Vec<PathBuf>> {
    let is_taken = |path: &PathBuf| {
        path.file_name().is_some_and(|name| options.leaves_out(Path::new(name)).is_none()) && path.is_dir()
    };
    Ok(entries(dir)?.into_iter().filter(is_taken).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A dataset's name by its path.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if path.is_file() {
        path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
    } else {
        file_name(&path)
    }
}

/// A text file of bounded size.
pub(super) fn read_list(path: &Path) -> Result<String> {
    let io = |e| EvalError::io("read", path, e);
    let file = open_regular(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length > MAX_LIST_BYTES {
        let message =
            format!("expected a list of at most {} MiB, found {length} bytes", MAX_LIST_BYTES >> 20);
        return Err(EvalError::dataset(path, message));
    }
    let mut text = String::new();
    file.take(MAX_LIST_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// A file's lines that are not blank, trimmed.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    Ok(read_list(path)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// That a path without splits below it is itself of the split that is wanted, by its name.
fn check_is_split(path: &Path, wanted: Option<&str>) -> Result<()> {
    match wanted {
        Some(wanted) if !name_of(path).eq_ignore_ascii_case(wanted) => {
            Err(EvalError::unused(path, DatasetOption::Split, "there are no splits below it"))
        }
        _ => Ok(()),
    }
}

/// The split to take of those that a dataset has.
fn choose_split<'a>(path: &Path, wanted: Option<&str>, splits: &[&'a str]) -> Result<&'a str> {
    let choices: &[&str] = &["test", "val", "validation"];
    let find = |name: &str| splits.iter().copied().find(|split| split.eq_ignore_ascii_case(name));
    let found = match wanted {
        Some(wanted) => find(wanted),
        None => choices.iter().find_map(|name| find(name)).or(if splits.len() == 1 {
            splits.first().copied()
        } else {
            None
        }),
    };
    found.ok_or_else(|| EvalError::NoSplit {
        path: path.to_owned(),
        wanted: wanted.unwrap_or("test or val").to_owned(),
        found: splits.iter().map(|&split| split.to_owned()).collect(),
    })
}
