//! Preprocessing against Pillow: files of every kind, and resizing to the bit (see `fixtures/make_preprocess.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use xmore_clip::{Model, Region, decode_file, resize_bicubic};

#[derive(Deserialize)]
struct Expected {
    files: BTreeMap<String, File>,
    /// `WIDTHxHEIGHT` of the pattern: size, or `squash` and size: hash.
    resized: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct File {
    /// Pillow's name of the colour type.
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

fn expected() -> Expected {
    let bytes = std::fs::read(fixtures().join("preprocess/expected.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn sha(image: &RgbImage) -> String {
    Sha256::digest(image.as_raw()).iter().map(|b| format!("{b:02x}")).collect()
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
    let folder = fixtures().join("preprocess");
    let mut seen = 0;
    for (name, file) in &expected().files {
        if !is_exact(name, file) {
            continue;
        }
        let image = decode_file(&folder.join(name)).unwrap();
        assert_eq!(image.dimensions(), file.size, "{name}");
        assert_eq!(&sha(&image), file.white.as_ref().unwrap_or(&file.decoded), "{name}: {}", file.mode);
        if file.white.is_none() {
            assert_eq!(sha(&clip_resize(&image, 224)), file.shortest_224, "{name}, resized");
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

/// Which files decode to the bit. Not so: JPEG, whose decoder rounds differently by a few grey levels; 16-bit grey, which Pillow cuts at
/// 255 instead of scaling; 16-bit colour, of which Pillow drops the low byte where we round.
fn is_exact(name: &str, file: &File) -> bool {
    !(name.ends_with(".jpg") || file.mode == "I;16" || name == "rgb16.png")
}

#[test]
fn sixteen_bit_colour_is_within_one_of_pillow_and_grey_is_scaled() {
    let folder = fixtures().join("preprocess");
    let decode = |name: &str| decode_file(&folder.join(name)).unwrap();
    // grey16.png is the red plane of rgb16.png.
    for (rgb, grey) in decode("rgb16.png").pixels().zip(decode("grey16.png").pixels()) {
        assert!(grey.0 == [grey.0[0]; 3] && grey.0[0].abs_diff(rgb.0[0]) <= 1);
    }
}

#[test]
fn every_size_resizes_to_pillows_bytes() {
    for (name, entries) in &expected().resized {
        let (width, height) = name.split_once('x').unwrap();
        let image = pattern(width.parse().unwrap(), height.parse().unwrap());
        for (what, hash) in entries {
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
    let model = Model::load(fixtures().join("tiny")).unwrap();
    assert_eq!(model.preprocess().size(), 32);
    for (name, entries) in &expected().resized {
        let (width, height) = name.split_once('x').unwrap();
        let image = pattern(width.parse().unwrap(), height.parse().unwrap());
        assert_eq!(sha(&model.preprocess().resize(&image)), entries["32"], "{name}");
    }
}
