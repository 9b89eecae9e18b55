//! Models that references have run: what they were given, and what they gave.

use std::path::Path;

use safetensors::SafeTensors;
use xmore_clip::{Embeddings, Model, PatchGrid, Pixels};

/// Largest difference of a component of a unit embedding.
pub const TOLERANCE: f32 = 2e-5;

/// What the references were given, and what they gave.
pub struct Expected {
    pub pixels: Vec<Pixels>,
    pub ids: Vec<Vec<u32>>,
    /// Names of the image files, in the order of `pixels`.
    pub files: Vec<String>,
    /// Name of the reference, images `[8, dim]`, texts `[32, dim]`.
    embeddings: Vec<(&'static str, Embeddings, Embeddings)>,
    logit_scale: f32,
}

impl Expected {
    pub fn read(path: &Path) -> Self {
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
        let values = images.data().chunks(one).map(|image| image.iter().enumerate().map(normalize).collect());
        let values: Vec<Vec<f32>> = values.collect();
        let pixels = match tensors.tensor("spatial_shapes") {
            Err(_) => values.into_iter().map(Pixels::new).collect(),
            // Patches of pictures of any aspect, followed by padding.
            Ok(_) => {
                let patch = images.shape()[2];
                let grids = integers("spatial_shapes");
                let grids = grids.chunks(2).map(|grid| PatchGrid { rows: grid[0], columns: grid[1] });
                let cut = |(mut values, grid): (Vec<f32>, PatchGrid)| {
                    values.truncate((grid.rows * grid.columns) as usize * patch);
                    Pixels::of_patches(values, grid)
                };
                values.into_iter().zip(grids).map(cut).collect()
            }
        };
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
            pixels,
            ids: ids.collect(),
            files: serde_json::from_str(&notes["images"]).unwrap(),
            embeddings,
            logit_scale: floats("logit_scale")[0],
        }
    }

    pub fn ids(&self) -> Vec<&[u32]> {
        self.ids.iter().map(Vec::as_slice).collect()
    }

    /// Checks a model against every reference; gives its embeddings.
    #[track_caller]
    pub fn check(&self, what: &str, model: &Model) -> (Embeddings, Embeddings) {
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

/// Bits of all rows, encoded in batches.
fn encode(model: &Model, images: &[Pixels], texts: &[&[u32]], batch: usize) -> [Vec<u32>; 2] {
    let bits = |rows: Embeddings| rows.rows().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
    let images = images.chunks(batch).flat_map(|part| bits(model.encode_images(part).unwrap())).collect();
    let texts = texts.chunks(batch).flat_map(|part| bits(model.encode_token_ids(part).unwrap())).collect();
    [images, texts]
}

/// Checks that batches of 1, 8 and 33 on one thread and two give the same bits.
pub fn check_batches(what: &str, model: &Model, expected: &Expected) {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let images: Vec<Pixels> = expected.pixels.iter().cycle().take(33).cloned().collect();
    let texts: Vec<&[u32]> = expected.ids.iter().cycle().take(33).map(Vec::as_slice).collect();
    let alone = pool(1).install(|| encode(model, &images, &texts, 1));
    for (batch, threads) in [(8, 1), (33, 1), (1, 2), (8, 2), (33, 2)] {
        let found = pool(threads).install(|| encode(model, &images, &texts, batch));
        assert!(found == alone, "{what}: batches of {batch} on {threads} threads differ");
    }
}
