//! Parity of the CLIP architecture with open_clip and transformers, in every checkpoint format (see `fixtures/make_clip.py`).

use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use xmore_clip::{Embeddings, LoadOptions, Model, Pixels};

/// Largest difference of a component of a unit embedding.
const TOLERANCE: f32 = 2e-5;

fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip")
}

/// What the references were given, and what they gave.
struct Expected {
    pixels: Vec<Pixels>,
    ids: Vec<Vec<u32>>,
    /// Names of the image files, in the order of `pixels`.
    files: Vec<String>,
    /// Name of the reference, images `[8, dim]`, texts `[32, dim]`.
    embeddings: Vec<(&'static str, Embeddings, Embeddings)>,
    logit_scale: f32,
}

impl Expected {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let notes = header.metadata().as_ref().unwrap();
        let [mean, std]: [[f64; 3]; 2] =
            ["mean", "std"].map(|key| serde_json::from_str(&notes[key]).unwrap());
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| tensors.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
        let floats = |name: &str| words(name).into_iter().map(f32::from_le_bytes).collect::<Vec<_>>();
        let integers = |name: &str| words(name).into_iter().map(u32::from_le_bytes).collect::<Vec<_>>();

        let images = tensors.tensor("pixels").unwrap();
        let one = images.shape()[1..].iter().product::<usize>();
        let normalize =
            |(n, &v): (usize, &u8)| (f32::from(v) / 255.0 - mean[n % 3] as f32) / std[n % 3] as f32;
        let pixels = images.data().chunks(one).map(|image| image.iter().enumerate().map(normalize).collect());
        let context = tensors.tensor("token_ids").unwrap().shape()[1];
        let all_ids = integers("token_ids");
        let ids = all_ids.chunks(context).zip(integers("lengths")).map(|(row, n)| row[..n as usize].to_vec());
        let rows = |name: &str| {
            let dim = tensors.tensor(name).unwrap().shape()[1];
            Embeddings::new(floats(name), dim)
        };
        let mut embeddings = vec![("open_clip", rows("image_embeddings"), rows("text_embeddings"))];
        if tensors.tensor("transformers.image_embeddings").is_ok() {
            let [images, texts] = ["image", "text"].map(|of| rows(&format!("transformers.{of}_embeddings")));
            embeddings.push(("transformers", images, texts));
        }
        Self {
            pixels: pixels.map(Pixels::new).collect(),
            ids: ids.collect(),
            files: serde_json::from_str(&notes["images"]).unwrap(),
            embeddings,
            logit_scale: floats("logit_scale")[0],
        }
    }

    fn ids(&self) -> Vec<&[u32]> {
        self.ids.iter().map(Vec::as_slice).collect()
    }

    /// Checks a model against every reference; gives its embeddings.
    #[track_caller]
    fn check(&self, what: &str, model: &Model) -> (Embeddings, Embeddings) {
        let images = model.encode_images(&self.pixels).unwrap();
        let texts = model.encode_token_ids(&self.ids()).unwrap();
        for (reference, want_images, want_texts) in &self.embeddings {
            for (kind, found, want) in [("images", &images, want_images), ("texts", &texts, want_texts)] {
                assert_eq!((found.len(), found.dim()), (want.len(), want.dim()), "{what}, {kind}");
                let errors = found.rows().flatten().zip(want.rows().flatten()).map(|(f, w)| (f - w).abs());
                let error = errors.fold(0f32, |max, e| if max.is_nan() || e <= max { max } else { e });
                eprintln!("{what}: {kind} within {error:.1e} of {reference}");
                assert!(error <= TOLERANCE, "{what}: {kind} differ from {reference} by {error:e}");
            }
        }
        let scale = model.logit_scale();
        let relative = (scale / self.logit_scale - 1.0).abs();
        assert!(relative < 1e-5, "{what}: logit scale {scale}, expected {}", self.logit_scale);
        (images, texts)
    }
}

fn load(path: &Path, quick_gelu: Option<bool>) -> Model {
    let mut options = LoadOptions::default();
    options.quick_gelu = quick_gelu;
    Model::load_with(path, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One model in several files: near the references, and the same bits from each file.
fn check_formats(family: &str, formats: &[(&str, Option<bool>)]) {
    let expected = Expected::read(&clip().join(format!("{family}.safetensors")));
    let mut first = None;
    for &(format, quick_gelu) in formats {
        let model = load(&clip().join(family).join(format), quick_gelu);
        let what = format!("{family}/{format}");
        let found = expected.check(&what, &model);
        assert!(*first.get_or_insert_with(|| found.clone()) == found, "{what} differs from {}", formats[0].0);
        check_preprocessing(&what, &model, &expected);
    }
}

/// From the file: the pixels that open_clip's transform gave.
fn check_preprocessing(what: &str, model: &Model, expected: &Expected) {
    // Transparency is another matter; Pillow 13 (the fixture's) resizes tall images in another order than CLIP's training did.
    let skipped = ["alpha.png", "strip.png", "tall.png"];
    for (file, pixels) in expected.files.iter().zip(&expected.pixels) {
        if !skipped.contains(&file.as_str()) {
            let found = model.preprocess().load(&clip().join("../images").join(file)).unwrap();
            assert!(found == *pixels, "{what}: {file} gives other pixels");
        }
    }
}

#[test]
fn a_vision_transformer_with_quick_gelu() {
    // A training checkpoint does not say which GELU it was trained with; OpenAI's archives are all QuickGELU.
    let training = ("epoch_3.pt", Some(true));
    check_formats(
        "vit_quickgelu",
        &[("open_clip", None), ("transformers", None), ("openai.pt", None), training],
    );
}

#[test]
fn a_vision_transformer_with_gelu() {
    let formats = ["open_clip", "transformers", "transformers_sharded"];
    check_formats("vit_gelu", &formats.map(|f| (f, None)));
}

#[test]
fn a_modified_resnet() {
    check_formats("rn", &["open_clip_bin", "openai.pt"].map(|f| (f, None)));
}

#[test]
fn a_batch_gives_the_bits_of_each_alone() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for (family, format) in [("vit_quickgelu", "open_clip"), ("vit_gelu", "open_clip"), ("rn", "openai.pt")] {
        let expected = Expected::read(&clip().join(format!("{family}.safetensors")));
        let model = load(&clip().join(family).join(format), None);
        let images: Vec<Pixels> = expected.pixels.iter().cycle().take(33).cloned().collect();
        let texts: Vec<&[u32]> = expected.ids.iter().cycle().take(33).map(Vec::as_slice).collect();
        let alone = pool(1).install(|| encode(&model, &images, &texts, 1));
        for (batch, threads) in [(8, 1), (33, 1), (1, 2), (8, 2), (33, 2)] {
            let found = pool(threads).install(|| encode(&model, &images, &texts, batch));
            assert!(found == alone, "{family}: batches of {batch} on {threads} threads differ");
        }
    }
}

/// Bits of all rows, encoded in batches.
fn encode(model: &Model, images: &[Pixels], texts: &[&[u32]], batch: usize) -> [Vec<u32>; 2] {
    let bits = |rows: Embeddings| rows.rows().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
    let images = images.chunks(batch).flat_map(|part| bits(model.encode_images(part).unwrap())).collect();
    let texts = texts.chunks(batch).flat_map(|part| bits(model.encode_token_ids(part).unwrap())).collect();
    [images, texts]
}

#[test]
fn token_ids_that_the_tower_does_not_know_are_refused() {
    let model = load(&clip().join("vit_quickgelu/open_clip"), None);
    let message = model.encode_token_ids(&[&[94, 96, 95]]).unwrap_err().to_string();
    assert!(message.contains("96"), "{message}");
    assert!(model.encode_token_ids(&[&[]]).is_err(), "a text has at least one token");
    assert_eq!(model.encode_token_ids(&[]).unwrap().len(), 0);
}

/// Models of the real sizes, made by `make_clip.py --full`: `XMORE_FULL_DIR` names their folders.
#[test]
fn full_size_models() {
    let Some(dirs) = std::env::var_os("XMORE_FULL_DIR") else {
        // Past the test harness, which would keep the line to itself.
        let line = "skipped: XMORE_FULL_DIR is not set (folders written by make_clip.py --full)\n";
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    };
    for dir in std::env::split_paths(&dirs) {
        let expected = Expected::read(&dir.join("expected.safetensors"));
        let what = dir.display().to_string();
        let model = load(&dir, None);
        let found = expected.check(&what, &model);
        let captions: Vec<String> =
            serde_json::from_slice(&std::fs::read(dir.join("captions.json")).unwrap()).unwrap();
        let texts = model.encode_texts(&captions).unwrap().embeddings;
        assert!(texts == found.1, "{what}: captions give other tokens than open_clip's tokenizer");
        drop(model);
        let archive = dir.join("openai.pt");
        if archive.exists() {
            let quick_gelu = std::fs::read_to_string(dir.join("open_clip_config.json")).unwrap();
            let quick_gelu = quick_gelu.contains("\"quick_gelu\": true");
            let again = expected.check("openai.pt", &load(&archive, Some(quick_gelu)));
            // The archive holds f16, and every weight is one of f16's values.
            assert!(again == found, "{what}: openai.pt differs");
        }
    }
}
