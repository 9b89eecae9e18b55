//! One sub-folder a class.

use std::path::{Path, PathBuf};

use xmore_memory::ingest::{ImageRef, is_image_name};

use super::{Dataset, DatasetOptions, choose_split, entries, file_name, name_of};
use crate::error::{Result, XmoreError};
use crate::labels::Labels;

/// Names of folders that are splits rather than classes.
const SPLITS: &[&str] = &["train", "val", "valid", "validation", "test"];

/// Reads the folder; the label is the sub-folder's name with spaces for underscores.
pub(super) fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let dir = descend(path, options.split.as_deref())?;
    let (mut names, mut images, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for (folder, files) in class_folders(&dir)? {
        truth.extend(std::iter::repeat_n(names.len(), files.len()));
        names.push(file_name(&folder).replace('_', " "));
        images.extend(files.into_iter().map(ImageRef::File));
    }
    if names.len() < 2 {
        let message = format!(
            "expected a folder with one sub-folder of images (jpg, png, webp) for each class, at least two of them; \
             found {} such sub-folder(s). Other layouts: a .csv with image_path and label, CoOp's split_zhou_*.json, tars with .cls",
            names.len()
        );
        return Err(XmoreError::dataset(&dir, message));
    }
    let labels = Labels::new(names)?;
    Ok(Dataset {
        name: name_of(path),
        root: dir,
        labels,
        images,
        truth,
        prompts: Vec::new(),
        skipped: Vec::new(),
    })
}

/// Sub-folders with images, and these.
pub(super) fn class_folders(dir: &Path) -> Result<Vec<(PathBuf, Vec<PathBuf>)>> {
    let mut folders = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let files: Vec<PathBuf> =
            entries(&folder)?.into_iter().filter(|path| is_image_name(path) && path.is_file()).collect();
        if !files.is_empty() {
            folders.push((folder, files));
        }
    }
    Ok(folders)
}

/// The folder of the split, where the sub-folders are splits; else the folder itself.
pub(super) fn descend(path: &Path, split: Option<&str>) -> Result<PathBuf> {
    let folders: Vec<String> =
        entries(path)?.iter().filter(|path| path.is_dir()).map(|path| file_name(path)).collect();
    let is_split = |name: &String| SPLITS.contains(&name.to_lowercase().as_str());
    if folders.is_empty() || !folders.iter().all(is_split) {
        return Ok(path.to_owned());
    }
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    Ok(path.join(choose_split(path, split, &folders)?))
}
