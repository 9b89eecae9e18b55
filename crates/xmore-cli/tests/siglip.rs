//! A SigLIP from the command line: its scores against transformers' pipeline, and what is done to its texts.

mod support;

use serde_json::Value;
use support::{fixture, tiny_model, xmore};

fn siglip(layout: &str) -> String {
    format!("--model=local-dir:{}", fixture("towers/siglip_scores").join(layout).display())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn sigmoid_scores_are_those_of_transformers_pipeline() {
    let expected = json(&std::fs::read_to_string(fixture("towers/siglip_scores.json")).unwrap());
    let images = expected["images"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let images: Vec<String> = images.map(|name| fixture("images").join(name).display().to_string()).collect();
    let labels: Vec<&str> =
        expected["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    let model = siglip("transformers");
    let template = format!("--template={}", expected["template"].as_str().unwrap());
    let list = format!("--labels={}", labels.join(","));
    let mut args = vec!["classify", &model, &list, &template, "--scores=sigmoid", "--format=json"];
    args.extend(images.iter().map(String::as_str));
    let found = json(&xmore(&args).ok());
    for (image, scores) in found.as_array().unwrap().iter().zip(expected["scores"].as_array().unwrap()) {
        assert_eq!(image["score_function"], "sigmoid");
        for (label, score) in labels.iter().zip(scores.as_array().unwrap()) {
            let (found, score) = (image["scores"][label].as_f64().unwrap(), score.as_f64().unwrap());
            assert!((found - score).abs() <= 1e-5, "{label}: {found}, expected {score}");
        }
    }
}

#[test]
fn texts_are_cleaned_as_the_folder_says_or_as_is_chosen() {
    let info = |layout: &str| {
        json(&xmore(&["model", "info", &siglip(layout)["--model=".len()..], "--format=json"]).ok())
    };
    assert_eq!(info("open_clip")["texts"], "canonicalize");
    assert_eq!(info("transformers")["texts"], "siglip");
    assert_eq!(info("open_clip")["logit_bias"], -1.5);
    let image = fixture("images/same.png").display().to_string();
    let model = siglip("open_clip");
    let similarity = |label: &str, more: &[&str]| {
        let labels = format!("--labels={label},water");
        let args = [&["classify", &model, &labels, "--template={}", "--format=json", &image], more].concat();
        json(&xmore(&args).ok())[0]["predictions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|prediction| prediction["label"] == label)
            .unwrap()["similarity"]
            .clone()
    };
    // A canonical text has no signs and no capitals.
    assert_eq!(similarity("A Dog!", &[]), similarity("a dog", &[]));
    let whitespace = &["--clean-texts=whitespace"][..];
    assert_ne!(similarity("A Dog!", whitespace), similarity("a dog", whitespace));
    let refused = xmore(&["classify", &tiny_model(), "--labels=a,b", &image, "--clean-texts=lower"]).fails(1);
    assert!(refused.contains("cleans texts by itself") && refused.contains("--clean-texts"), "{refused}");
    let unknown = xmore(&["classify", &model, "--labels=a,b", &image, "--clean-texts=tidy"]).fails(2);
    assert!(unknown.contains("canonicalize"), "{unknown}");
}
