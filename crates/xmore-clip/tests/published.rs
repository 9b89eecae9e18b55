//! Outputs of the real OpenAI models that others have published, in `../shared/data/parity` beside the repository.
//!
//! The weights are not in the repository: `XMORE_CLIP_WEIGHTS` names a folder with `ViT-B-32.pt` and `RN50.pt` (or folders of those
//! names); otherwise the caches of CLIP and of the Hugging Face hub are looked through. Without them a test says that it is skipped.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xmore_clip::{Embeddings, Interpolation, Model, Region, resize};
use xmore_files::image::{Alpha, DecodeOptions, Orientation, decode_file};

/// Past the test harness, which would keep the line to itself.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The data, if they are here.
fn parity() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/parity");
    let dir = std::env::var_os("XMORE_DATA").map_or(dir, |data| PathBuf::from(data).join("parity"));
    if dir.join("expected.json").is_file() {
        return Some(dir);
    }
    say(&format!("skipped: no {}/expected.json (XMORE_DATA names the data folder)", dir.display()));
    None
}

fn published(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap()
}

/// A `.npy` file of f32, as rows of its last dimension.
fn npy(path: &Path) -> Embeddings {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = npyz::NpyFile::new(bytes.as_slice()).unwrap();
    let dim = *file.shape().last().unwrap() as usize;
    Embeddings::new(file.into_vec::<f32>().unwrap(), dim)
}

/// OpenAI's weights of an architecture, if they are anywhere.
fn weights(name: &str, repositories: &[&str]) -> Option<Model> {
    let mut places = Vec::new();
    if let Some(folder) = std::env::var_os("XMORE_CLIP_WEIGHTS") {
        let folder = PathBuf::from(folder);
        places.extend([folder.join(format!("{name}.pt")), folder.join(name)]);
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    places.push(home.join(".cache/clip").join(format!("{name}.pt")));
    let hub = match (std::env::var_os("HF_HUB_CACHE"), std::env::var_os("HF_HOME")) {
        (Some(hub), _) => PathBuf::from(hub),
        (None, Some(home)) => PathBuf::from(home).join("hub"),
        (None, None) => home.join(".cache/huggingface/hub"),
    };
    for repository in repositories {
        let snapshots = hub.join(format!("models--{}/snapshots", repository.replace('/', "--")));
        places.extend(std::fs::read_dir(snapshots).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    let Some(place) = places.iter().find(|place| place.exists()) else {
        eprintln!(
            "skipped: no weights of OpenAI's {name} (XMORE_CLIP_WEIGHTS names a folder with {name}.pt)"
        );
        return None;
    };
    say(&format!("{name} from {}", place.display()));
    Some(Model::load(place).unwrap_or_else(|e| panic!("{}: {e}", place.display())))
}

fn vit_b_32() -> Option<Model> {
    weights("ViT-B-32", &["openai/clip-vit-base-patch32", "timm/vit_base_patch32_clip_224.openai"])
}

fn unit(rows: &Embeddings) -> Embeddings {
    let mut data = Vec::new();
    for row in rows.rows() {
        let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        data.extend(row.iter().map(|&v| (f64::from(v) / norm) as f32));
    }
    Embeddings::new(data, rows.dim())
}

#[track_caller]
fn assert_close(found: &Embeddings, expected: &Embeddings, tolerance: f32) {
    assert_eq!((found.len(), found.dim()), (expected.len(), expected.dim()));
    for (n, (found, expected)) in found.rows().zip(expected.rows()).enumerate() {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance, "row {n}: {f} is not {e}");
        }
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// OpenAI's preprocessing of a JPEG photo: decoding, resizing, cropping and normalizing.
#[test]
fn preprocessing_of_franz_kafka() {
    let Some(dir) = parity() else { return };
    let case = &published(&dir)["preprocess"];
    let expected = npy(&dir.join("preprocess/expected_preprocessed_image.npy"));
    let options = DecodeOptions::with_orientation(Orientation::Stored);
    let photo =
        decode_file(&dir.join(case["image"].as_str().unwrap()), Alpha::Drop, &options).unwrap().into_image();
    let (width, height) = photo.dimensions();
    let to_height = (224.0 * f64::from(height) / f64::from(width)) as u32;
    let y = (f64::from(to_height - 224) / 2.0).round_ties_even() as u32;
    let middle = Region { x: 0, y, width: 224, height: 224 };
    let square = resize(&photo, 224, to_height, Interpolation::Bicubic, middle);
    let [mean, std] = [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]]
        .map(|values| values.map(|v: f64| v as f32));
    let expected = expected.as_slice();
    for (p, pixel) in square.pixels().enumerate() {
        for c in 0..3 {
            let found = (f32::from(pixel.0[c]) / 255.0 - mean[c]) / std[c];
            let error = (found - expected[c * 224 * 224 + p]).abs();
            assert!(f64::from(error) <= case["atol"].as_f64().unwrap(), "pixel {p}, channel {c}: {error:e}");
        }
    }
}

#[test]
fn vit_b_32_on_clips_own_picture() {
    let Some(dir) = parity() else { return };
    let Some(model) = vit_b_32() else { return };
    let case = &published(&dir)["vit_b32_clip_png"];
    let image = dir.join(case["image"].as_str().unwrap());
    let images = model.encode_images(&[model.preprocess().load(&image).unwrap()]).unwrap();
    let texts = model.encode_texts(&strings(&case["texts"])).unwrap().embeddings;
    let of = |name: &str| unit(&npy(&dir.join("vit_b32_clip_png").join(name)));
    assert_close(&texts, &of("text_features.npy"), 2e-5);
    assert_close(&images, &of("image_features.npy"), 2e-5);
    let weights = texts.rows().map(|text| (f64::from(model.logit_scale()) * dot(images.row(0), text)).exp());
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    for (weight, expected) in weights.iter().zip(numbers(&case["probs"])) {
        let (found, atol) = (weight / sum, case["atol"].as_f64().unwrap());
        assert!((found - expected).abs() <= atol, "probability {found}, expected {expected}");
    }
}

/// The published features are not normalized, so a row is compared up to its length, which its sum and five components share.
#[track_caller]
fn check_row(what: &str, found: &[f32], first: Option<&Value>, sum: f64) {
    let found_sum: f64 = found.iter().map(|&v| f64::from(v)).sum();
    let first = first.map(numbers).unwrap_or_default();
    let length = match first.len() {
        0 => sum / found_sum,
        _ => {
            let products = first.iter().zip(found).map(|(&e, &f)| e * f64::from(f)).sum::<f64>();
            products / dot(&found[..first.len()], &found[..first.len()])
        }
    };
    assert!((1.0..100.0).contains(&length), "{what}: length {length}");
    for (&expected, &found) in first.iter().zip(found) {
        let found = length * f64::from(found);
        assert!((found - expected).abs() <= 2e-5 * length, "{what}: {found}, expected {expected}");
    }
    let relative = (length * found_sum - sum).abs() / sum.abs();
    assert!(relative < 1e-3, "{what}: sum {}, expected {sum}", length * found_sum);
}

fn franz_kafka(name: &str, model: &Model) {
    let Some(dir) = parity() else { return };
    let all = published(&dir);
    let case = &all["franz_kafka"];
    let expected = &case[name];
    let image = model.preprocess().load(&dir.join(case["image"].as_str().unwrap())).unwrap();
    let images = model.encode_images(&[image]).unwrap();
    let sum = expected["image_sum"].as_f64().unwrap();
    check_row("image", images.row(0), Some(&expected["image_first5"]), sum);
    let texts = model.encode_texts(&strings(&case["texts"])).unwrap().embeddings;
    for (n, sum) in numbers(&expected["text_sums"]).into_iter().enumerate() {
        let first = expected.get("text_first5_of_first").filter(|_| n == 0);
        check_row(&format!("text {n}"), texts.row(n), first, sum);
    }
}

#[test]
fn vit_b_32_on_franz_kafka() {
    if let Some(model) = vit_b_32() {
        franz_kafka("ViT-B/32", &model);
    }
}

#[test]
fn rn50_on_franz_kafka() {
    if let Some(model) = weights("RN50", &["timm/resnet50_clip.openai"]) {
        franz_kafka("RN50", &model);
    }
}

/// `labels.csv` says which label each photo has; OpenAI's ViT-B/32 names all of them.
#[test]
fn vit_b_32_names_the_hundred_photos() {
    let Some(dir) = parity().map(|dir| dir.join("labeled100")) else { return };
    let Some(model) = vit_b_32() else { return };
    let csv = std::fs::read_to_string(dir.join("labels.csv")).unwrap();
    let rows: Vec<(&str, &str)> = csv.lines().map(|line| line.split_once(',').unwrap()).collect();
    let mut labels: Vec<&str> = rows.iter().map(|row| row.1.trim()).collect();
    labels.sort_unstable();
    labels.dedup();
    let prompts: Vec<String> = labels.iter().map(|label| format!("a photo of {label}")).collect();
    let texts = model.encode_texts(&prompts).unwrap().embeddings;
    let mut right = 0;
    for (file, label) in &rows {
        let images = model.encode_images(&[model.preprocess().load(&dir.join(file)).unwrap()]).unwrap();
        let score = |n: &usize| dot(images.row(0), texts.row(*n));
        let best = (0..labels.len()).max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
        right += usize::from(labels[best] == label.trim());
    }
    assert_eq!((right, rows.len()), (100, 100));
}
