//! Model folders and files that are not what they should be: errors that name the file, the tensor, what was expected and what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use xmore_clip::{ClipError, Model, Pixels};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip/vit_gelu").join(path)
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of the open_clip folder whose tensors `change` has seen, and whose configuration reads `config` (if given).
fn changed(
    change: impl FnOnce(&mut Tensors),
    config: impl FnOnce(&mut serde_json::Value),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("open_clip/open_clip_model.safetensors")).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let path = dir.path().join("open_clip_model.safetensors");
    serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
    let text = std::fs::read(fixture("open_clip/open_clip_config.json")).unwrap();
    let mut json = serde_json::from_slice(&text).unwrap();
    config(&mut json);
    std::fs::write(dir.path().join("open_clip_config.json"), json.to_string()).unwrap();
    dir
}

/// Loads and uses both towers; the error, as words too.
fn refused(path: &Path) -> (ClipError, String) {
    let used = Model::load(path).and_then(|model| {
        let side = model.preprocess().size() as usize;
        model.encode_images(&[Pixels::new(vec![0.0; side * side * 3])])?;
        model.encode_token_ids(&[&[1, 2, 3]])
    });
    let error = used.expect_err("it should be refused");
    let message = error.to_string();
    (error, message)
}

const FC: &str = "visual.transformer.resblocks.0.mlp.c_fc.weight";

#[test]
fn the_unchanged_copy_is_read() {
    let dir = changed(|_| {}, |_| {});
    assert!(Model::load(dir.path()).is_ok());
}

#[test]
fn a_missing_tensor_is_named() {
    let dir = changed(|tensors| drop(tensors.remove(FC)), |_| {});
    let (error, message) = refused(dir.path());
    assert!(matches!(error, ClipError::MissingTensor { .. }), "{message}");
    assert!(message.contains(FC) && message.contains("open_clip_model.safetensors"), "{message}");
}

#[test]
fn a_wrong_shape_says_both() {
    let dir = changed(|_| {}, |config| config["model_cfg"]["vision_cfg"]["mlp_ratio"] = 2.0.into());
    let (error, message) = refused(dir.path());
    assert!(matches!(error, ClipError::TensorShape { .. }), "{message}");
    assert!(
        message.contains("c_fc") && message.contains("has shape") && message.contains("expected"),
        "{message}"
    );
}

#[test]
fn integers_are_no_weights() {
    let dir = changed(|tensors| tensors.get_mut(FC).unwrap().0 = Dtype::I32, |_| {});
    let (error, message) = refused(dir.path());
    assert!(matches!(error, ClipError::TensorDtype { .. }), "{message}");
    assert!(message.contains(FC), "{message}");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let nan = |tensors: &mut Tensors| {
        let data = &mut tensors.get_mut(FC).unwrap().2;
        data[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    let dir = changed(nan, |_| {});
    let (error, message) = refused(dir.path());
    assert!(matches!(error, ClipError::NotFinite { .. }), "{message}");
    assert!(message.contains(FC), "{message}");
}

#[test]
fn what_a_configuration_asks_for_and_is_not_supported_is_named() {
    for (key, value) in [
        ("scale_heads", serde_json::json!(true)),
        ("attentional_pool", "parallel".into()),
        ("pool_type", "avg".into()),
        ("qk_norm", true.into()),
    ] {
        let dir = changed(|_| {}, |config| config["model_cfg"]["vision_cfg"][key] = value.clone());
        let (error, message) = refused(dir.path());
        assert!(matches!(error, ClipError::Config { .. }) && message.contains(key), "{message}");
    }
}

#[test]
fn sizes_out_of_range_are_refused_before_anything_is_allocated() {
    for (tower, key, value) in [
        ("vision_cfg", "width", 1usize << 40),
        ("vision_cfg", "layers", 1 << 40),
        ("vision_cfg", "layers", 0),
        ("vision_cfg", "head_width", 0),
        ("vision_cfg", "patch_size", 0),
        ("vision_cfg", "image_size", 1 << 30),
        ("text_cfg", "context_length", 1 << 50),
        ("text_cfg", "heads", 0),
        ("text_cfg", "vocab_size", 0),
    ] {
        let dir = changed(|_| {}, |config| config["model_cfg"][tower][key] = value.into());
        let (error, message) = refused(dir.path());
        assert!(matches!(error, ClipError::Config { .. }), "{key} = {value}: {message}");
    }
}

#[test]
fn files_that_are_no_models() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (name, bytes) in
        [("empty.pt", &b""[..]), ("text.pt", b"hello, this is no model at all"), ("zip.pt", b"PK\x03\x04")]
    {
        let (error, message) = refused(&write(name, bytes));
        assert!(matches!(error, ClipError::Checkpoint { .. }) && message.contains(name), "{message}");
    }
    // Safetensors, but of something else.
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/text.safetensors");
    let (_, message) = refused(&other);
    assert!(message.contains("no CLIP model") && message.contains("text.safetensors"), "{message}");
    // An empty folder, and one without weights.
    let (error, message) = refused(dir.path());
    assert!(
        matches!(error, ClipError::MissingFile { .. }) && message.contains("open_clip_config.json"),
        "{message}"
    );
    std::fs::copy(fixture("open_clip/open_clip_config.json"), dir.path().join("open_clip_config.json"))
        .unwrap();
    let (error, message) = refused(dir.path());
    assert!(
        matches!(error, ClipError::MissingFile { .. }) && message.contains("open_clip_model.safetensors"),
        "{message}"
    );
}

#[test]
fn pixels_of_another_size_are_refused() {
    let model = Model::load(fixture("open_clip")).unwrap();
    let message = model.encode_images(&[Pixels::new(vec![0.0; 12])]).unwrap_err().to_string();
    assert!(message.contains("12 values") && message.contains("[48, 48, 3]"), "{message}");
}
