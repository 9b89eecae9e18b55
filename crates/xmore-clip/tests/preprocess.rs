//! Preprocessing against Pillow: files of every kind, and resizing to the bit (see `fixtures/make_preprocess.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use xmore_clip::{Model, Region, ResizeMode, resize_bicubic};
use xmore_files::image::{Alpha, DecodeOptions, Orientation, decode_bytes};

#[derive(Deserialize)]
struct Expected {
    files: BTreeMap<String, File>,
    /// `WIDTHxHEIGHT` of the pattern: size, or `squash` and size: hash.
    resized: BTreeMap<String, BTreeMap<String, String>>,
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
fn clip_resize(image: &RgbImage, size: u32) -> RgbImage {
    let (w, h) = image.dimensions();
    let long = |l: u32, s: u32| (f64::from(size) * f64::from(l) / f64::from(s)) as u32;
    let (w, h) = if w <= h { (size, long(h, w)) } else { (long(w, h), size) };
    let offset = |length: u32| (f64::from(length - size) / 2.0).round_ties_even() as u32;
    resize_bicubic(image, w, h, Region { x: offset(w), y: offset(h), width: size, height: size })
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
        assert_eq!(sha(&clip_resize(&image, 224)), file.shortest_224, "{name}, resized");
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

#[test]
fn every_size_resizes_to_pillows_bytes() {
    for (name, entries) in &expected().resized {
        let (width, height) = name.split_once('x').unwrap();
        let image = pattern(width.parse().unwrap(), height.parse().unwrap());
        for (what, hash) in entries {
            if what.starts_with("longest ") {
                continue; // a model's own
            }
            let found = match what.strip_prefix("squash ") {
                Some(size) => {
                    let size = size.parse().unwrap();
                    resize_bicubic(&image, size, size, Region { x: 0, y: 0, width: size, height: size })
                }
                None => clip_resize(&image, what.parse().unwrap()),
            };
            assert_eq!(&sha(&found), hash, "{name} to {what}");
        }
    }
}

#[test]
fn a_models_preprocessing_resizes_to_pillows_bytes() {
    let mut model = Model::load(fixtures().join("tiny")).unwrap();
    assert_eq!(model.preprocess().size(), 32);
    assert_eq!(model.preprocess().other_resize_mode(), None);
    for (name, entries) in &expected().resized {
        let (width, height) = name.split_once('x').unwrap();
        let image = pattern(width.parse().unwrap(), height.parse().unwrap());
        for mode in ResizeMode::ALL {
            model.set_resize_mode(mode);
            let key = if mode == ResizeMode::Shortest { "32" } else { &format!("{} 32", mode.name()) };
            assert_eq!(sha(&model.preprocess().resize(&image)), entries[key], "{name} {key}");
        }
    }
}
