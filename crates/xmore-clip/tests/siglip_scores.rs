//! SigLIP from photo and caption to score: its tokenizers, its padding, and its sigmoids (see `fixtures/make_towers.py`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use xmore_clip::{Embeddings, Model};

/// Largest difference of a component of a unit embedding.
const TOLERANCE: f32 = 2e-5;

#[derive(Deserialize)]
struct Expected {
    images: Vec<String>,
    labels: Vec<String>,
    template: String,
    /// Of transformers' pipeline, `[images, labels]`.
    scores: Vec<Vec<f64>>,
    captions: Vec<String>,
    transformers_embeddings: Vec<Vec<f32>>,
    open_clip_embeddings: Vec<Vec<f32>>,
    unpadded_ids: Vec<Vec<u32>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixtures().join("towers/siglip_scores.json")).unwrap()).unwrap()
}

fn model(layout: &str) -> Model {
    Model::load(fixtures().join("towers/siglip_scores").join(layout)).unwrap()
}

fn largest_difference(found: &Embeddings, expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.rows().flatten().zip(expected.iter().flatten());
    pairs.map(|(f, e)| (f - e).abs()).fold(0.0, f32::max)
}

#[test]
fn scores_are_those_of_transformers_pipeline() {
    let (expected, model) = (expected(), model("transformers"));
    assert!(model.logit_bias() < -1.0, "it was trained with sigmoids");
    let pixels: Vec<_> = expected
        .images
        .iter()
        .map(|name| model.preprocess().load(&fixtures().join("images").join(name)).unwrap())
        .collect();
    let prompts: Vec<_> =
        expected.labels.iter().map(|label| expected.template.replace("{}", label)).collect();
    let images = model.encode_images(&pixels).unwrap();
    let texts = model.encode_texts(&prompts).unwrap().embeddings;
    for (image, scores) in images.rows().zip(&expected.scores) {
        for (text, score) in texts.rows().zip(scores) {
            let cosine: f64 = image.iter().zip(text).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let logit = f64::from(model.logit_scale()) * cosine + f64::from(model.logit_bias());
            let found = 1.0 / (1.0 + (-logit).exp());
            assert!((found - score).abs() <= 1e-5, "{found}, expected {score}");
        }
    }
}

#[test]
fn each_layout_reads_texts_as_its_own_library() {
    let expected = expected();
    for (layout, rows) in
        [("transformers", &expected.transformers_embeddings), ("open_clip", &expected.open_clip_embeddings)]
    {
        let found = model(layout).encode_texts(&expected.captions).unwrap().embeddings;
        let difference = largest_difference(&found, rows);
        assert!(difference <= TOLERANCE, "{layout}: {difference:e}");
    }
}

/// Padding is a part of what SigLIP's text tower reads: without it embeddings are others.
#[test]
fn texts_without_their_padding_are_others() {
    let (expected, model) = (expected(), model("transformers"));
    let unpadded: Vec<&[u32]> = expected.unpadded_ids.iter().map(Vec::as_slice).collect();
    for (caption, ids) in expected.captions.iter().zip(&unpadded) {
        let padded = model.tokenize(caption).unwrap().ids;
        assert_eq!(padded.len(), model.context_length());
        assert_eq!(padded[..ids.len()], **ids);
    }
    let wrong = model.encode_token_ids(&unpadded).unwrap();
    let short = 0;
    let cosine: f32 =
        wrong.row(short).iter().zip(&expected.transformers_embeddings[short]).map(|(a, b)| a * b).sum();
    assert!(cosine < 0.999, "padding should matter, cosine {cosine}");
}
