//! How fast the parts of a divided build are merged: pairs with embeddings that cost nothing, built in parts, merged, and timed.
//!
//! `cargo run --release -p xmore --example merge_speed -- PAIRS DIM PARTS [FOLDER]`

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use xmore::{
    BuildOptions, Embeddings, Encoder, ModelIdentity, Part, Pixels, TextEmbeddings, XmoreError, build_part,
    merge_memories,
};

/// Captions of one image.
const CAPTIONS: usize = 1000;

struct Cheap(ModelIdentity);

impl Cheap {
    /// Unit rows that differ from each other.
    fn rows(&self, seeds: impl Iterator<Item = u64>) -> Embeddings {
        let dim = self.dim();
        let mut values = Vec::new();
        for mut seed in seeds {
            for _ in 0..dim {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                values.push(if seed >> 63 == 0 { 1.0 } else { -1.0 } / (dim as f32).sqrt());
            }
        }
        Embeddings::new(values, dim)
    }
}

impl Encoder for Cheap {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn logit_scale(&self) -> f32 {
        1.0
    }

    fn prepare(&self, image: &RgbImage) -> Pixels {
        Pixels::new(image.get_pixel(0, 0).0.map(f32::from).into())
    }

    fn embed_images(&self, images: &[Pixels]) -> Result<Embeddings, XmoreError> {
        Ok(self.rows(
            images.iter().map(|pixels| pixels.as_slice().iter().fold(1, |seed, v| seed * 257 + *v as u64)),
        ))
    }

    fn embed_texts(&self, texts: &[&str]) -> Result<TextEmbeddings, XmoreError> {
        let seed = |text: &&str| {
            text.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
        };
        Ok(TextEmbeddings { embeddings: self.rows(texts.iter().map(seed)), truncated: 0 })
    }
}

/// A table of so many pairs, with pictures of one pixel.
fn source(folder: &Path, pairs: usize) -> Result<PathBuf, Box<dyn Error>> {
    let mut table = "image_path,caption\n".to_owned();
    for i in 0..pairs.div_ceil(CAPTIONS) {
        let name = format!("{i:08}.png");
        let color = [(i >> 16) as u8, (i >> 8) as u8, i as u8];
        RgbImage::from_pixel(1, 1, Rgb(color)).save(folder.join(&name))?;
        for caption in 0..CAPTIONS.min(pairs - i * CAPTIONS) {
            writeln!(table, "{name},a caption of usual length about picture {i} and number {caption}")?;
        }
    }
    fs::write(folder.join("pairs.csv"), table)?;
    Ok(folder.join("pairs.csv"))
}

/// Bytes of all files below a folder.
fn bytes(folder: &Path) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        sum += if path.is_dir() { bytes(&path)? } else { path.metadata()?.len() };
    }
    Ok(sum)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pairs, dim, parts, rest @ ..] = &arguments[..] else {
        return Err("expected PAIRS DIM PARTS [FOLDER]".into());
    };
    let (pairs, dim, parts): (usize, usize, u32) = (pairs.parse()?, dim.parse()?, parts.parse()?);
    let dir = match rest {
        [folder, ..] => tempfile::tempdir_in(folder)?,
        [] => tempfile::tempdir()?,
    };
    let model = Cheap(ModelIdentity::new("cheap", "0", dim));
    let table = source(dir.path(), pairs)?;
    let mut folders = Vec::new();
    for number in 1..=parts {
        let part = Part::new(number, parts).ok_or("no such part")?;
        let folder = dir.path().join(number.to_string());
        build_part(&model, &[&table], part, &folder, &BuildOptions::default(), &mut |_| true)?;
        folders.push(folder);
    }
    let merged = dir.path().join("merged");
    let start = Instant::now();
    let report = merge_memories(&folders, &merged, Duration::from_secs(5), &mut |_| true)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = bytes(&merged)? as f64 / 1e6;
    println!(
        "{} pairs of {dim} values, {parts} parts: {seconds:.1} s, {:.0} pairs/s, {:.0} MB/s",
        report.manifest.pairs,
        report.manifest.pairs as f64 / seconds,
        megabytes / seconds
    );
    Ok(())
}
