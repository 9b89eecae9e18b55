//! FGVC-Aircraft, which CoOp reads from the dataset's own lists: `variants.txt` has the labels, `images_variant_test.txt` a number and
//! a label in each line.

use std::path::{Path, PathBuf};

use xmore_files::LeftOut;
use xmore_memory::ingest::ImageRef;

use super::{Dataset, DatasetOptions, entries, file_name, name_of, read_lines};
use crate::error::{EvalError, Result};
use crate::registry::KnownDataset;
use xmore::{LabelFile, normalized};

/// The list of the test split.
pub(super) const TEST_LIST: &str = "images_variant_test.txt";
const NAMES: &str = "variants.txt";

/// The splits that there are lists of.
fn splits(dir: &Path) -> Result<Vec<String>> {
    let (before, after) = TEST_LIST.split_once("test").unwrap_or_default();
    let names = entries(dir)?;
    let split = |path: &PathBuf| Some(file_name(path).strip_prefix(before)?.strip_suffix(after)?.to_owned());
    Ok(names.iter().filter_map(split).collect())
}

/// Reads the folder with the lists.
pub(super) fn read(dir: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let split = options.split.as_deref().unwrap_or("test");
    let list = dir.join(TEST_LIST.replace("test", split));
    if !list.is_file() {
        return Err(EvalError::NoSplit {
            path: dir.to_owned(),
            wanted: split.to_owned(),
            found: splits(dir)?,
        });
    }
    let file = match &options.class_names {
        Some(path) => LabelFile::read(path, None)?,
        None => LabelFile::read_regular(&dir.join(NAMES))?,
    };
    let labels = file.labels()?;
    let root = options.image_root.clone().unwrap_or_else(|| dir.join("images"));
    let (mut images, mut truth, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for (number, line) in read_lines(&list)?.into_iter().enumerate() {
        let Some((image, label)) = line.split_once(' ') else {
            skipped.push(format!("line {}: expected an image's number and a label", number + 1));
            continue;
        };
        let label = normalized(label);
        let Some(label) = labels.names().iter().position(|name| *name == label) else {
            return Err(EvalError::dataset(&list, format!("label {label:?} of {image} is none of {NAMES}")));
        };
        images.push(ImageRef::File(root.join(format!("{image}.jpg"))));
        truth.push(label);
    }
    let dataset = Dataset {
        name: name_of(dir),
        root,
        labels,
        images,
        truth,
        prompts: Vec::new(),
        skipped,
        notes: Vec::new(),
        left_out: LeftOut::default(),
        empty_classes: Vec::new(),
    };
    match KnownDataset::of_aircraft_lists() {
        Some(known) => dataset.taken_for(known, "its lists of variants"),
        None => Ok(dataset),
    }
}
