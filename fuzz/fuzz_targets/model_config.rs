//! One configuration file of a fixture's folder, whole or with some of its values changed: an error that names the folder, or a model that
//! encodes a picture and a text as numbers.
//!
//! The first byte chooses the file, the second what the rest is: 0 the whole file; 1 changes of it. A change is a byte that counts the file's
//! values from the first, and JSON up to a zero byte that takes that value's place, or `"key": value` that is added to it. 2 and 3 are the same for
//! `processor_config.json`, in which an image processor's keys lie one level deeper.

#![no_main]

use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use xmore_clip::{Embeddings, Model};

/// The files that are configurations; `seeds.sh` has the same.
const NAMES: [&str; 5] = [
    "open_clip_config.json",
    "config.json",
    "text_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
];
const PROCESSOR: &str = "preprocessor_config.json";
const NESTED_PROCESSOR: &str = "processor_config.json";

/// The largest side, number of patches or of tokens of what is encoded.
const LARGEST: usize = 256;

/// A configuration file in a copy of its model's folder.
struct Case {
    folder: tempfile::TempDir,
    /// Relative to the folder.
    name: String,
    value: Value,
}

/// In the order of their paths.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/xmore-clip/tests/fixtures");
    let mut files = Vec::new();
    ["clip", "tiny", "towers"].iter().for_each(|part| configurations(&fixtures.join(part), &mut files));
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    files.iter().map(|file| case(&fixtures, file)).collect()
});

fn configurations(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            configurations(&path, files);
        } else if NAMES.iter().any(|name| path.ends_with(name)) {
            files.push(path);
        }
    }
}

fn case(fixtures: &Path, file: &Path) -> Case {
    let dir = file.ancestors().skip(1).find(|dir| !dir.ends_with("hf_text")).expect("a model's folder");
    let folder = tempfile::tempdir().expect("a temporary folder");
    link_all(dir, folder.path());
    if !["tokenizer.json", "spiece.model"].iter().any(|name| dir.join(name).exists()) {
        link(&fixtures.join("tiny/tokenizer.json"), &folder.path().join("tokenizer.json"));
    }
    let name =
        file.strip_prefix(dir).expect("a file of the folder").to_str().expect("plain names").to_owned();
    std::fs::remove_file(folder.path().join(&name)).expect("a link");
    let value = std::fs::read(file).expect("the fixtures are there");
    Case { folder, name, value: serde_json::from_slice(&value).expect("JSON") }
}

fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a temporary folder");
    for entry in std::fs::read_dir(from).expect("the fixtures are there") {
        let entry = entry.expect("a readable folder");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { link_all(&entry.path(), &to) } else { link(&entry.path(), &to) }
    }
}

fn link(from: &Path, to: &Path) {
    symlink(from.canonicalize().expect("the fixtures are there"), to)
        .expect("the temporary folder is writable");
}

/// Applies the changes, each behind the place of a value.
fn change(value: &mut Value, changes: &[u8]) {
    for change in changes.split(|&b| b == 0) {
        let Some((&place, text)) = change.split_first() else { continue };
        let mut left = usize::from(place);
        let Some(at) = nth(value, &mut left) else { continue };
        let added: Result<Map<String, Value>, _> = serde_json::from_slice(&[b"{", text, b"}"].concat());
        match (at.as_object_mut(), added) {
            (Some(object), Ok(added)) => object.extend(added),
            _ => *at = serde_json::from_slice(text).unwrap_or_default(),
        }
    }
}

/// The value that comes behind `left` others, those inside a value behind it.
fn nth<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Object(object) => object.values_mut().find_map(|value| nth(value, left)),
        Value::Array(list) => list.iter_mut().find_map(|value| nth(value, left)),
        _ => None,
    }
}

/// Writes the file that the input stands for; gives its folder.
fn write(data: &[u8]) -> Option<&'static Path> {
    let [which, form, rest @ ..] = data else { return None };
    let case = &CASES[usize::from(*which) % CASES.len()];
    let folder = case.folder.path();
    let nested = case.name == PROCESSOR && form & 2 != 0;
    let bytes = if form & 1 == 0 {
        rest.to_vec()
    } else {
        let mut value = if nested { json!({"image_processor": case.value}) } else { case.value.clone() };
        change(&mut value, rest);
        value.to_string().into_bytes()
    };
    let nested_path = folder.join(NESTED_PROCESSOR);
    if nested {
        std::fs::write(nested_path, bytes).expect("the temporary folder is writable");
    } else {
        drop(std::fs::remove_file(nested_path));
        std::fs::write(folder.join(&case.name), bytes).expect("the temporary folder is writable");
    }
    Some(folder)
}

fn assert_numbers(embeddings: &Embeddings, dim: usize) {
    assert_eq!((embeddings.len(), embeddings.dim()), (1, dim));
    assert!(embeddings.rows().flatten().all(|value| value.is_finite()), "an embedding of no numbers");
}

fn load_and_encode(folder: &Path) {
    let model = match Model::load(folder) {
        Ok(model) => model,
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(&*folder.to_string_lossy()), "an error without a file: {message}");
            return;
        }
    };
    let preprocess = model.preprocess();
    let side = match preprocess.any_aspect() {
        None => preprocess.size(),
        Some(patches) => patches.patch().max(patches.max_patches()),
    };
    if side as usize <= LARGEST {
        let picture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/xmore-clip/tests/fixtures/images/wide.png");
        let pixels = preprocess.load(&picture).expect("the fixtures are there");
        if let Ok(embeddings) = model.encode_images(&[pixels]) {
            assert_numbers(&embeddings, model.dim());
        }
    }
    if model.context_length() <= LARGEST {
        let _ = model.tokenize("two photos of a dog, and 42 of cats");
        if let Ok(texts) = model.encode_texts(&["a dog's 7 Cafés"]) {
            assert_numbers(&texts.embeddings, model.dim());
        }
        if let Ok(embeddings) = model.encode_token_ids(&[&[1, 2, 3]]) {
            assert_numbers(&embeddings, model.dim());
        }
    }
}

/// What the last panic said.
static PANIC: Mutex<String> = Mutex::new(String::new());

fuzz_target!(|data: &[u8]| {
    let Some(folder) = write(data) else { return };
    // libFuzzer aborts in the panic hook, so panics that the tokenizers' guard turns into errors must not reach it
    let hook = std::panic::take_hook();
    set_hook(Box::new(|info| *PANIC.lock().expect("a text") = info.to_string()));
    let result = catch_unwind(AssertUnwindSafe(|| load_and_encode(folder)));
    set_hook(hook);
    assert!(result.is_ok(), "{}", PANIC.lock().expect("a text"));
});
