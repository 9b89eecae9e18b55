//! Which datasets are meant, and which of them are there.

use std::path::{Path, PathBuf};

use xmore_eval::registry::{KnownDataset, Missing};
use xmore_eval::{Dataset, DatasetOptions, LabelColumns};
use xmore_files::WalkOptions;

use super::args::EvalArgs;
use crate::error::{CliError, Result};

/// A dataset that is there.
pub(super) enum Target {
    /// At a path.
    Path { path: PathBuf, options: DatasetOptions, name: Option<&'static str> },
    /// Known, at its place below the data root.
    Known { dataset: &'static KnownDataset, place: PathBuf, walk: WalkOptions },
}

impl Target {
    /// Lists its images.
    pub(super) fn read(&self) -> Result<Dataset> {
        Ok(match self {
            Self::Known { dataset, place, walk } => dataset.read(place, walk)?,
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
        suite.datasets().iter().for_each(|dataset| found.add(dataset, root));
    }
    for name in &args.named {
        let root = args.data_root.as_deref();
        let root = root.ok_or_else(|| CliError::Usage("--dataset names need --data-root".to_owned()))?;
        found.add(KnownDataset::require(name)?, root);
    }
    for path in &args.datasets {
        match (path.exists(), &args.data_root, path.to_str().and_then(KnownDataset::find)) {
            (false, Some(root), Some(dataset)) => found.add(dataset, root),
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
    fn add(&mut self, dataset: &'static KnownDataset, root: &Path) {
        match dataset.locate(root) {
            Ok(place) => {
                let walk = self.args.folders.options();
                self.targets.push(Target::Known { dataset, place, walk });
            }
            Err(absent) => match alone(dataset, root, self.args) {
                Some(target) => self.targets.push(target),
                None => self.missing.push(absent),
            },
        }
    }
}

/// CLIP_benchmark's root is the dataset's own folder, perhaps with `{dataset}` in it.
fn alone(dataset: &'static KnownDataset, root: &Path, args: &EvalArgs) -> Option<Target> {
    if args.suite.is_some() {
        return None;
    }
    let name = dataset.name.to_lowercase();
    let path =
        PathBuf::from(root.to_string_lossy().replace("{dataset_cleaned}", &name).replace("{dataset}", &name));
    let options = options(args);
    Dataset::read_with(&path, &options).ok()?;
    Some(Target::Path { path, options, name: Some(dataset.name) })
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
