//! The configurations of every family with each of their numbers replaced by what it cannot be: errors that name the file, and the key where
//! the value is of another type; never a panic, nor memory by a number that was not checked.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};
use xmore_clip::{ClipError, Model};

/// The files that are configurations.
const NAMES: [&str; 5] = [
    "open_clip_config.json",
    "config.json",
    "text_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn configurations(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            configurations(&path, files);
        } else if NAMES.iter().any(|name| path.ends_with(name)) {
            files.push(path);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// JSON pointers of all numbers.
fn numbers(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(pointer.to_owned()),
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| numbers(value, &format!("{pointer}/{key}"), found));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| numbers(value, &format!("{pointer}/{n}"), found));
        }
        _ => {}
    }
}

/// The innermost key of a pointer, which may go on into a list.
fn key(pointer: &str) -> &str {
    pointer.rsplit('/').find(|part| part.parse::<usize>().is_err()).unwrap()
}

/// Loads and uses a folder's model, where it is no larger than the fixtures'.
fn load_and_encode(folder: &Path) -> Result<(), ClipError> {
    let model = Model::load(folder)?;
    if model.preprocess().size() <= 128 {
        let picture = fixtures().join("images/same.png");
        model.encode_images(&[model.preprocess().load(&picture)?])?;
    }
    model.encode_token_ids(&[&[1, 2, 3]])?;
    Ok(())
}

/// Checks one file; gives how many texts in the place of numbers are refused.
fn check(file: &Path) -> usize {
    let of_tower = |dir: &&Path| !dir.ends_with("hf_text");
    let original = file.ancestors().skip(1).find(of_tower).unwrap();
    let folder = tempfile::tempdir().unwrap();
    copy(original, folder.path());
    let path = folder.path().join(file.strip_prefix(original).unwrap());
    let whole: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut pointers = Vec::new();
    numbers(&whole, "", &mut pointers);
    let mut refused_texts = 0;
    for (pointer, value) in pointers
        .iter()
        .flat_map(|pointer| [json!(0), json!(1u64 << 40), json!("many"), Value::Null].map(|v| (pointer, v)))
    {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        std::fs::write(&path, changed.to_string()).unwrap();
        let Err(error) = load_and_encode(folder.path()) else { continue };
        let what = format!("{}: {pointer} = {value}: {error}", file.display());
        assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{what}");
        if value.is_string() {
            refused_texts += 1;
            assert!(matches!(error, ClipError::Config { .. }), "{what}");
            let message = error.to_string();
            assert!(message.contains(&*path.to_string_lossy()) && message.contains(key(pointer)), "{what}");
        }
    }
    refused_texts
}

#[test]
fn numbers_that_cannot_be() {
    let mut files = Vec::new();
    ["clip", "tiny", "towers"].iter().for_each(|part| configurations(&fixtures().join(part), &mut files));
    assert!(files.len() > 40, "{}", files.len());
    files.par_iter().for_each(|file| {
        let refused_texts = check(file);
        let of_tokenizer = file.ends_with("tokenizer_config.json");
        assert!(of_tokenizer || refused_texts > 2, "{}: {refused_texts} texts are refused", file.display());
    });
}
