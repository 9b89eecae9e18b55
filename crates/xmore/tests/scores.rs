//! Softmax and sigmoid scores through the public API, against their formulas in f64.

use std::sync::Arc;

use image::RgbImage;
use xmore::{
    Answer, AnswerOptions, Embeddings, Encoder, Labels, Method, ModelIdentity, Pipeline, Pixels, QueryImage,
    Scores, Temperature, Template, TextEmbeddings, XmoreError,
};

const DIM: usize = 5;
const SCALE: f64 = 30.0;
const BIAS: f64 = -16.5;

/// A text is a direction that its bytes make up; images are given as embeddings.
struct Texts {
    identity: ModelIdentity,
    bias: f32,
}

impl Encoder for Texts {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn logit_scale(&self) -> f32 {
        SCALE as f32
    }

    fn logit_bias(&self) -> f32 {
        self.bias
    }

    fn prepare(&self, _: &RgbImage) -> Pixels {
        unreachable!("images are given as embeddings")
    }

    fn embed_images(&self, _: &[Pixels]) -> Result<Embeddings, XmoreError> {
        unreachable!("images are given as embeddings")
    }

    fn embed_texts(&self, texts: &[&str]) -> Result<TextEmbeddings, XmoreError> {
        let rows = texts.iter().flat_map(|text| direction(text)).map(|v| v as f32);
        Ok(TextEmbeddings { embeddings: Embeddings::new(rows.collect(), DIM), truncated: 0 })
    }
}

/// A unit vector, with a part that all texts share.
fn direction(text: &str) -> [f64; DIM] {
    let mut state =
        text.bytes().fold(7u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    unit(std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24)
    }))
}

fn unit(v: [f64; DIM]) -> [f64; DIM] {
    let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    v.map(|x| x / length)
}

fn pipeline(bias: f64, templates: &[&str]) -> Pipeline {
    let encoder =
        Texts { identity: ModelIdentity::new("texts", "texts, first version", DIM), bias: bias as f32 };
    let templates = templates.iter().map(|&template| Template::new(template).unwrap()).collect();
    Pipeline::builder(Arc::new(encoder)).templates(templates).build().unwrap()
}

fn options(method: Method, scores: Scores) -> AnswerOptions {
    AnswerOptions { scores, top: 9, explain: true, ..AnswerOptions::new(method) }
}

fn ask(pipeline: &Pipeline, labels: &[&str], options: &AnswerOptions) -> Result<Answer, XmoreError> {
    let classifier =
        pipeline.classifier(Labels::new(labels.iter().copied()).unwrap(), &[Method::Templates]).unwrap();
    let image = QueryImage::Embeddings(vec![direction("an image").map(|v| v as f32).to_vec()]);
    pipeline.classify(&classifier, &[image], options).unwrap().remove(0)
}

fn score(answer: &Answer, label: &str) -> f64 {
    answer.predictions.iter().find(|prediction| prediction.label == label).unwrap().score
}

const LABELS: [&str; 4] = ["cat", "dog", "zebra", "bird"];

/// s·cos, the cosine of the image and the unit mean of the label's prompts.
fn logit(label: &str, templates: &[&str]) -> f64 {
    let mut mean = [0.0; DIM];
    for template in templates {
        let prompt = direction(&template.replace("{}", label));
        mean.iter_mut().zip(prompt).for_each(|(sum, v)| *sum += v);
    }
    SCALE * unit(mean).iter().zip(direction("an image")).map(|(a, b)| a * b).sum::<f64>()
}

#[test]
fn sigmoids_are_of_the_mean_prompt_and_the_bias() {
    for (templates, method) in [
        (&["a {}"][..], Method::ZeroShot),
        (&["a {}", "photo of {}", "the {}."], Method::ZeroShot),
        (&["a {}", "photo of {}", "the {}."], Method::Templates),
    ] {
        let pipeline = pipeline(BIAS, templates);
        let answer = ask(&pipeline, &LABELS, &options(method, Scores::Sigmoid)).unwrap();
        assert_eq!(answer.score_function, Some("sigmoid"));
        for label in LABELS {
            let expected = 1.0 / (1.0 + (-(logit(label, templates) + BIAS)).exp());
            let found = score(&answer, label);
            assert!((found - expected).abs() < 1e-5, "{method}, {label}: {found}, {expected}");
            assert!((0.01..0.999_999).contains(&expected), "{label}: {expected} would show little");
        }
        // Without a bias the same order, by scores that add up to 1.
        let softmax = ask(&pipeline, &LABELS, &options(method, Scores::Softmax)).unwrap();
        let order = |answer: &Answer| answer.predictions.iter().map(|p| p.label.clone()).collect::<Vec<_>>();
        assert_eq!(order(&softmax), order(&answer));
        assert!((softmax.predictions.iter().map(|p| p.score).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(softmax.score_function, None);
        assert_eq!(softmax.image_confidence, answer.image_confidence);
        let distributions = [softmax, answer].map(|answer| answer.explanation.unwrap().image_distribution);
        assert_eq!(distributions[0], distributions[1]);
    }
}

#[test]
fn the_method_templates_has_its_own_prompts() {
    let pipeline = pipeline(BIAS, &["a {}"]);
    let templates: Vec<String> = Template::imagenet().iter().map(ToString::to_string).collect();
    let templates: Vec<&str> = templates.iter().map(String::as_str).collect();
    let answer = ask(&pipeline, &LABELS, &options(Method::Templates, Scores::Sigmoid)).unwrap();
    for label in LABELS {
        let expected = 1.0 / (1.0 + (-(logit(label, &templates) + BIAS)).exp());
        assert!((score(&answer, label) - expected).abs() < 1e-5, "{label}");
    }
}

#[test]
fn a_sigmoid_does_not_depend_on_the_other_labels() {
    let pipeline = pipeline(BIAS, &["a {}"]);
    let options = options(Method::ZeroShot, Scores::Sigmoid);
    let [all, two] = [&LABELS[..], &LABELS[..2]].map(|labels| ask(&pipeline, labels, &options).unwrap());
    for label in &LABELS[..2] {
        assert_eq!(score(&all, label), score(&two, label), "{label}");
    }
    // Below the least score the image shows none of the labels.
    let best = all.predictions[0].score;
    for (least, named) in [(best, true), (best + 1e-9, false)] {
        let options = AnswerOptions { min_score: Some(least), ..options };
        assert_eq!(ask(&pipeline, &LABELS, &options).unwrap().label.is_some(), named);
    }
}

#[test]
fn a_bias_makes_no_difference_to_a_softmax() {
    let answers = [0.0, BIAS].map(|bias| {
        let options = options(Method::ZeroShot, Scores::Softmax);
        ask(&pipeline(bias, &["a {}"]), &LABELS, &options).unwrap()
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_temperature_is_not_of_sigmoids() {
    let pipeline = pipeline(BIAS, &["a {}"]);
    let plain = options(Method::ZeroShot, Scores::Sigmoid);
    let calibrated =
        AnswerOptions { temperature: Temperature::new(3.0), calibrated_min_score: Some(1.0), ..plain };
    let answer = ask(&pipeline, &LABELS, &calibrated).unwrap();
    assert_eq!((answer.calibrated, answer.temperature), (Some(false), None));
    assert_eq!(Answer { calibrated: None, ..answer }, ask(&pipeline, &LABELS, &plain).unwrap());
}

#[test]
fn what_has_no_sigmoids_is_told() {
    let (sigmoid, softmax) = (pipeline(BIAS, &["a {}"]), pipeline(0.0, &["a {}"]));
    for method in Method::ALL {
        let has = matches!(method, Method::ZeroShot | Method::Templates);
        assert_eq!(method.has_sigmoids(), has, "{method}");
        let checked = Scores::Sigmoid.check(&**sigmoid.encoder(), method);
        let answered = ask(&sigmoid, &LABELS, &options(method, Scores::Sigmoid)).map(|_| ());
        for result in [checked, answered] {
            match result {
                Ok(()) => assert!(has, "{method}"),
                Err(XmoreError::MethodWithoutSigmoids { method: named }) => {
                    assert!(!has && named == method.name());
                }
                Err(error) => panic!("{method}: {error}"),
            }
        }
        assert!(Scores::Softmax.check(&**softmax.encoder(), method).is_ok());
    }
    let checked = Scores::Sigmoid.check(&**softmax.encoder(), Method::ZeroShot);
    let answered = ask(&softmax, &LABELS, &options(Method::ZeroShot, Scores::Sigmoid)).map(|_| ());
    for result in [checked, answered] {
        assert!(matches!(result, Err(XmoreError::ModelWithoutSigmoids)), "{result:?}");
    }
    let message = "sigmoids".parse::<Scores>().unwrap_err().to_string();
    assert!(message.contains("softmax, sigmoid"), "{message}");
}
