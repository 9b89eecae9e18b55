//! Probabilities from published features of the real OpenAI ViT-B/32, in `../shared/data/parity` beside the repository.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The rows of a `.npy` file of f32, each made a unit vector.
fn unit_rows(path: &Path) -> Vec<Vec<f64>> {
    let file = npyz::NpyFile::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).unwrap();
    let dim = *file.shape().last().unwrap() as usize;
    let values = file.into_vec::<f32>().unwrap();
    let unit = |row: &[f32]| {
        let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|&v| f64::from(v) / norm).collect()
    };
    values.chunks(dim).map(unit).collect()
}

#[test]
fn softmax_gives_the_published_probabilities() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/parity");
    let dir = std::env::var_os("XMORE_DATA").map_or(dir, |data| PathBuf::from(data).join("parity"));
    let Ok(text) = std::fs::read(dir.join("expected.json")) else {
        // Past the test harness, which would keep the line to itself.
        let line =
            format!("skipped: no {}/expected.json (XMORE_DATA names the data folder)\n", dir.display());
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    };
    let case = &serde_json::from_slice::<Value>(&text).unwrap()["vit_b32_clip_png"];
    let image = &unit_rows(&dir.join("vit_b32_clip_png/image_features.npy"))[0];
    let texts = unit_rows(&dir.join("vit_b32_clip_png/text_features.npy"));
    assert_eq!(texts.len(), case["texts"].as_array().unwrap().len());
    let dot = |text: &Vec<f64>| image.iter().zip(text).map(|(a, b)| a * b).sum::<f64>();
    // The model's logit scale is 100.
    let logits: Vec<f64> = texts.iter().map(|text| 100.0 * dot(text)).collect();
    let expected = case["probs"].as_array().unwrap();
    for (found, expected) in xmore::softmax(&logits).into_iter().zip(expected) {
        let error = (found - expected.as_f64().unwrap()).abs();
        assert!(error <= case["atol"].as_f64().unwrap(), "{found}, expected {expected}");
    }
}
