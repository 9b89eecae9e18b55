//! Which datasets are meant, and which of them are there.

use std::path::{Path, PathBuf};

use xmore_eval::registry::{KnownDataset, Missing};
use xmore_eval::{Dataset, DatasetFormat, DatasetOptions, LabelColumns};

use super::args::EvalArgs;
use crate::error::{CliError, Result};

/// A dataset that is there.
pub(super) enum Target {
    /// At a path.
    Path { path: PathBuf, options: DatasetOptions, name: Option<&'static str> },
    /// Known, at its place below the data root.
    Known { dataset: &'static KnownDataset, place: PathBuf, options: DatasetOptions },
}

impl Target {
    /// Lists its images.
    pub(super) fn read(&self) -> Result<Dataset> {
        Ok(match self {
            Self::Known { dataset, place, options } => dataset.read(place, options)?,
            Self::Path { path, options, name } => {
                let dataset = Dataset::read_with(path, options)?;
                match name {
                    Some(name) => Dataset { name: (*name).to_owned(), ..dataset },
                    None => dataset,
                }
            }
        })
    }

    /// Its name, before it is read.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Known { dataset, .. } => dataset.name.to_owned(),
            Self::Path { name: Some(name), .. } => (*name).to_owned(),
            Self::Path { path, .. } => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
                name.map_or_else(|| "dataset".to_owned(), |name| name.to_string_lossy().into_owned())
            }
        }
    }
}

/// The datasets that the flags name: those that are there, and those that are not.
pub(super) fn find(args: &EvalArgs) -> Result<(Vec<Target>, Vec<Missing>)> {
    let mut found = Found { args, targets: Vec::new(), missing: Vec::new() };
    if let (Some(suite), Some(root)) = (args.suite, &args.data_root) {
        suite.datasets().iter().for_each(|dataset| found.add(dataset, dataset.name, root));
    }
    for name in &args.named {
        let root = args.data_root.as_deref();
        let root = root.ok_or_else(|| CliError::Usage("--dataset names need --data-root".to_owned()))?;
        found.add(KnownDataset::require(name)?, name, root);
    }
    for path in &args.datasets {
        match (path.exists(), &args.data_root, path.to_str().and_then(KnownDataset::find)) {
            (false, Some(root), Some(dataset)) => found.add(dataset, &path.to_string_lossy(), root),
            (false, Some(_), None) if path.components().count() == 1 => {
                // The error has the names that there are.
                KnownDataset::require(&path.to_string_lossy())?;
            }
            (false, None, Some(dataset)) => {
                let message =
                    format!("{} is known by name: say with --data-root where its folder is", dataset.name);
                return Err(CliError::Usage(message));
            }
            _ => found.targets.push(Target::Path { path: path.clone(), options: options(args), name: None }),
        }
    }
    Ok((found.targets, found.missing))
}

struct Found<'a> {
    args: &'a EvalArgs,
    targets: Vec<Target>,
    missing: Vec<Missing>,
}

impl Found<'_> {
    /// Adds a dataset that is `asked` for by one of its names.
    fn add(&mut self, dataset: &'static KnownDataset, asked: &str, root: &Path) {
        match dataset.locate(root) {
            Ok(place) => self.targets.push(Target::Known { dataset, place, options: options(self.args) }),
            Err(absent) => match alone(dataset, asked, root, self.args) {
                Some(target) => self.targets.push(target),
                None => self.missing.push(absent),
            },
        }
    }
}

/// CLIP_benchmark's root is the dataset's own folder, perhaps with `{dataset}` in it. A folder of classes must have the dataset's name: the
/// root of several datasets is one, too.
fn alone(dataset: &'static KnownDataset, asked: &str, root: &Path, args: &EvalArgs) -> Option<Target> {
    if args.suite.is_some() {
        return None;
    }
    let given = root.to_string_lossy();
    let named = |name: &str| {
        PathBuf::from(given.replace("{dataset_cleaned}", &name.replace('/', "-")).replace("{dataset}", name))
    };
    let names = [asked.strip_prefix("wds/").unwrap_or(asked), &dataset.name.to_lowercase()];
    let path = names.map(named).into_iter().find(|path| path.is_dir())?;
    let options = options(args);
    let format = match options.format {
        DatasetFormat::Auto => DatasetFormat::detect(&path, &options).ok(),
        format => Some(format),
    };
    let by_name = || path.file_name().and_then(|name| KnownDataset::find(name.to_str()?));
    let is_there = match (KnownDataset::at(&path), format) {
        (Some(known), _) => known == dataset,
        (None, Some(DatasetFormat::Folder)) => given.contains("{dataset") || by_name() == Some(dataset),
        (None, format) => format.is_some(),
    };
    is_there.then_some(Target::Path { path, options, name: Some(dataset.name) })
}

fn options(args: &EvalArgs) -> DatasetOptions {
    DatasetOptions {
        format: args.dataset_format,
        split: args.split.clone(),
        image_root: args.image_root.clone(),
        class_names: args.class_names.clone(),
        columns: LabelColumns { image: args.image_column.clone(), label: args.label_column.clone() },
        walk: args.folders.options(),
    }
}
