//! A server over an encoder that is not one of xmore's models: it classifies, retrieves and tells what it serves over HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use image::codecs::png::PngEncoder;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use xmore::{
    BuildOptions, Embeddings, Encoder, IfUnreachable, ModelIdentity, OpenPairs, Pixels, TextEmbeddings,
    XmoreError, build_memory,
};
use xmore_server::{PairsSource, ServeOptions, ServedModels};

const COLORS: [(&str, [u8; 3]); 3] =
    [("red", [250, 10, 10]), ("green", [10, 250, 10]), ("blue", [10, 10, 250])];

/// An image is its mean color, a text the color that it names.
struct Colors {
    identity: ModelIdentity,
    bias: f32,
}

impl Colors {
    fn new() -> Self {
        Self::with_bias(0.0)
    }

    fn with_bias(bias: f32) -> Self {
        Self { identity: ModelIdentity::new("colors", "colors, first version", 3), bias }
    }
}

impl Encoder for Colors {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn logit_scale(&self) -> f32 {
        10.0
    }

    fn logit_bias(&self) -> f32 {
        self.bias
    }

    fn prepare(&self, image: &RgbImage) -> Pixels {
        // Black has no direction.
        let mean = |c: usize| {
            image.pixels().map(|p| f32::from(p[c]) + 1.0).sum::<f32>() / image.pixels().len() as f32
        };
        Pixels::new((0..3).map(mean).collect())
    }

    fn embed_images(&self, images: &[Pixels]) -> Result<Embeddings, XmoreError> {
        Ok(unit_rows(images.iter().map(|image| image.as_slice().try_into().expect("three values"))))
    }

    fn embed_texts(&self, texts: &[&str]) -> Result<TextEmbeddings, XmoreError> {
        let named = |text: &&str| COLORS.iter().find(|(name, _)| text.contains(name));
        let rows = texts.iter().map(|text| named(text).map_or([1.0; 3], |(_, color)| color.map(f32::from)));
        Ok(TextEmbeddings { embeddings: unit_rows(rows), truncated: 0 })
    }
}

fn unit_rows(rows: impl Iterator<Item = [f32; 3]>) -> Embeddings {
    let unit = |row: [f32; 3]| row.map(|v| v / row.iter().map(|v| v * v).sum::<f32>().sqrt());
    Embeddings::new(rows.flat_map(unit).collect(), 3)
}

fn png(color: [u8; 3]) -> Vec<u8> {
    let mut png = Vec::new();
    RgbImage::from_pixel(8, 8, Rgb(color)).write_with_encoder(PngEncoder::new(&mut png)).unwrap();
    png
}

/// Starts a server in a thread that ends with the process.
fn serve(models: ServedModels, pairs: Option<Arc<OpenPairs>>) -> SocketAddr {
    let mut options = ServeOptions::default();
    options.addr.set_port(0);
    let (ready, address) = channel();
    std::thread::spawn(move || xmore_server::run(models, pairs, options, |addr| ready.send(addr).unwrap()));
    address.recv_timeout(Duration::from_secs(60)).expect("the server starts")
}

fn send(addr: SocketAddr, head: &str, body: &[u8]) -> Value {
    let (status, answer) = try_send(addr, head, body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The status and the answer.
fn try_send(addr: SocketAddr, head: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(addr).unwrap();
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: image/png\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn another_encoder_classifies_with_a_memory_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, memory) = (folder.path().join("photos"), folder.path().join("memory"));
    fs::create_dir(&photos).unwrap();
    for (name, color) in COLORS {
        fs::write(photos.join(format!("{name}.png")), png(color)).unwrap();
        fs::write(photos.join(format!("{name}.txt")), format!("something {name}")).unwrap();
    }
    build_memory(&Colors::new(), &[photos], &memory, &BuildOptions::default(), &mut |_| true).unwrap();

    let source = PairsSource {
        location: memory.display().to_string(),
        remote: Default::default(),
        device: Default::default(),
        caption_filter: None,
        rows: None,
        if_unreachable: IfUnreachable::Fail,
    };
    let pairs = source.open().unwrap().pairs;
    let models = ServedModels { pairs: Some(source), ..ServedModels::new(Arc::new(Colors::new())) };
    let addr = serve(models, pairs);

    let bluish = png([20, 60, 200]);
    for method in ["zero-shot", "xmore", "xmore-kernel"] {
        let path = format!("POST /v1/classify?labels=red,green,blue&method={method}");
        let answer = send(addr, &path, &bluish);
        assert_eq!((&answer["model"], &answer["method"]), (&json!("colors"), &json!(method)), "{answer}");
        assert_eq!(answer["results"][0]["label"], "blue", "{answer}");
    }
    let (_, answer) = try_send(addr, "POST /v1/classify?labels=red,blue&scores=sigmoid", &bluish);
    assert!(answer["error"]["message"].as_str().unwrap().contains("xmore-kernel"), "{answer}");
    let found = send(addr, "POST /v1/retrieve?n=1", &bluish);
    assert_eq!(found["results"][0]["pairs"][0]["caption"], "something blue", "{found}");
    let embedded = send(addr, "POST /v1/embed", &bluish);
    assert_eq!((&embedded["model"], &embedded["dim"]), (&json!("colors"), &json!(3)));

    let info = send(addr, "GET /v1/info", b"");
    let expected = json!({
        "name": "colors", "fingerprint": "colors, first version", "dim": 3, "image_size": null, "logit_scale": 10.0, "logit_bias": 0.0, "device": null
    });
    assert_eq!(info["model"], expected);
    assert_eq!(info["memory"]["pairs"], 3);
    assert_eq!(info["memory"]["device"], "cpu");
}

#[test]
fn another_encoder_classifies_without_pairs() {
    let addr = serve(ServedModels::new(Arc::new(Colors::new())), None);
    let answer = send(addr, "POST /v1/classify?labels=red,green", &png([10, 200, 30]));
    assert_eq!((&answer["method"], &answer["results"][0]["label"]), (&json!("zero-shot"), &json!("green")));
}

#[test]
fn an_encoder_with_a_bias_scores_each_label_by_itself() {
    let addr = serve(ServedModels::new(Arc::new(Colors::with_bias(-8.0))), None);
    let reddish = png([200, 60, 20]);
    let ask =
        |more: &str| try_send(addr, &format!("POST /v1/classify?labels=red,green,blue{more}"), &reddish);
    let (status, answer) = ask("&scores=sigmoid");
    assert_eq!((status, &answer["results"][0]["score_function"]), (200, &json!("sigmoid")), "{answer}");
    let (_, softmax) = ask("&scores=softmax");
    assert_eq!(softmax["results"][0].get("score_function"), None, "{softmax}");
    let [predictions, others] =
        [&answer, &softmax].map(|answer| answer["results"][0]["predictions"].as_array().unwrap());
    for (prediction, other) in predictions.iter().zip(others) {
        assert_eq!(prediction["label"], other["label"]);
        let score = prediction["score"].as_f64().unwrap();
        let expected = 1.0 / (1.0 + (8.0 - 10.0 * prediction["similarity"].as_f64().unwrap()).exp());
        assert!((score - expected).abs() < 1e-6, "{score}, {expected}");
    }
    for (more, names) in [("&scores=sigmoids", "softmax, sigmoid"), ("&scores=", "softmax, sigmoid")] {
        let (status, answer) = ask(more);
        assert_eq!((status, &answer["error"]["code"]), (422, &json!("invalid_parameter")), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(names), "{answer}");
    }
    let addr = serve(ServedModels::new(Arc::new(Colors::new())), None);
    let (status, answer) = try_send(addr, "POST /v1/classify?labels=red,green&scores=sigmoid", &reddish);
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("invalid_parameter")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("logit bias"), "{answer}");
}
