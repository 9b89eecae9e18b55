//! An encoder that is not ours: it builds a memory, classifies with it, and is evaluated.
//!
//! This one embeds an image as its mean color, and a text as the color that it names. Run with
//! `cargo run -p xmore --example custom_encoder`.

use std::fs;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use xmore::{
    AnswerOptions, BuildOptions, Embeddings, Encoder, Labels, Method, ModelIdentity, OpenPairs, Pipeline,
    Pixels, QueryImage, TextEmbeddings, XmoreError, build_memory,
};
use xmore_eval::{Dataset, EmbeddedDataset, EmbeddingCache, EvalMethod, EvalOptions, evaluate};

const COLORS: [(&str, [u8; 3]); 3] =
    [("red", [250, 10, 10]), ("green", [10, 250, 10]), ("blue", [10, 10, 250])];

struct Colors(ModelIdentity);

impl Encoder for Colors {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn logit_scale(&self) -> f32 {
        10.0
    }

    fn prepare(&self, image: &RgbImage) -> Pixels {
        let mean =
            |c: usize| image.pixels().map(|p| f32::from(p[c])).sum::<f32>() / image.pixels().len() as f32;
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

/// Builds, opens, asks and evaluates.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (photos, memory) = (folder.path().join("photos"), folder.path().join("memory"));
    fs::create_dir(&photos)?;
    for (name, color) in COLORS {
        RgbImage::from_pixel(8, 8, Rgb(color)).save(photos.join(format!("{name}.png")))?;
        fs::write(photos.join(format!("{name}.txt")), format!("something {name}"))?;
    }
    let identity = ModelIdentity::new("colors", "colors, first version", 3);
    let encoder = Arc::new(Colors(identity));
    build_memory(&*encoder, &[photos], &memory, &BuildOptions::default(), &mut |_| true)?;

    let pairs = Arc::new(OpenPairs::open(&memory.display().to_string(), &Default::default())?);
    let pipeline = Pipeline::builder(encoder).pairs(pairs).build()?;
    let labels = Labels::new(COLORS.map(|(name, _)| name))?;
    let classifier = pipeline.classifier(labels, &[Method::Xmore])?;
    let query = QueryImage::Pixels(RgbImage::from_pixel(4, 4, Rgb([20, 60, 200])));
    for answer in pipeline.classify(&classifier, &[query], &AnswerOptions::new(Method::Xmore))? {
        let answer = answer?;
        println!("{}", answer.label.as_deref().unwrap_or("none"));
        assert_eq!(answer.label.as_deref(), Some("blue"));
    }

    // A dataset: a folder for each label.
    let labeled = folder.path().join("labeled");
    for (name, color) in COLORS {
        fs::create_dir_all(labeled.join(name))?;
        RgbImage::from_pixel(6, 6, Rgb(color.map(|c| c / 2))).save(labeled.join(name).join("dark.png"))?;
    }
    let dataset = Dataset::read(&labeled)?;
    let classifier = pipeline.classifier(dataset.labels.clone(), &[Method::ZeroShot, Method::Xmore])?;
    let encoder = &**pipeline.encoder();
    let images = EmbeddingCache::none().images(encoder, &dataset.root, &dataset.images, &mut |_| {})?;
    let data = EmbeddedDataset { dataset: &dataset, queries: images.embeddings.into(), kept: images.kept };
    let methods = vec![EvalMethod::Each(Method::ZeroShot), EvalMethod::Each(Method::Xmore)];
    let options = EvalOptions { methods, ..EvalOptions::default() };
    let (report, _) = evaluate(&data, &classifier, &Default::default(), &options, &mut |_, _| {})?;
    for method in &report.methods {
        println!("{}: {:.0} %", method.method, 100.0 * method.accuracy.acc1);
        assert_eq!(method.accuracy.acc1, 1.0);
    }
    Ok(())
}
