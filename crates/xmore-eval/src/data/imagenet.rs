//! ImageNet's layout: a sub-folder for each WordNet id (`n01440764`), or, in ImageNet-V2, for each class number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use xmore_files::WalkOptions;
use xmore_memory::ingest::ImageRef;

use super::folder::{ClassFolders, class_folders, descend};
use super::{Dataset, DatasetOptions, by_plain_name, file_name, name_of, plain, sub_folders};
use crate::error::{EvalError, Result};
use crate::registry::imagenet;
use xmore::{Label, LabelFile, Labels, is_wordnet_id};

/// CoOp's names file: a WordNet id and a name in each line.
const NAMES: &str = "classnames.txt";

/// Whether a folder's sub-folders are named by WordNet ids, or by the numbers of all classes.
pub(super) fn looks_like(dir: &Path, options: &WalkOptions) -> Result<bool> {
    let names: Vec<String> = sub_folders(dir, options)?.iter().map(|path| file_name(path)).collect();
    let classes = imagenet::classes().len();
    let is_number = |name: &String| name.parse::<usize>().is_ok_and(|number| number < classes);
    Ok(!names.is_empty() && names.iter().all(|name| is_wordnet_id(name))
        || names.len() == classes && names.iter().all(is_number))
}

/// Reads the folder. The labels are the classes of `subset`, all of them, else those that have a sub-folder.
pub(super) fn read(path: &Path, options: &DatasetOptions, subset: Option<&[&str]>) -> Result<Dataset> {
    let dir = descend(path, options.split.as_deref(), &options.walk)?;
    let names = names(&dir, options.class_names.as_deref())?;
    let ClassFolders { classes, empty, left_out } = class_folders(&dir, &options.walk)?;
    let mut by_id: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (folder, files) in classes {
        let name = file_name(&folder);
        let id = match name.parse::<usize>() {
            Ok(number) => imagenet::classes().get(number).map(|class| class.id.to_owned()),
            Err(_) => Some(name.clone()).filter(|name| is_wordnet_id(name)),
        };
        let Some(id) = id else {
            let message = format!(
                "expected sub-folders named by WordNet ids (n01440764) or class numbers below 1000, found {name:?}"
            );
            return Err(EvalError::dataset(&dir, message));
        };
        by_id.insert(id, files);
    }
    let ids: Vec<String> = match subset {
        Some(subset) => subset.iter().map(|&id| id.to_owned()).collect(),
        None => by_id.keys().cloned().collect(),
    };
    let mut skipped = Vec::new();
    for (id, files) in by_id.iter().filter(|(id, _)| !ids.contains(id)) {
        skipped.push(format!("{id}: {} images of a class that the dataset does not have", files.len()));
    }
    let notes = match subset {
        Some(_) => Vec::new(),
        None => vec![format!("taken for {} of ImageNet's classes, as its sub-folders are named", ids.len())],
    };
    let (mut labels, mut images, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for (label, id) in ids.iter().enumerate() {
        let Some(name) = names.get(id.as_str()) else {
            return Err(EvalError::UnnamedClass { path: dir, id: id.clone() });
        };
        labels.push(name.clone());
        let files = by_id.remove(id).unwrap_or_default();
        truth.extend(std::iter::repeat_n(label, files.len()));
        images.extend(files.into_iter().map(ImageRef::File));
    }
    Ok(Dataset {
        name: name_of(path),
        root: dir,
        labels: Labels::repeatable_with_prompts(labels)?,
        images,
        truth,
        prompts: Vec::new(),
        skipped,
        notes,
        left_out,
        empty_classes: empty,
    })
}

/// Labels by WordNet id: those of the file given, of one beside the folder or up to two above it, or the built-in ones. A file without ids
/// that is given has prompts for the built-in names.
fn names(dir: &Path, given: Option<&Path>) -> Result<BTreeMap<String, Label>> {
    let beside = || dir.ancestors().take(3).map(|dir| dir.join(NAMES)).find(|path| path.is_file());
    let mut on_board: BTreeMap<String, Label> =
        imagenet::classes().iter().map(|class| (class.id.to_owned(), Label::new(class.name))).collect();
    let (path, file) = match given {
        Some(path) => (path.to_owned(), LabelFile::read(path, None)?),
        None => {
            let Some(path) = beside() else { return Ok(on_board) };
            // A file of another kind may have the name.
            let Ok(file) = LabelFile::read_regular(&path) else { return Ok(on_board) };
            (path, file)
        }
    };
    let entries = file.entries().iter();
    let named: BTreeMap<String, Label> =
        entries.filter_map(|entry| Some((entry.id.clone()?, entry.label.clone()))).collect();
    if !named.is_empty() || given.is_none() {
        return Ok(if named.is_empty() { on_board } else { named });
    }
    let by_name = by_plain_name(&file);
    let mut found = 0;
    for label in on_board.values_mut() {
        if let Some(given) = by_name.get(&plain(&label.name)) {
            label.prompts.clone_from(&given.prompts);
            label.synonyms.clone_from(&given.synonyms);
            found += 1;
        }
    }
    if found == 0 {
        let message =
            "expected a WordNet id and a name in each line, or prompts for ImageNet's names; found none";
        return Err(EvalError::dataset(&path, message));
    }
    Ok(on_board)
}
