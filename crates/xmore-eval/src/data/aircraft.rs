//! FGVC-Aircraft, which CoOp reads from the dataset's own lists: `variants.txt` has the labels, `images_variant_test.txt` a number and
//! a label in each line.

use std::path::Path;

use xmore_files::LeftOut;
use xmore_memory::ingest::ImageRef;

use super::{Dataset, DatasetOptions, name_of, read_lines};
use crate::error::{EvalError, Result};
use xmore::{LabelFile, normalized};

/// The list of the test split.
pub(super) const TEST_LIST: &str = "images_variant_test.txt";
const NAMES: &str = "variants.txt";

/// Reads the folder with the lists.
pub(super) fn read(dir: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let split = options.split.as_deref().unwrap_or("test");
    let list = dir.join(TEST_LIST.replace("test", split));
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
    Ok(Dataset {
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
    })
}
