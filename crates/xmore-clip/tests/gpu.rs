//! Embeddings of a GPU against the processor's, for every architecture. Needs an NVIDIA GPU: elsewhere the tests say that they are skipped, or fail where
//! `XMORE_REQUIRE_GPU` is set.

use std::path::PathBuf;

use xmore_clip::{ClipError, DeviceChoice, Embeddings, LoadOptions, Model, Pixels, Precision};
use xmore_cuda::{Buffer, Device};

/// Every architecture: lite's towers, CLIP's ViT with both activations, its ResNet.
const MODELS: [&str; 5] = [
    "tiny",
    "clip/vit_gelu/open_clip",
    "clip/vit_quickgelu/open_clip",
    "clip/vit_gelu/transformers",
    "clip/rn/openai.pt",
];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("XMORE_FIXTURES").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures").to_owned(),
        |folder| folder.to_string_lossy().into_owned(),
    ))
    .join(name)
}

/// A model on the GPU; `None`, said aloud, without one or where it does not compute in the precision.
fn on_gpu(name: &str, precision: Precision) -> Option<Model> {
    let mut options = LoadOptions::default();
    options.device = DeviceChoice::Cuda(0);
    options.precision = precision;
    match Model::load_with(fixture(name), &options) {
        Ok(model) => Some(model),
        Err(error @ (ClipError::Device(_) | ClipError::Precision { .. })) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Images of random values and short texts of words, as many as are wanted.
fn images(model: &Model, count: usize) -> Vec<Pixels> {
    let side = model.preprocess().size() as usize;
    let mut state = 12_345u64;
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| Pixels::new((0..side * side * 3).map(|_| value() * 2.0).collect())).collect()
}

/// Token ids of several lengths: start, others, end.
fn texts(model: &Model, count: usize) -> Vec<Vec<u32>> {
    let sample = model.tokenize("a").map(|tokens| tokens.ids);
    let (start, end) = match &sample {
        Ok(ids) => (ids[0], ids[ids.len() - 1]),
        // The fixtures with a vocabulary of their own and no tokenizer: 96 tokens, the end's id the largest.
        Err(_) => (94, 95),
    };
    let text = |n: usize| {
        let length = n * 7 % (model.context_length() - 2);
        [start]
            .into_iter()
            .chain((0..length).map(|i| ((n * 13 + i * 5) % 90 + 1) as u32))
            .chain([end])
            .collect()
    };
    (0..count).map(text).collect()
}

fn encode_texts(model: &Model, texts: &[Vec<u32>]) -> Embeddings {
    model.encode_token_ids(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn max_difference(a: &Embeddings, b: &Embeddings) -> f32 {
    assert_eq!(a.rows().len(), b.rows().len());
    a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn least_cosine(a: &Embeddings, b: &Embeddings) -> f32 {
    let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    a.rows().zip(b.rows()).map(dot).fold(1.0, f32::min)
}

#[test]
fn f32_agrees_with_the_processor() {
    for name in MODELS {
        let Some(gpu) = on_gpu(name, Precision::F32) else { return };
        let cpu = Model::load(fixture(name)).unwrap();
        let images = images(&cpu, 9);
        let difference =
            max_difference(&gpu.encode_images(&images).unwrap(), &cpu.encode_images(&images).unwrap());
        println!("{name}: images differ by {difference:e}");
        // lite's heads subtract most of a feature: what is left carries its error at up to ten times the relative size.
        let bound = if name == "tiny" { 1e-4 } else { 2e-5 };
        assert!(difference <= bound, "{name}: images differ by {difference:e}");
        let texts = texts(&cpu, 33);
        let difference = max_difference(&encode_texts(&gpu, &texts), &encode_texts(&cpu, &texts));
        println!("{name}: texts differ by {difference:e}");
        assert!(difference <= 2e-5, "{name}: texts differ by {difference:e}");
        let features =
            max_difference(&gpu.image_features(&images).unwrap(), &cpu.image_features(&images).unwrap());
        assert!(features <= 1e-3, "{name}: features differ by {features:e}");
    }
}

#[test]
fn sixteen_and_eight_bits_are_close() {
    for (precision, bound) in [(Precision::F16, 0.9999), (Precision::Bf16, 0.999), (Precision::Fp8, 0.98)] {
        // Errors of 8 bits average out over a model's width; the fixtures are 64 and 80 wide.
        for name in MODELS {
            // lite's heads subtract most of a feature: what is left carries its error at up to ten times the relative size.
            let bound = if name == "tiny" { 1.0 - 10.0 * (1.0 - bound) } else { bound };
            let Some(gpu) = on_gpu(name, precision) else { return };
            let cpu = Model::load(fixture(name)).unwrap();
            let (images, texts) = (images(&cpu, 9), texts(&cpu, 33));
            let image =
                least_cosine(&gpu.encode_images(&images).unwrap(), &cpu.encode_images(&images).unwrap());
            let text = least_cosine(&encode_texts(&gpu, &texts), &encode_texts(&cpu, &texts));
            println!("{name} in {}: cosines of images {image}, of texts {text}", precision.name());
            assert!(image >= bound && text >= bound, "{name} in {}: {image} {text}", precision.name());
        }
    }
}

#[test]
fn passes_of_any_size_and_recorded_passes_agree() {
    let name = "clip/vit_gelu/open_clip";
    let Some(gpu) = on_gpu(name, Precision::F32) else { return };
    let images = images(&gpu, 600);
    let all = gpu.encode_images(&images).unwrap();
    for count in [1, 2, 255, 256, 257] {
        // The second and third time the pass is recorded, and started as recorded.
        for _ in 0..3 {
            let some = gpu.encode_images(&images[..count]).unwrap();
            for (n, row) in some.rows().enumerate() {
                let difference = row.iter().zip(all.row(n)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(difference <= 2e-5, "image {n} of {count}: {difference:e}");
            }
        }
    }
    assert_eq!(gpu.encode_images(&[]).unwrap().rows().len(), 0);
}

#[test]
fn vectors_instead_of_words_agree_with_the_processor() {
    let name = "clip/vit_gelu/transformers";
    let Some(gpu) = on_gpu(name, Precision::F32) else { return };
    let cpu = Model::load(fixture(name)).unwrap();
    let Ok(width) = cpu.text_features(&["a"]).map(|(features, _)| features.row(0).len()) else { return };
    let context: Vec<f32> = (0..4 * width).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect();
    let labels = ["a cat", "two dogs in the snow"];
    let found = gpu.encode_texts_with_context(&context, width, &labels).unwrap();
    let expected = cpu.encode_texts_with_context(&context, width, &labels).unwrap();
    assert!(max_difference(&found, &expected) <= 2e-5);
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_and_auto_takes_the_processor() {
    let mut options = LoadOptions::default();
    options.device = DeviceChoice::Cuda(99);
    let error = Model::load_with(fixture("tiny"), &options).err().expect("there are no hundred GPUs");
    assert!(matches!(error, ClipError::Device(_)), "{error}");
    options.device = DeviceChoice::Auto;
    options.precision = Precision::Int8;
    assert_eq!(Model::load_with(fixture("tiny"), &options).unwrap().device(), "cpu");
}

#[test]
fn a_processor_refuses_precisions_of_gpus() {
    let mut options = LoadOptions::default();
    options.precision = Precision::F16;
    let error = Model::load_with(fixture("tiny"), &options).err().expect("not on a processor").to_string();
    assert!(error.contains("float16") && error.contains("cpu"), "{error}");
}

#[test]
fn a_batch_that_does_not_fit_is_halved() {
    let name = "clip/vit_gelu/open_clip";
    let Some(gpu) = on_gpu(name, Precision::F32) else { return };
    let device = Device::open(0).unwrap();
    let images = images(&gpu, 256);
    gpu.encode_images(&images[..1]).unwrap();
    let before = device.free_memory().unwrap();
    let expected = gpu.encode_images(&images).unwrap();
    let needed = before - device.free_memory().unwrap();
    drop(gpu);
    // Too little for the batch, after the weights and one image have come in.
    let gpu = on_gpu(name, Precision::F32).unwrap();
    gpu.encode_images(&images[..1]).unwrap();
    let mut held = Vec::new();
    while device.free_memory().unwrap() > needed / 2 {
        let bytes = device.free_memory().unwrap() - needed / 2;
        let Some(buffer) = [bytes, bytes / 2, 2 << 20].iter().find_map(|&n| Buffer::new(&device, n).ok())
        else {
            break;
        };
        held.push(buffer);
    }
    let found = gpu.encode_images(&images).unwrap();
    assert!(!held.is_empty() && max_difference(&found, &expected) <= 2e-5);
    // Nothing fits: an error that says so, and no harm to what comes after.
    while let Ok(buffer) = Buffer::new(&device, 2 << 20) {
        held.push(buffer);
    }
    let other = on_gpu(name, Precision::F32).unwrap();
    let error = other.encode_images(&images).expect_err("no memory is left");
    assert!(matches!(&error, ClipError::Device(error) if error.is_out_of_memory()), "{error}");
    drop(held);
    assert!(max_difference(&other.encode_images(&images).unwrap(), &expected) <= 2e-5);
}
