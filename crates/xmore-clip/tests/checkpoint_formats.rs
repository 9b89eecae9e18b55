//! Every published checkpoint format gives the tensors that the library which wrote it holds, to the bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use xmore_clip::{Checkpoint, CheckpointKind, ClipError};

#[derive(Deserialize)]
struct Expected {
    kind: String,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    /// Of the elements as little-endian f32; of what is no float there is none.
    sha256: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch")
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

fn sha256(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    xmore_files::hex(Sha256::digest(&bytes))
}

#[track_caller]
fn assert_matches(file: &str, checkpoint: &Checkpoint, expected: &Expected) {
    assert_eq!(format!("{:?}", checkpoint.kind()), expected.kind, "{file}");
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(names, expected.tensors.keys().collect::<Vec<_>>(), "{file}");
    for (name, tensor) in &expected.tensors {
        assert_eq!(checkpoint.shape(name), Some(tensor.shape.as_slice()), "{file}: {name}");
        let dtype = checkpoint.dtype(name).unwrap();
        assert_eq!(format!("{dtype:?}").to_uppercase(), tensor.dtype.to_uppercase(), "{file}: {name}");
        match (&tensor.sha256, checkpoint.tensor(name, &tensor.shape)) {
            (Some(hash), Ok(values)) => assert_eq!(sha256(&values), *hash, "{file}: {name}"),
            (None, Err(ClipError::TensorDtype { found, .. })) => assert_eq!(found, dtype, "{file}: {name}"),
            (_, found) => panic!("{file}: {name}: {:?}", found.map(|v| v.len())),
        }
    }
}

#[test]
fn every_tensor_of_every_format_is_what_its_library_holds() {
    let expected = expected();
    assert!(expected.len() >= 9, "the fixtures are there");
    for (file, expected) in &expected {
        let checkpoint = Checkpoint::open(folder().join(file)).unwrap_or_else(|e| panic!("{e}"));
        assert_matches(file, &checkpoint, expected);
    }
}

#[test]
fn bytes_in_memory_give_the_same_at_any_alignment() {
    for (file, expected) in expected().iter().filter(|(file, _)| !file.ends_with(".json")) {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        let checkpoint = Checkpoint::from_bytes(bytes, Path::new(file)).unwrap();
        assert_matches(file, &checkpoint, expected);
    }
}

#[test]
fn a_training_files_optimizer_is_not_seen() {
    let checkpoint = Checkpoint::open(folder().join("training.pt")).unwrap();
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(names, ["text.bias", "text.weight", "visual.bias", "visual.weight"]);
}

#[test]
fn shards_are_one_checkpoint_of_several_files() {
    let checkpoint = Checkpoint::open(folder().join("model.safetensors.index.json")).unwrap();
    assert_eq!(checkpoint.kind(), CheckpointKind::Safetensors);
    let files: Vec<_> = checkpoint.files().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(files, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
    // An error about a tensor names the file that it lies in; one about a missing tensor, the index.
    let error = checkpoint.tensor("visual.weight", &[1]).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors: tensor `visual.weight`"), "{error}");
    let error = checkpoint.tensor("visual.bias", &[1]).unwrap_err().to_string();
    assert!(error.contains("model.safetensors.index.json: no tensor `visual.bias`"), "{error}");
}

#[test]
fn nan_and_infinity_are_refused_with_their_number_and_place() {
    let checkpoint = Checkpoint::open(folder().join("not_finite.pt")).unwrap();
    assert!(checkpoint.tensor("good", &[3]).is_ok());
    match checkpoint.tensor("bad", &[9]) {
        Err(ClipError::NotFinite { path, name, count: 2, first: 4 }) => {
            assert!(name == "bad" && path.ends_with("not_finite.pt"));
        }
        other => panic!("{other:?}"),
    }
}

/// Opens a file that must be refused; gives the message, which names the file.
#[track_caller]
fn refusal(path: &Path) -> String {
    let error = Checkpoint::open(path).err().expect("the file is refused").to_string();
    assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
    error
}

#[test]
fn files_that_cannot_be_read_say_why() {
    for (file, why) in [
        ("malicious.pt", "it would call `posix.system`"),
        ("whole_module.pt", "save the model's `state_dict()` alone"),
        ("big_endian.pt", "byteorder is \"big\""),
        ("compressed.pt", "is compressed, which PyTorch never writes; unpack the file"),
        ("make_torch.py", "expected safetensors or a PyTorch file, found"),
        ("expected.json", "expected an index of shards"),
        ("absent.pt", "cannot read"),
    ] {
        let error = refusal(&folder().join(file));
        assert!(error.contains(why), "{file}: {error}");
    }
    let error = refusal(&folder());
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn an_encrypted_member_is_named() {
    let mut bytes = std::fs::read(folder().join("module.bin")).unwrap();
    // Flag bit 0 of the first entry of the directory.
    let at = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bytes[at + 8] |= 1;
    let error = Checkpoint::from_bytes(bytes, Path::new("x")).err().unwrap().to_string();
    assert!(error.contains("data.pkl is encrypted"), "{error}");
}

#[test]
fn an_index_of_shards_is_held_to_its_folder_and_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    let shard = "model-00001-of-00002.safetensors";
    std::fs::copy(folder().join(shard), dir.path().join(shard)).unwrap();
    std::fs::copy(folder().join("module.bin"), dir.path().join("module.bin")).unwrap();
    let refused = |json: &str| {
        std::fs::write(&index, json).unwrap();
        Checkpoint::open(&index).err().expect("the index is refused")
    };
    for file in
        ["../x.bin", "/etc/passwd", "..", "", ".", "a/b", "a\\\\b", "c:x", "model.safetensors.index.json"]
    {
        let error = refused(&format!(r#"{{"weight_map": {{"a": "{file}"}}}}"#)).to_string();
        assert!(error.contains("expected a file of weights beside it"), "{file}: {error}");
    }
    let map = format!(r#"{{"weight_map": {{"logit_scale": "{shard}", "visual.proj": "{shard}"}}}}"#);
    let error = refused(&map).to_string();
    assert!(error.contains(shard) && error.contains("lacks tensor `visual.proj`"), "{error}");
    let error = refused(r#"{"weight_map": {"a": "model-00003-of-00003.safetensors"}}"#);
    assert!(matches!(&error, ClipError::MissingFile { file, .. } if file.contains("00003")), "{error}");
    let map = format!(r#"{{"weight_map": {{"logit_scale": "{shard}", "logit_scale": "{shard}"}}}}"#);
    assert!(refused(&map).to_string().contains("stands there twice"));
    let map = format!(r#"{{"weight_map": {{"logit_scale": "{shard}", "0.weight": "module.bin"}}}}"#);
    assert!(refused(&map).to_string().contains("several formats"));
    assert!(refused(r#"{"weight_map": {}}"#).to_string().contains("names 0 files"));
}
