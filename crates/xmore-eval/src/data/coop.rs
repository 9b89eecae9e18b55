//! CoOp's splits: `split_zhou_NAME.json` with `{"train": …, "val": …, "test": [[path, label, classname], …]}`, images in a folder beside.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use xmore_files::LeftOut;
use xmore_memory::ingest::ImageRef;

use super::{Dataset, DatasetOptions, choose_split, entries, file_name, name_of, read_list};
use crate::error::{EvalError, Result};
use crate::registry::KnownDataset;
use xmore::Labels;

/// Classes beyond this are a damaged file: ImageNet-21k has 21,843.
const MAX_CLASSES: usize = 100_000;
/// Images, spread over the list, by which the folder is chosen that most of them are in.
const PROBED: usize = 256;

#[derive(Deserialize)]
struct Item(String, usize, String);

/// Whether a file's name is that of CoOp's split.
pub(super) fn is_split(name: &str) -> bool {
    name.starts_with("split_zhou_") && name.ends_with(".json")
}

/// Reads a split file, or the one in a folder.
pub(super) fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let file = if path.is_file() { path.to_owned() } else { split_file(path)? };
    let text = read_list(&file)?;
    let (items, names) = parse(&file, &text, options.split.as_deref())?;
    let index: BTreeMap<usize, usize> =
        names.keys().copied().enumerate().map(|(i, label)| (label, i)).collect();
    let root = match &options.image_root {
        Some(root) => root.clone(),
        None => image_root(&file, &items)?,
    };
    let truth = items.iter().map(|item| index[&item.1]).collect();
    let images = items.into_iter().map(|item| ImageRef::File(root.join(item.0))).collect();
    let name = file.parent().map_or_else(|| name_of(&file), name_of);
    let dataset = Dataset {
        name,
        root,
        labels: Labels::repeatable(names.into_values())?,
        images,
        truth,
        prompts: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
        left_out: LeftOut::default(),
        empty_classes: Vec::new(),
    };
    let split = file_name(&file);
    match KnownDataset::of_split_file(&split) {
        Some(known) => dataset.taken_for(known, "the name of its split file"),
        None => Ok(dataset
            .noted(format!("{split} is the split file of no dataset that is known: no prompt of its own"))),
    }
}

fn split_file(dir: &Path) -> Result<PathBuf> {
    let mut files: Vec<PathBuf> =
        entries(dir)?.into_iter().filter(|path| is_split(&file_name(path))).collect();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (None, _) => Err(EvalError::dataset(dir, "expected a file split_zhou_NAME.json, found none")),
        (Some(_), more) => Err(EvalError::dataset(
            dir,
            format!("expected one file split_zhou_NAME.json, found {}: name one", more + 1),
        )),
    }
}

/// The items of the split, and the labels' names by their numbers, which are the same in all splits.
fn parse(path: &Path, text: &str, wanted: Option<&str>) -> Result<(Vec<Item>, BTreeMap<usize, String>)> {
    let mut splits: BTreeMap<String, Vec<Item>> = serde_json::from_str(text).map_err(|e| {
        EvalError::dataset(path, format!("expected {{\"test\": [[path, label, classname], …], …}}: {e}"))
    })?;
    let mut names = BTreeMap::new();
    for Item(image, label, name) in splits.values().flatten() {
        if *label >= MAX_CLASSES {
            let message = format!("label {label} of {image}: expected less than {MAX_CLASSES}");
            return Err(EvalError::dataset(path, message));
        }
        let name = name.replace('_', " ");
        if let Some(other) = names.insert(*label, name.clone()).filter(|other| *other != name) {
            return Err(EvalError::dataset(path, format!("label {label} is {other:?} and also {name:?}")));
        }
    }
    let known: Vec<&str> = splits.keys().map(String::as_str).collect();
    let split = choose_split(path, wanted, &known)?.to_owned();
    let items = splits.remove(&split).unwrap_or_default();
    // A path that leads out of the dataset could name any file of the machine.
    let is_outside =
        |item: &&Item| Path::new(&item.0).components().any(|c| !matches!(c, Component::Normal(_)));
    match items.iter().find(is_outside) {
        Some(item) => Err(EvalError::dataset(
            path,
            format!("expected paths below the dataset's folder, found {:?}", item.0),
        )),
        None => Ok((items, names)),
    }
}

/// The folder that the paths begin in: CoOp puts images into one beside the split, each dataset's its own.
fn image_root(file: &Path, items: &[Item]) -> Result<PathBuf> {
    let dir = file.parent().unwrap_or(Path::new(""));
    let mut candidates = vec![dir.to_owned()];
    candidates.extend(entries(dir)?.into_iter().filter(|path| path.is_dir()));
    let holds = |root: &Path, item: &Item| root.join(&item.0).is_file();
    let sample = || items.iter().step_by(items.len().div_ceil(PROBED).max(1));
    // Of equals the first: the folder of the split itself.
    let best = candidates.iter().rev().max_by_key(|root| sample().filter(|item| holds(root, item)).count());
    let best = best.filter(|root| sample().any(|item| holds(root, item)));
    let any = || candidates.iter().find(|root| items.iter().any(|item| holds(root, item)));
    best.or_else(any).cloned().ok_or_else(|| EvalError::ImagesElsewhere {
        path: file.to_owned(),
        folders: candidates.len(),
        image: items.first().map_or_else(String::new, |item| item.0.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}|\\{\"test\": ?\\[(\\[\"[a-z./]{0,6}\",-?[0-9]{0,22},\"[a-z]{0,3}\"\\],?){0,3}\\]\\}") {
            if let Ok((items, names)) = parse(Path::new("x.json"), &text, None) {
                for item in &items {
                    let inside = !item.0.starts_with('/') && item.0.split('/').all(|part| part != "..");
                    prop_assert!(names.contains_key(&item.1) && inside, "{}", item.0);
                }
            }
        }
    }
}
