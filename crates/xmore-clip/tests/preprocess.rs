//! Preprocessing against Pillow: files of every kind, and resizing to the bit (see `fixtures/make_preprocess.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use xmore_clip::{ClipError, Interpolation, Model, NaFlex, PatchGrid, Region, ResizeMode, resize};
use xmore_files::image::{Alpha, DecodeOptions, Orientation, decode_bytes};

#[derive(Deserialize)]
struct Expected {
    files: BTreeMap<String, File>,
    /// `WIDTHxHEIGHT` of the pattern: mode, size and filter: hash.
    resized: BTreeMap<String, BTreeMap<String, String>>,
    processors: Vec<Processor>,
    /// Width, height, side of a patch, most patches; rows and columns.
    grids: Vec<[u32; 6]>,
    /// `WIDTHxHEIGHT` of the pattern: hash of at most 64 patches of 16 x 16, by the bilinear filter.
    patches: BTreeMap<String, String>,
}

/// What one of transformers' image processors makes of the pattern of 500 x 375.
#[derive(Deserialize)]
struct Processor {
    config: Value,
    /// Hash of the bytes.
    resized: String,
    /// What the two pixels in the upper left corner become.
    first_pixels: Vec<f32>,
}

#[derive(Deserialize)]
struct File {
    /// Pillow's name of the color type.
    mode: String,
    size: (u32, u32),
    /// Hash of what `convert("RGB")` gives.
    decoded: String,
    /// Hash of that after CLIP's resize and crop to 224.
    shortest_224: String,
    /// Hash with transparency laid on white, where there is any.
    white: Option<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Pixels as they are stored, which is what `convert("RGB")` gives.
fn decode(bytes: &[u8], name: &str, alpha: Alpha) -> Result<RgbImage, String> {
    let options = DecodeOptions::with_orientation(Orientation::Stored);
    let decoded = decode_bytes(bytes, Path::new(name), alpha, &options);
    decoded.map(|decoded| decoded.into_image()).map_err(|e| e.to_string())
}

fn decode_fixture(name: &str, alpha: Alpha) -> RgbImage {
    decode(&std::fs::read(fixtures().join("preprocess").join(name)).unwrap(), name, alpha).unwrap()
}

fn expected() -> Expected {
    let bytes = std::fs::read(fixtures().join("preprocess/expected.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn sha(image: &RgbImage) -> String {
    xmore_files::hex(Sha256::digest(image.as_raw()))
}

/// torchvision's `Resize(size)` and `CenterCrop(size)`, in its own words.
fn clip_resize(image: &RgbImage, size: u32, interpolation: Interpolation) -> RgbImage {
    let (w, h) = image.dimensions();
    let long = |l: u32, s: u32| (f64::from(size) * f64::from(l) / f64::from(s)) as u32;
    let (w, h) = if w <= h { (size, long(h, w)) } else { (long(w, h), size) };
    let offset = |length: u32| (f64::from(length - size) / 2.0).round_ties_even() as u32;
    let middle = Region { x: offset(w), y: offset(h), width: size, height: size };
    resize(image, w, h, interpolation, middle)
}

fn interpolation(name: &str) -> Interpolation {
    match name {
        "bicubic" => Interpolation::Bicubic,
        "bilinear" => Interpolation::Bilinear,
        _ => panic!("{name}"),
    }
}

/// The pattern of `make_preprocess.py`.
fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([0, 1, 2].map(|c| (((x * (5 + c) + y * (3 + 2 * c)) / 4) ^ ((x * y) >> 5)) as u8))
    })
}

#[test]
fn files_decode_to_pillows_bytes() {
    let (mut seen, mut transparent) = (0, 0);
    for (name, file) in &expected().files {
        // Pillow cuts 16-bit grey at 255: no model to follow.
        if file.mode == "I;16" {
            continue;
        }
        let image = decode_fixture(name, Alpha::Drop);
        assert_eq!(image.dimensions(), file.size, "{name}");
        assert_eq!(sha(&image), file.decoded, "{name}: {}", file.mode);
        assert_eq!(
            sha(&clip_resize(&image, 224, Interpolation::Bicubic)),
            file.shortest_224,
            "{name}, resized"
        );
        if let Some(white) = &file.white {
            assert_eq!(&sha(&decode_fixture(name, Alpha::White)), white, "{name} on white");
            transparent += 1;
        }
        seen += 1;
    }
    assert_eq!((seen, transparent), (30, 8));
}

#[test]
fn sixteen_bit_grey_is_scaled() {
    let decode = |name: &str| decode_fixture(name, Alpha::Drop);
    // grey16.png is the red plane of rgb16.png.
    for (rgb, grey) in decode("rgb16.png").pixels().zip(decode("grey16.png").pixels()) {
        assert_eq!(grey.0, [rgb.0[0]; 3]);
    }
}

fn jpegs() -> Vec<(String, Vec<u8>)> {
    let names = expected().files.into_keys().filter(|name| name.ends_with(".jpg"));
    names
        .map(|name| (name.clone(), std::fs::read(fixtures().join("preprocess").join(name)).unwrap()))
        .collect()
}

#[test]
fn a_jpeg_that_ends_early_is_refused() {
    for (name, bytes) in jpegs() {
        for length in 3..bytes.len() {
            let message = decode(&bytes[..length], &name, Alpha::Drop).unwrap_err();
            assert!(message.contains("ends too early"), "{name}, {length}: {message}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A picture or an error, within the test's memory and time.
    #[test]
    fn damaged_jpegs_do_not_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let files = JPEGS.with(Clone::clone);
        let (name, bytes) = which.get(&files);
        let mut bytes = bytes.clone();
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match decode(&bytes, name, Alpha::Drop) {
            Ok(image) => prop_assert!(image.width() > 0 && image.height() > 0),
            Err(e) => prop_assert!(!e.is_empty()),
        }
    }
}

thread_local! {
    static JPEGS: std::rc::Rc<Vec<(String, Vec<u8>)>> = std::rc::Rc::new(jpegs());
}

/// The pattern of a size that is written `WIDTHxHEIGHT`.
fn pattern_of(size: &str) -> RgbImage {
    let (width, height) = size.split_once('x').unwrap();
    pattern(width.parse().unwrap(), height.parse().unwrap())
}

#[test]
fn every_size_resizes_to_pillows_bytes() {
    let mut seen = 0;
    for (name, entries) in &expected().resized {
        let image = pattern_of(name);
        for (what, hash) in entries {
            let [mode, size, filter] = what.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (size, interpolation) = (size.parse().unwrap(), interpolation(filter));
            let found = match mode {
                "squash" => {
                    let whole = Region { x: 0, y: 0, width: size, height: size };
                    resize(&image, size, size, interpolation, whole)
                }
                "shortest" => clip_resize(&image, size, interpolation),
                _ => continue, // a model's own
            };
            assert_eq!(&sha(&found), hash, "{name} to {what}");
            seen += 1;
        }
    }
    assert_eq!(seen, 21 * 9);
}

#[test]
fn a_models_preprocessing_resizes_to_pillows_bytes() {
    for filter in ["bicubic", "bilinear"] {
        let (dir, path) = folder("open_clip", "open_clip_config.json", |config| {
            config["preprocess_cfg"]["interpolation"] = filter.into();
            config["model_cfg"]["vision_cfg"]["image_size"] = 32.into();
            config["model_cfg"]["vision_cfg"]["patch_size"] = 8.into();
        });
        let mut model = Model::load(dir.path()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(model.preprocess().size(), 32);
        assert_eq!(model.preprocess().interpolation(), interpolation(filter));
        assert_eq!(model.preprocess().other_resize_mode(), None);
        for (name, entries) in &expected().resized {
            let image = pattern_of(name);
            for mode in ResizeMode::ALL {
                model.set_resize_mode(mode);
                let key = format!("{} 32 {filter}", mode.name());
                assert_eq!(sha(&model.preprocess().resize(&image)), entries[&key], "{name} {key}");
            }
        }
    }
}

/// A copy of the model `vit_gelu` in a layout, whose file `name` reads as `change` leaves it.
fn folder(layout: &str, name: &str, change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("clip/vit_gelu").join(layout)).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(name);
    let mut value = std::fs::read(&path).map_or(json!({}), |text| serde_json::from_slice(&text).unwrap());
    change(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
    (dir, path)
}

const PROCESSOR: &str = "preprocessor_config.json";

fn check_processor(model: &Model, Processor { config, resized, first_pixels }: &Processor) {
    let image = pattern(500, 375);
    assert_eq!(&sha(&model.preprocess().resize(&image)), resized, "{config}");
    let pixels = model.preprocess().prepare(&image);
    for (found, expected) in pixels.as_slice().iter().zip(first_pixels) {
        assert!((found - expected).abs() < 2e-6, "{config}: {found}, {expected}");
    }
}

#[test]
fn a_folders_image_processor_is_obeyed() {
    let processors = expected().processors;
    assert_eq!(processors.len(), 10);
    for processor in &processors {
        let (dir, _) = folder("transformers", PROCESSOR, |config| *config = processor.config.clone());
        check_processor(&Model::load(dir.path()).unwrap(), processor);
    }
}

#[test]
fn an_image_processor_beside_a_tokenizers_settings_comes_first() {
    let [clip, siglip] =
        expected().processors.into_iter().take(2).collect::<Vec<_>>().try_into().ok().unwrap();
    let nested = json!({"processor_class": "SiglipProcessor", "image_processor": siglip.config});
    let (dir, path) = folder("transformers", "processor_config.json", |config| *config = nested.clone());
    check_processor(&Model::load(dir.path()).unwrap(), &siglip);
    std::fs::remove_file(dir.path().join(PROCESSOR)).unwrap();
    check_processor(&Model::load(dir.path()).unwrap(), &siglip);
    // As transformers 4 wrote it: nothing about images.
    std::fs::write(&path, r#"{"processor_class": "SiglipProcessor"}"#).unwrap();
    check_processor(&Model::load(dir.path()).unwrap(), &clip);
    std::fs::write(&path, r#"{"image_processor": {"resample": 1}}"#).unwrap();
    let message = refused(dir.path());
    assert!(
        message.contains("processor_config.json") && message.contains("resample is 1 (lanczos)"),
        "{message}"
    );
}

fn refused(path: &Path) -> String {
    let error = Model::load(path).err().expect("it should be refused");
    assert!(matches!(error, ClipError::Config { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn what_an_image_processor_asks_for_and_is_not_supported_is_named() {
    for (key, value) in [
        ("image_processor_type", json!("ViTImageProcessor")),
        ("image_processor_type", json!("BlipImageProcessor")),
        ("image_processor_type", json!("Siglip2ImageProcessor")),
        ("image_processor_type", json!(["CLIPImageProcessor"])),
        ("size", json!({"height": 48, "width": 24})),
        ("size", json!({"shortest_edge": 48, "longest_edge": 96})),
        ("size", json!({"max_height": 48, "max_width": 48})),
        ("size", json!({"shortest_edge": "48"})),
        ("size", json!({"shortest_edge": 224})),
        ("size", json!(224)),
        ("size", json!(-48)),
        ("size", json!([48, 24])),
        ("size", json!("large")),
        ("size", json!(1e300)),
        ("crop_size", json!({"height": 48, "width": 47})),
        ("crop_size", json!(32)),
        ("resample", json!(0)),
        ("resample", json!(1)),
        ("resample", json!(4_000_000_000_u32)),
        ("resample", json!("bicubic")),
        ("do_center_crop", json!(false)),
        ("do_resize", json!(false)),
        ("do_rescale", json!(false)),
        ("do_pad", json!(true)),
        ("do_normalize", json!("yes")),
        ("rescale_factor", json!(0.1)),
        ("image_mean", json!([0.5, 0.5])),
        ("image_mean", json!([0.5, 0.5, null])),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("image_std", json!(0)),
        ("image_std", json!([1e-300, 1.0, 1.0])),
        ("image_mean", json!([0.5, 1e30, 0.5])),
    ] {
        let (dir, path) = folder("transformers", PROCESSOR, |config| config[key] = value.clone());
        let message = refused(dir.path());
        assert!(
            message.contains(key) && message.contains(&*path.to_string_lossy()),
            "{key} = {value}: {message}"
        );
    }
}

#[test]
fn what_a_preprocess_cfg_asks_for_and_is_not_supported_is_named() {
    for (key, value) in [
        ("mode", json!("L")),
        ("mean", json!([0.5])),
        ("mean", json!(0.5)),
        ("std", json!([0.5, 0.0, 0.5])),
        ("std", json!(["a", "b", "c"])),
        ("interpolation", json!("nearest")),
        ("interpolation", json!(3)),
        ("resize_mode", json!("crop")),
        ("fill_color", json!(256)),
        ("fill_color", json!([0, 0, 0])),
        ("alpha", json!("black")),
    ] {
        let change = |config: &mut Value| config["preprocess_cfg"][key] = value.clone();
        let (dir, path) = folder("open_clip", "open_clip_config.json", change);
        let message = refused(dir.path());
        assert!(
            message.contains(key) && message.contains(&*path.to_string_lossy()),
            "{key} = {value}: {message}"
        );
    }
}

#[test]
fn keys_that_open_clip_does_not_read_change_nothing() {
    let load = |change: fn(&mut Value)| {
        Model::load(folder("open_clip", "open_clip_config.json", change).0.path()).unwrap()
    };
    let plain = load(|_| ());
    let changed = load(|config| {
        let keys = json!({"size": [7, 9], "mode": "RGB", "interpolation": "random", "fill_color": null, "crop_pct": 0.9});
        let keys = keys.as_object().unwrap().clone();
        config["preprocess_cfg"].as_object_mut().unwrap().extend(keys);
    });
    let image = pattern(61, 45);
    assert_eq!(plain.preprocess().prepare(&image), changed.preprocess().prepare(&image));
}

#[test]
fn patches_are_those_of_transformers() {
    let Expected { grids, patches, .. } = expected();
    assert_eq!((grids.len(), patches.len()), (125, 5));
    for [width, height, patch, most, rows, columns] in grids {
        let found = NaFlex::new(patch, most).unwrap().grid(width, height);
        assert_eq!(found, PatchGrid { rows, columns }, "{width}x{height}, {most} of {patch}");
    }
    for (size, hash) in patches {
        let (_, found) = NaFlex::new(16, 64).unwrap().patches(&pattern_of(&size), Interpolation::Bilinear);
        assert_eq!(sha(&found), hash, "{size}");
    }
}
