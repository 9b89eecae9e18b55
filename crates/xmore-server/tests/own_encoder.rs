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
struct Colors(ModelIdentity);

impl Colors {
    fn new() -> Self {
        Self(ModelIdentity::new("colors", "colors, first version", 3))
    }
}

impl Encoder for Colors {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn logit_scale(&self) -> f32 {
        10.0
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
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap()
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
    let found = send(addr, "POST /v1/retrieve?n=1", &bluish);
    assert_eq!(found["results"][0]["pairs"][0]["caption"], "something blue", "{found}");
    let embedded = send(addr, "POST /v1/embed", &bluish);
    assert_eq!((&embedded["model"], &embedded["dim"]), (&json!("colors"), &json!(3)));

    let info = send(addr, "GET /v1/info", b"");
    let expected = json!({
        "name": "colors", "fingerprint": "colors, first version", "dim": 3, "image_size": null, "logit_scale": 10.0, "device": null
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
