//! Commands on an NVIDIA GPU against the same on the processor. Without one each test says that it is skipped, or fails where
//! `XMORE_REQUIRE_GPU` is set.

mod support;

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use support::files::{Random, picture, source};
use support::{fixture, tiny_model, xmore_in};
use xmore::{DeviceChoice, Encoder, NamedModel, OpenPairs, dot, encode_files};
use xmore_clip::Model;
use xmore_memory::store::MemoryWriter;

/// Largest difference of a probability or a similarity.
const TOLERANCE: f64 = 1e-4;

/// Whether the first GPU can be used. The line is written past the test harness, which keeps what passing tests print.
fn gpu() -> bool {
    match DeviceChoice::Cuda(0).gpu() {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            let line = format!("SKIPPED: no NVIDIA GPU: {error}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            false
        }
    }
}

/// What a command prints as JSON on a device, and its messages.
#[track_caller]
fn on_device(dir: &Path, device: &str, args: &[&str]) -> (Value, String) {
    let model = tiny_model();
    let run = xmore_in(dir, &[args, &["--format", "json", "--device", device, &model]].concat()).run();
    assert_eq!(run.code, 0, "{args:?} on {device}: {}", run.stderr);
    (serde_json::from_str(&run.stdout).unwrap(), run.stderr)
}

/// What a command prints as JSON on the processor and on the GPU, and its messages there.
#[track_caller]
fn on_both(dir: &Path, args: &[&str]) -> ([Value; 2], String) {
    let ((cpu, quiet), (cuda, told)) = (on_device(dir, "cpu", args), on_device(dir, "cuda", args));
    assert!(!quiet.contains("encoding on"), "{quiet}");
    assert_eq!(told.matches("encoding on").count(), 1, "{told}");
    ([cpu, cuda], told)
}

/// Numbers may differ by the tolerance, times by anything; nothing else differs.
fn assert_close(place: &str, cpu: &Value, cuda: &Value) {
    match (cpu, cuda) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= TOLERANCE * a.abs().max(1.0), "{place}: {a} on cpu, {b} on cuda");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_close(&format!("{place}[{i}]"), a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{place}: {cpu} and {cuda}");
            for (name, a) in a.iter().filter(|(name, _)| *name != "seconds") {
                assert_close(&format!("{place}.{name}"), a, &b[name]);
            }
        }
        _ => assert_eq!(cpu, cuda, "{place}"),
    }
}

/// A memory of as many pairs as a GPU searches. The cosines of `NEAR` of them with the photo's embedding are far from each other and from all others,
/// so that the last bits of that embedding do not change their order.
fn large_memory(folder: &Path, photo: &Path) {
    const NEAR: u64 = 20;
    let model = NamedModel::new("tiny", Model::load(fixture("tiny")).unwrap());
    let encoded = encode_files(&model, &[photo.to_owned()], &mut |_| {}).unwrap();
    let query = encoded.embeddings.as_slice();
    let mut random = Random(1);
    let mut row = |cosine: f32| {
        let direction: Vec<f32> = query.iter().map(|_| random.unit() as f32 - 0.5).collect();
        let along = dot(&direction, query);
        let across: Vec<f32> = direction.iter().zip(query).map(|(d, q)| d - along * q).collect();
        let scale = ((1.0 - cosine * cosine) / dot(&across, &across)).sqrt();
        across.iter().zip(query).map(|(a, q)| a * scale + cosine * q).collect::<Vec<f32>>()
    };
    let mut writer = MemoryWriter::create(folder, model.identity().clone()).unwrap();
    let step = OpenPairs::MIN_GPU_PAIRS / NEAR;
    for i in 0..OpenPairs::MIN_GPU_PAIRS {
        let near = i % step == 37 && i / step < NEAR;
        let row = row(if near { 0.95 - 0.02 * (i / step) as f32 } else { 0.0 });
        writer.push(&format!("{i}.png"), &format!("picture {i}"), &row, &row).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn classify_gives_the_labels_and_probabilities_of_the_processor() {
    if !gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    source(dir.path(), 40, 2);
    (100..105).for_each(|seed| picture(&dir.path().join(format!("{seed}.png")), seed));
    let build = ["memory", "build", "@pairs.csv", "-o", "@memory", "--max-skipped", "50%", "--device", "cpu"];
    let built = xmore_in(dir.path(), &[&build[..], &[&tiny_model()]].concat()).run();
    assert_eq!(built.code, 0, "{}", built.stderr);
    let classify = [
        "classify",
        "@100.png",
        "@101.png",
        "@102.png",
        "@103.png",
        "@104.png",
        "--labels",
        "picture number,zebra,told",
    ];
    for more in [&[][..], &["--memory", "@memory", "--method", "xmore"], &["--memory", "@memory"]] {
        let ([cpu, cuda], told) = on_both(dir.path(), &[&classify[..], more].concat());
        assert_close("", &cpu, &cuda);
        assert!(!told.contains("searching"), "the memory is small: {told}");
    }
}

#[test]
fn a_large_memory_is_searched_on_the_gpu_with_the_same_pairs() {
    if !gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let photo = dir.path().join("query.png");
    picture(&photo, 100);
    large_memory(&dir.path().join("memory"), &photo);
    let search = ["memory", "search", "@memory", "-n", "10", "--image", "@query.png"];
    let classify =
        ["classify", "@query.png", "--labels", "picture,zebra", "--method", "xmore", "--memory", "@memory"];
    let in_captions = [&search[..], &["--in", "captions"]].concat();
    let of_rows = [&search[..], &["--rows", "1000..90000"]].concat();
    for args in [&search[..], &in_captions, &of_rows, &classify] {
        let ([cpu, cuda], told) = on_both(dir.path(), args);
        assert_close("", &cpu, &cuda);
        assert_eq!(told.matches("searching the memory on").count(), 1, "{told}");
    }

    let (cpu, _) = on_device(dir.path(), "cpu", &search);
    let model = tiny_model();
    let serve = ["serve", "--memory", "@memory", "--addr", "127.0.0.1:0", "--device", "cuda", &model];
    let server = xmore_in(dir.path(), &serve).serve();
    for generation in [1, 2] {
        let info = server.get("/v1/info").ok();
        assert_eq!(info["memory"]["generation"], generation);
        assert!(info["model"]["device"].as_str().is_some_and(|device| device != "cpu"), "{info}");
        assert_eq!(info["memory"]["device"], info["model"]["device"]);
        let found = server.post("/v1/retrieve?n=10", "image/png", &std::fs::read(&photo).unwrap()).ok();
        let ids = |pairs: &Value| -> Vec<u64> {
            pairs.as_array().unwrap().iter().map(|pair| pair["id"].as_u64().unwrap()).collect()
        };
        assert_eq!(ids(&found["results"][0]["pairs"]), ids(&cpu));
        server.post_json("/v1/reload", &json!({})).ok();
    }
}
