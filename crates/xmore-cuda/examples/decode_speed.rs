//! Images a second from JPEG files: decoding alone, and with the resize to a square of 224 pixels. A JSON line for each measurement.
//!
//! `decode_speed FOLDER [IMAGES] [DECODERS]`: so many images (8,192 if not said), the folder's files again and again, by 1 to so many decoders at the same time
//! (3 if not said), each with a thread of its own.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;
use xmore_cuda::{Buffer, Device, JpegDecoder, Limits, Pixels, ResizeImage, Resizer, Stream, Taps};

/// Images of a batch.
const BATCH: usize = 256;
/// Pixels of the square's side.
const SIDE: usize = 224;
const LIMITS: Limits = Limits { image_pixels: 100_000_000, batch_pixels: 2_000_000_000 };

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: decode_speed FOLDER [IMAGES] [DECODERS]")?;
    let images: usize = args.next().map_or(Ok(8192), |n| n.parse())?;
    let decoders: usize = args.next().map_or(Ok(3), |n| n.parse())?;
    let files = read(Path::new(&folder))?;
    let device = Device::open(0)?;
    let cores = std::thread::available_parallelism()?.get();
    for n in 1..=decoders {
        let mut workers =
            (0..n).map(|_| Worker::new(&device, cores.div_ceil(n))).collect::<Result<Vec<_>, _>>()?;
        for resize in [false, true] {
            // The first run allocates.
            run(&mut workers, &files, BATCH * n, resize)?;
            let begin = Instant::now();
            let decoded = run(&mut workers, &files, images, resize)?;
            let seconds = begin.elapsed().as_secs_f64();
            println!(
                "{}",
                json!({
                    "device": device.info().name, "engines": workers[0].decoder.engines(), "decoders": n, "resize": resize,
                    "images": images, "decoded": decoded, "seconds": seconds, "images_per_second": decoded as f64 / seconds,
                })
            );
        }
    }
    Ok(())
}

/// The JPEG files of a folder.
fn read(folder: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if ending.is_some_and(|ending| ["jpg", "jpeg"].contains(&ending.as_str())) {
            files.push(std::fs::read(path)?);
        }
    }
    if files.is_empty() { Err("no .jpg file in the folder".into()) } else { Ok(files) }
}

/// Decodes `images` in batches, shared among the workers; returns how many were decoded.
fn run(workers: &mut [Worker], files: &[Vec<u8>], images: usize, resize: bool) -> Result<usize, Failure> {
    let next = AtomicUsize::new(0);
    let work = |worker: &mut Worker| -> Result<usize, Failure> {
        let mut decoded = 0;
        loop {
            let begin = next.fetch_add(BATCH, Ordering::Relaxed);
            if begin >= images {
                worker.stream.synchronize()?;
                return Ok(decoded);
            }
            let batch: Vec<&[u8]> =
                (begin..images.min(begin + BATCH)).map(|i| files[i % files.len()].as_slice()).collect();
            decoded += worker.batch(&batch, resize)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| work(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).sum()
    })
}

/// A decoder, a resizer, and memory for a batch's squares.
struct Worker {
    decoder: JpegDecoder,
    resizer: Resizer,
    stream: Stream,
    out: Buffer,
    /// Weights by an axis' length and its resized length.
    taps: HashMap<(usize, usize), Taps>,
}

impl Worker {
    fn new(device: &Device, threads: usize) -> Result<Self, Failure> {
        Ok(Self {
            decoder: JpegDecoder::new(device, threads, LIMITS)?,
            resizer: Resizer::new(device, SIDE, 0)?,
            stream: Stream::new(device)?,
            out: Buffer::new(device, BATCH * SIDE * SIDE * 3)?,
            taps: HashMap::new(),
        })
    }

    fn batch(&mut self, files: &[&[u8]], resize: bool) -> Result<usize, Failure> {
        let decoded: Vec<_> = self.decoder.decode(&self.stream, files)?.into_iter().flatten().collect();
        if !resize {
            return Ok(decoded.len());
        }
        let scaled = |length: usize, short: usize| SIDE * length / short;
        for image in &decoded {
            let short = image.width.min(image.height);
            for length in [image.width, image.height] {
                let to = scaled(length, short);
                self.taps.entry((length, to)).or_insert_with(|| middle(length, to));
            }
        }
        let images: Vec<_> = decoded
            .iter()
            .map(|image| {
                let short = image.width.min(image.height);
                ResizeImage {
                    pixels: Pixels::Device {
                        buffer: self.decoder.pixels(),
                        offset: image.offset,
                        x_step: 3,
                        y_step: image.width as isize * 3,
                    },
                    width: image.width,
                    height: image.height,
                    columns: &self.taps[&(image.width, scaled(image.width, short))],
                    rows: &self.taps[&(image.height, scaled(image.height, short))],
                    x: 0,
                    y: 0,
                }
            })
            .collect();
        self.resizer.resize(&self.stream, &images, &self.out)?;
        Ok(decoded.len())
    }
}

/// Weights of the middle `SIDE` positions. A triangle stands for the bicubic filter, which has as many weights when it is as wide: it is the time that is
/// measured.
fn middle(input: usize, output: usize) -> Taps {
    let scale = input as f64 / output as f64;
    let support = 2.0 * scale.max(1.0);
    let begin = (output - SIDE) / 2;
    let positions: Vec<_> = (begin..begin + SIDE)
        .map(|x| {
            let center = (x as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let last = ((center + support + 0.5) as usize).min(input);
            let weights: Vec<f64> =
                (first..last).map(|i| (support - (i as f64 + 0.5 - center).abs()).max(0.0)).collect();
            let total: f64 = weights.iter().sum();
            let fixed: Vec<i32> =
                weights.iter().map(|w| (w / total * f64::from(1 << 22)).round() as i32).collect();
            (first, fixed)
        })
        .collect();
    Taps::new(&positions)
}
