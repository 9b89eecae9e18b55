//! Parity with the reference implementations on the committed fixtures (see `fixtures/make_*.py`).

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use xmore_clip::{Interpolation, Model, Pixels, Region, resize};
use xmore_files::image::{Alpha, DecodeOptions, decode_file};

mod expected;

use expected::{Expected, assert_close, fixtures};

fn load_all(model: &Model, images: &[PathBuf]) -> Vec<Pixels> {
    images.iter().map(|path| model.preprocess().load(path).unwrap()).collect()
}

#[test]
fn a_tiny_model_matches_the_reference() {
    let model = Model::load(fixtures().join("tiny")).unwrap();
    let expected = Expected::read("tiny_expected.safetensors");
    let images = load_all(&model, &expected.images);
    assert_eq!((model.dim(), model.logit_scale()), (16, 20f32.ln().exp()));

    let features = model.image_features(&images).unwrap();
    assert_close(&features, &expected.rows("image_features"), 1e-5);
    let embeddings = model.encode_images(&images).unwrap();
    // Standardizing subtracts most of a feature: what is left carries its error at up to ten times the relative size.
    assert_close(&embeddings, &expected.rows("image_embeddings"), 1e-4);

    let (features, truncated) = model.text_features(&expected.texts).unwrap();
    assert_close(&features, &expected.rows("text_features"), 1e-5);
    assert_eq!(truncated, 3, "the three long texts are cut at 32 tokens");
    let embeddings = model.encode_texts(&expected.texts).unwrap().embeddings;
    assert_close(&embeddings, &expected.rows("text_embeddings"), 1e-5);
}

#[test]
fn a_batch_gives_the_bits_of_each_alone() {
    let model = Model::load(fixtures().join("tiny")).unwrap();
    let expected = Expected::read("tiny_expected.safetensors");
    let images = load_all(&model, &expected.images);
    let texts: Vec<&String> = expected.texts.iter().cycle().take(33).collect();
    let run = || {
        let images = model.encode_images(&images).unwrap();
        (images, model.encode_texts(&texts).unwrap().embeddings)
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (all_images, all_texts) = pool(2).install(run);
    assert_eq!((&all_images, &all_texts), (&pool(1).install(run).0, &pool(1).install(run).1));
    for (n, image) in images.iter().enumerate() {
        assert_eq!(model.encode_images(std::slice::from_ref(image)).unwrap().row(0), all_images.row(n));
    }
    for (n, text) in texts.iter().enumerate() {
        assert_eq!(model.encode_texts(&[text]).unwrap().embeddings.row(0), all_texts.row(n));
    }
}

#[test]
fn resizing_gives_pillows_bytes() {
    let hashes: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&std::fs::read(fixtures().join("resized.json")).unwrap()).unwrap();
    assert_eq!(hashes.len(), 64);
    for (key, expected) in hashes {
        let [name, mode, size, filter] = key.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let side: u32 = size.parse().unwrap();
        let path = fixtures().join("images").join(name);
        let image = decode_file(&path, Alpha::White, &DecodeOptions::default()).unwrap().into_image();
        let (w, h) = image.dimensions();
        let long = |l: u32, s: u32| (f64::from(side) * f64::from(l) / f64::from(s)) as u32;
        let (to_w, to_h) = match mode {
            "squash" => (side, side),
            _ if w <= h => (side, long(h, w)),
            _ => (long(w, h), side),
        };
        let middle = |n: u32| (f64::from(n - side) / 2.0).round_ties_even() as u32;
        let region = Region { x: middle(to_w), y: middle(to_h), width: side, height: side };
        let interpolation =
            if filter == "bilinear" { Interpolation::Bilinear } else { Interpolation::Bicubic };
        let bytes = resize(&image, to_w, to_h, interpolation, region);
        let hash = xmore_files::hex(Sha256::digest(bytes.as_raw()));
        assert_eq!(hash, expected, "{key}");
    }
}
