//! How fast a model encodes: `cargo run --release -p xmore-clip --example encode_speed -- MODEL_DIR [RUNS] [PRECISION]`.
//!
//! Synthetic images and sentences; medians of RUNS (default 15) after a warm-up, on as many threads as `RAYON_NUM_THREADS` says.

use std::time::Instant;

use image::RgbImage;
use xmore_clip::{LoadOptions, Model, Precision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: encode_speed MODEL_DIR [RUNS] [PRECISION]")?;
    let runs = args.next().map_or(Ok(15), |n| n.parse())?;
    let mut options = LoadOptions::default();
    if let Some(name) = args.next() {
        options.precision = Precision::of_short_name(&name).ok_or("PRECISION: f32, bf16 or int8")?;
    }
    let start = Instant::now();
    let model = Model::load_with(&dir, &options)?;
    let side = model.preprocess().size();
    let image = |seed: u32| {
        RgbImage::from_fn(side, side, |x, y| image::Rgb([x * seed, y + seed, x ^ y].map(|v| v as u8)))
    };
    let images: Vec<_> = (1..9).map(|seed| model.preprocess().prepare(&image(seed))).collect();
    model.encode_images(&images[..1])?;
    println!("open and first image: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let texts: Vec<String> =
        (0..64).map(|n| format!("a photo of {n} dogs that run along the beach in the sun.")).collect();
    model.encode_texts(&texts[..1])?;
    println!("first text: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for batch in [1, 8] {
        let seconds = median(runs, || model.encode_images(&images[..batch]).map(|_| ()))?;
        println!("images, batch {batch}: {:.2} ms, {:.1} images/s", seconds * 1e3, batch as f64 / seconds);
    }
    for batch in [1, 64] {
        let seconds = median(runs, || model.encode_texts(&texts[..batch]).map(|_| ()))?;
        println!("texts, batch {batch}: {:.2} ms, {:.1} texts/s", seconds * 1e3, batch as f64 / seconds);
    }
    Ok(())
}

fn median<E>(runs: usize, mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    run()?;
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[runs / 2])
}
