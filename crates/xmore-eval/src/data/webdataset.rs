//! CLIP_benchmark's webdataset layout: `{split}/nshards.txt` and `{split}/0.tar …` with members `KEY.jpg` and `KEY.cls`; `classnames.txt`
//! and `zeroshot_classification_templates.txt` in the folder above.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore_files::{LeftOut, WalkOptions, name_to_text, path_from_bytes};
use xmore_memory::ingest::{ImageRef, is_image_name, walk_tar};

use super::{
    Dataset, DatasetOptions, check_is_split, choose_split, entries, file_name, name_of, read_lines, read_list,
};
use crate::error::{EvalError, Result};
use crate::registry::KnownDataset;
use xmore::{LabelFile, Template};

const SHARDS: &str = "nshards.txt";
const NAMES: &str = "classnames.txt";
const TEMPLATES: &str = "zeroshot_classification_templates.txt";
/// Shards beyond this are a damaged `nshards.txt`.
const MAX_SHARDS: usize = 1_000_000;
/// A class number has few digits.
const MAX_CLASS_BYTES: u64 = 32;

/// Whether a folder is a split, or has one below it.
pub(super) fn looks_like(dir: &Path) -> bool {
    is_split(dir)
        || entries(dir).is_ok_and(|entries| entries.iter().any(|path| path.is_dir() && is_split(path)))
}

fn is_split(dir: &Path) -> bool {
    dir.join(SHARDS).is_file() || dir.join("0.tar").is_file()
}

/// Reads the folder above the splits, a split, or a single tar.
pub(super) fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let (above, shards) = if path.is_file() {
        let above = path.parent().unwrap_or(Path::new("")).to_owned();
        check_is_split(&above, options.split.as_deref())?;
        (above, vec![path.to_owned()])
    } else if is_split(path) {
        check_is_split(path, options.split.as_deref())?;
        (path.parent().unwrap_or(Path::new("")).to_owned(), shards(path)?)
    } else {
        let splits: Vec<String> = entries(path)?
            .iter()
            .filter(|path| path.is_dir() && is_split(path))
            .map(|path| file_name(path))
            .collect();
        let splits: Vec<&str> = splits.iter().map(String::as_str).collect();
        (path.to_owned(), shards(&path.join(choose_split(path, options.split.as_deref(), &splits)?))?)
    };
    let beside = |name: &str| [path.join(name), above.join(name)].into_iter().find(|path| path.is_file());
    let (names, file) = match (options.class_names.clone(), beside(NAMES)) {
        (Some(names), _) => (names.clone(), LabelFile::read(&names, None)?),
        (None, Some(names)) => (names.clone(), LabelFile::read_regular(&names)?),
        (None, None) => {
            return Err(EvalError::NoClassNames { path: path.to_owned(), expected: NAMES });
        }
    };
    let labels = file.repeatable()?;
    let prompts = match beside(TEMPLATES) {
        Some(file) => read_lines(&file)?.into_iter().map(Template::new).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let name = name_of(&above_name(path, &above));
    let known = KnownDataset::find(&name).filter(|_| prompts.is_empty());
    let (mut images, mut truth, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let mut left_out = LeftOut::default();
    for shard in &shards {
        let members = read_shard(shard, &options.walk, &mut skipped, &mut left_out)?;
        for (image, class) in members {
            if class >= labels.names().len() {
                let message = format!(
                    "{image} is of class {class}, but {} has {} names",
                    names.display(),
                    labels.names().len()
                );
                return Err(EvalError::dataset(shard, message));
            }
            images.push(image);
            truth.push(class);
        }
    }
    let dataset = Dataset {
        name,
        root: above,
        labels,
        images,
        truth,
        prompts,
        skipped,
        notes: Vec::new(),
        left_out,
        empty_classes: Vec::new(),
    };
    match known {
        Some(known) => dataset.taken_for(known, "its folder's name"),
        None => Ok(dataset),
    }
}

/// A split's folder is named `test` everywhere; the one above it has the dataset's name.
fn above_name(path: &Path, above: &Path) -> PathBuf {
    if path.is_dir() && is_split(path) { above.to_owned() } else { path.to_owned() }
}

/// The tars of a split: as many as `nshards.txt` says, else all there are.
fn shards(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = dir.join(SHARDS);
    if list.is_file() {
        let text = read_list(&list)?;
        let count = text.trim().parse::<usize>().ok().filter(|count| (1..=MAX_SHARDS).contains(count));
        let count = count.ok_or_else(|| {
            EvalError::dataset(&list, format!("expected a number of tars, found {:?}", text.trim()))
        })?;
        let shards: Vec<PathBuf> = (0..count).map(|i| dir.join(format!("{i}.tar"))).collect();
        return match shards.iter().find(|path| !path.is_file()) {
            Some(missing) => Err(EvalError::dataset(
                dir,
                format!("expected {count} tars, as {SHARDS} says; {} is missing", missing.display()),
            )),
            None => Ok(shards),
        };
    }
    let number =
        |path: &PathBuf| path.file_stem().and_then(|s| s.to_str()?.parse::<u64>().ok()).unwrap_or(u64::MAX);
    let mut tars: Vec<PathBuf> =
        entries(dir)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "tar")).collect();
    tars.sort_by_key(number);
    Ok(tars)
}

/// Images of a tar with their classes, in the images' order.
fn read_shard(
    shard: &Path,
    options: &WalkOptions,
    skipped: &mut Vec<String>,
    left_out: &mut LeftOut,
) -> Result<Vec<(ImageRef, usize)>> {
    let tar: Arc<Path> = shard.into();
    let image =
        |name: &[u8], span| ImageRef::TarMember { tar: Arc::clone(&tar), name: name.to_owned(), span };
    let (mut images, mut classes) = (Vec::new(), HashMap::new());
    let damage = walk_tar(shard, &mut |member, data: &mut dyn Read| {
        if member.indirect {
            return Ok(());
        }
        let name = member.name;
        let path = path_from_bytes(name);
        if options.count_member(&path, || image(name, None).to_string(), left_out) {
            return Ok(());
        }
        // Everything after the first dot of the file's name is its kind, as the webdataset library has it.
        let start = name.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let Some(dot) = name[start..].iter().position(|&byte| byte == b'.') else { return Ok(()) };
        let (key, extension) = (name[..start + dot].to_owned(), &name[start + dot + 1..]);
        if extension.eq_ignore_ascii_case(b"cls") {
            let mut text = String::new();
            // Bytes that are not a number make the image one without a class.
            if data.take(MAX_CLASS_BYTES).read_to_string(&mut text).is_ok()
                && let Ok(class) = text.trim().parse::<usize>()
            {
                classes.insert(key, class);
            }
        } else if is_image_name(&path) {
            images.push((key, image(name, Some(member.span))));
        }
        Ok(())
    })?;
    skipped.extend(damage.map(|damage| format!("{}: {damage}", shard.display())));
    let mut labeled = Vec::with_capacity(images.len());
    for (key, image) in images {
        match classes.get(&key) {
            Some(&class) => labeled.push((image, class)),
            None => skipped.push(format!("{image}: no number in a member {}.cls", name_to_text(&key))),
        }
    }
    Ok(labeled)
}
