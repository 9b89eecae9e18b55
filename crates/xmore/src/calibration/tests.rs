//! Temperatures against values known otherwise, and files that are refused.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::probabilities::argmax;
use xmore_files::image::Orientation;
use xmore_memory::store::ModelIdentity;

fn fitted() -> MethodCalibration {
    MethodCalibration {
        method: Method::ZeroShot,
        temperature: 1.5,
        at_bound: false,
        threshold: Some(Threshold {
            min_score: 0.7,
            target_precision: 0.9,
            confidence: 0.95,
            answered: 60,
            right: 59,
        }),
        photos: 100,
        unreadable: 1,
        dataset: "photos".to_owned(),
        labels: LabelSet::of(&Labels::new(["cat", "dog"]).unwrap()),
        before: Fit { ece: 0.2, nll: 0.9 },
        after: Fit { ece: 0.1, nll: 0.8 },
        fitted_with: FittedWith {
            model: ModelIdentity::new("lite", "00ff", 4),
            orientation: Orientation::Exif,
            preparation: None,
            templates: Some(vec!["a photo of a {}.".to_owned()]),
            pairs: None,
        },
    }
}

#[test]
fn a_softmax_has_its_logits_divided() {
    let logits = [2.0, -1.0, 0.5];
    let halved: Vec<f64> = logits.iter().map(|l| l / 2.0).collect();
    let found = Temperature::new(2.0).unwrap().apply(&softmax(&logits));
    for (found, expected) in found.iter().zip(softmax(&halved)) {
        assert!((found - expected).abs() < 1e-15, "{found} {expected}");
    }
    // 0.8² / (0.8² + 0.2²) = 16/17.
    let squared = Temperature::new(0.5).unwrap().apply(&[0.8, 0.2]);
    assert!((squared[0] - 16.0 / 17.0).abs() < 1e-15, "{squared:?}");
    let of_zero = Temperature::new(20.0).unwrap().apply(&[1.0, 0.0]);
    assert!(of_zero[1] > 0.0 && of_zero[0] < 1.0, "{of_zero:?}");
    for outside in [0.0, -1.0, 0.049, 20.1, f64::NAN, f64::INFINITY] {
        assert_eq!(Temperature::new(outside), None, "{outside}");
    }
}

proptest! {
    #[test]
    fn a_calibrated_distribution_is_one_with_the_same_answer(
        weights in proptest::collection::vec(0.0f64..1.0, 2..30), t in 0.05f64..20.0,
    ) {
        let sum: f64 = weights.iter().sum();
        prop_assume!(sum > 0.0);
        let scores: Vec<f64> = weights.iter().map(|w| w / sum).collect();
        let found = Temperature::new(t).unwrap().apply(&scores);
        prop_assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        // Scores that differ by rounding alone may become equal.
        prop_assert!(found[argmax(&scores)] == found[argmax(&found)]);
    }
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.json");
    let written = Calibration::new(vec![fitted(), MethodCalibration { method: Method::Xmore, ..fitted() }]);
    written.write(&path).unwrap();
    let read = Calibration::read(&path).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.of(Method::Xmore).unwrap().temperature().value(), 1.5);
    let message = read.of(Method::Kernel).unwrap_err().to_string();
    assert!(message.contains("xmore-kernel, only for zero-shot, xmore"), "{message}");
}

#[test]
fn files_that_no_fit_gives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.json");
    Calibration::new(vec![fitted()]).write(&path).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let twice =
        serde_json::to_string(&File { format_version: 1, methods: vec![fitted(), fitted()] }).unwrap();
    for (bad, reason) in [
        (good.replace("\"temperature\": 1.5", "\"temperature\": 0.0"), "temperature 0 is not in 0.05..=20"),
        (good.replace("\"temperature\": 1.5", "\"temperature\": 1e300"), "is not in"),
        (good.replace("\"temperature\": 1.5", "\"temperature\": null"), "invalid type"),
        (good.replace("\"min_score\": 0.7", "\"min_score\": 1.7"), "its threshold"),
        (good.replace("\"right\": 59", "\"right\": 61"), "its threshold"),
        (good.replace("\"photos\": 100", "\"photos\": 0"), "no photos"),
        (good.replace("zero-shot", "one-shot"), "no method \"one-shot\""),
        (good.replace("\"format_version\": 1", "\"format_version\": 2"), "format version 2"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        (twice, "method zero-shot is there twice"),
        ("[]".to_owned(), "not a calibration"),
        (String::new(), "EOF"),
    ] {
        assert_ne!(bad, good, "{reason}");
        fs::write(&path, bad).unwrap();
        let message = Calibration::read(&path).unwrap_err().to_string();
        assert!(message.contains(reason) && message.contains("c.json"), "{message}");
    }
    let message = Calibration::read(&dir.path().join("none")).unwrap_err().to_string();
    assert!(message.starts_with("cannot read"), "{message}");
}

#[test]
fn what_it_was_fitted_with_is_compared_thing_by_thing() {
    let calibration = Calibration::new(vec![fitted()]);
    let used = fitted().fitted_with;
    let method = Method::ZeroShot;
    // A name is for people.
    let renamed = FittedWith { model: ModelIdentity::new("copy", "00ff", 4), ..used.clone() };
    assert!(calibration.for_use(method, &renamed).is_ok());
    let pairs = PairsUsed {
        memory: "sha256:1".to_owned(),
        rows: None,
        caption_filter: None,
        query_duplicates_above: None,
        captions: None,
    };
    for (other, message) in [
        (
            FittedWith { model: ModelIdentity::new("lite", "0100", 4), ..used.clone() },
            "with model lite (fingerprint 00ff), found lite (fingerprint 0100)",
        ),
        (FittedWith { orientation: Orientation::Stored, ..used.clone() }, "orientation exif, found stored"),
        (FittedWith { templates: None, ..used.clone() }, "prompts a photo of a {}., found none"),
        (FittedWith { pairs: Some(pairs), ..used.clone() }, "memory none, found sha256:1"),
    ] {
        let found = calibration.for_use(method, &other).unwrap_err().to_string();
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn other_labels_are_warned_of() {
    let fitted = fitted();
    let warning = |labels: &str| fitted.label_warning(&Labels::parse(labels).unwrap());
    assert_eq!(warning("dog,cat"), None);
    let text = warning("cat,dog,bird").unwrap();
    assert!(text.contains("2 of photos; here are 3"), "{text}");
    assert!(warning("cat,dogs").is_some());
    // Captions that name a label by a synonym change what xmore-kernel answers.
    assert!(warning(r#"[{"label": "cat", "synonyms": ["kitty"]}, "dog"]"#).is_some());
}
