//! One sub-folder a class.

use std::path::{Path, PathBuf};

use xmore_files::{LeftOut, Reason, WalkOptions, walk_images};
use xmore_memory::ingest::ImageRef;

use super::{Dataset, DatasetOptions, check_is_split, choose_split, file_name, name_of, sub_folders};
use crate::error::{EvalError, Result};
use xmore::Labels;

/// Names of folders that are splits rather than classes.
const SPLITS: &[&str] = &["train", "val", "valid", "validation", "test"];

/// Reads the folder; the label is the sub-folder's name with spaces for underscores.
pub(super) fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let dir = descend(path, options.split.as_deref(), &options.walk)?;
    let ClassFolders { classes, empty, left_out } = class_folders(&dir, &options.walk)?;
    if classes.len() < 2 {
        let left_out = if left_out.is_empty() { String::new() } else { format!("; {left_out}") };
        let message = format!(
            "expected a folder with one sub-folder of images for each class, at least two of them; found {} such sub-folder(s){left_out}. \
             Other layouts: a .csv with image_path and label, CoOp's split_zhou_*.json, tars with .cls",
            classes.len()
        );
        return Err(EvalError::dataset(&dir, message));
    }
    let (mut names, mut images, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for (folder, files) in classes {
        truth.extend(std::iter::repeat_n(names.len(), files.len()));
        names.push(file_name(&folder).replace('_', " "));
        images.extend(files.into_iter().map(ImageRef::File));
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
        notes: Vec::new(),
        left_out,
        empty_classes: empty,
    })
}

/// What a folder of classes holds.
pub(super) struct ClassFolders {
    /// Sub-folders with images anywhere below them, and these; sorted.
    pub classes: Vec<(PathBuf, Vec<PathBuf>)>,
    /// Names of sub-folders without any.
    pub empty: Vec<String>,
    /// Files that were not taken.
    pub left_out: LeftOut,
}

/// Finds the classes of a folder. Images that lie in it beside the classes' folders are left out.
pub(super) fn class_folders(dir: &Path, options: &WalkOptions) -> Result<ClassFolders> {
    let walked = walk_images(dir, options).map_err(|e| EvalError::io("list", dir, e))?;
    let mut left_out = walked.left_out;
    let mut classes: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    // Sorted by path, so the images of one sub-folder follow one another.
    for file in walked.files {
        let mut below = file.strip_prefix(dir).unwrap_or(&file).components();
        let (Some(folder), Some(_)) = (below.next(), below.next()) else {
            left_out.add(Reason::NoClass, &file);
            continue;
        };
        let folder = dir.join(folder);
        match classes.last_mut() {
            Some((last, files)) if *last == folder => files.push(file),
            _ => classes.push((folder, vec![file])),
        }
    }
    let mut empty = sub_folders(dir, options)?;
    empty.retain(|folder| classes.binary_search_by(|(class, _)| class.cmp(folder)).is_err());
    let empty = empty.iter().map(|folder| file_name(folder)).collect();
    Ok(ClassFolders { classes, empty, left_out })
}

/// The folder of the split, where the sub-folders are splits; else the folder itself, which has the split's name if one is wanted.
pub(super) fn descend(path: &Path, split: Option<&str>, options: &WalkOptions) -> Result<PathBuf> {
    let folders: Vec<String> = sub_folders(path, options)?.iter().map(|path| file_name(path)).collect();
    let is_split = |name: &String| SPLITS.contains(&name.to_lowercase().as_str());
    if folders.is_empty() || !folders.iter().all(is_split) {
        check_is_split(path, split)?;
        return Ok(path.to_owned());
    }
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    Ok(path.join(choose_split(path, split, &folders)?))
}
