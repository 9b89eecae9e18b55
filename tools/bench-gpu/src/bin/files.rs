//! Times the way from JPEG files to embeddings, reading included, with the processor's decoder and with the GPU's; and how near the embeddings are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bench_gpu::{Result, precision};
use clap::Parser;
use serde_json::{Value, json};
use xmore::{Encoder, NamedModel, encode_each, encode_files};
use xmore_clip::{Decoding, DeviceChoice, LoadOptions, Model, profile_report};

/// Times JPEG files to embeddings on an NVIDIA GPU, with both decoders.
#[derive(Debug, Parser)]
struct Args {
    /// A model folder, as `peers.py weights` makes it
    model: PathBuf,
    /// A folder of JPEG files
    files: PathBuf,
    /// Our precision: f32, f16, bf16, fp8
    #[arg(long, default_value = "f16")]
    precision: String,
    /// Decoders that are timed: cpu, gpu
    #[arg(long, value_delimiter = ',', default_value = "cpu,gpu")]
    decode: Vec<String>,
    /// Images of a run: the folder's, again and again
    #[arg(long, default_value_t = 20_000)]
    images: usize,
    /// Seconds that are timed at least, in whole runs
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

/// Images of the run before the clock starts.
const WARM_UP: usize = 2048;

fn main() -> Result<()> {
    let args = Args::parse();
    let files = jpeg_files(&args.files)?;
    let mut rows: Vec<HashMap<usize, Vec<f32>>> = Vec::new();
    for decode in &args.decode {
        let model = open(&args, decode)?;
        let encoded = encode_files(&model, &files, &mut |_| {})?;
        if let Some((file, why)) = encoded.failed.first() {
            return Err(format!("{}: {why}", files[*file].display()).into());
        }
        rows.push(encoded.kept.into_iter().zip(encoded.embeddings.rows().map(<[f32]>::to_vec)).collect());
        println!("{}", timed(&args, decode, &model, &files)?);
    }
    if let [first, second] = rows.as_slice() {
        println!("{}", compared(&args.decode, first, second));
    }
    if let Some(report) = profile_report() {
        eprintln!("{report}");
    }
    Ok(())
}

/// A folder's JPEG files, in the order of their names.
fn jpeg_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jpg" || extension == "jpeg"));
    files.sort();
    if files.is_empty() { Err(format!("{}: no JPEG files", folder.display()).into()) } else { Ok(files) }
}

fn open(args: &Args, decode: &str) -> Result<NamedModel> {
    let mut options = LoadOptions::default();
    options.device = DeviceChoice::Cuda(0);
    options.precision = precision(&args.precision)?;
    options.decoding = match decode {
        "cpu" => Decoding::Cpu,
        "gpu" => Decoding::Gpu,
        _ => return Err(format!("no decoder {decode}").into()),
    };
    Ok(NamedModel::new("bench-gpu", Model::load_with(&args.model, &options)?))
}

/// Times runs and gives a line of JSON.
fn timed(args: &Args, decode: &str, model: &NamedModel, files: &[PathBuf]) -> Result<Value> {
    let run: Vec<PathBuf> = files.iter().cycle().take(args.images).cloned().collect();
    let encode = |files: &[PathBuf]| -> Result<usize> {
        let mut kept = 0;
        encode_each(&[model as &dyn Encoder], files, &|| false, &mut |batch| {
            kept += batch.kept.len();
            true
        })?;
        Ok(kept)
    };
    encode(&run[..run.len().min(WARM_UP)])?;
    let (mut images, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < args.seconds {
        images += encode(&run)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "model": args.model.file_name().map(|name| name.to_string_lossy()),
        "device": model.device(),
        "precision": args.precision,
        "decode": decode,
        "files": files.len(),
        "decoded_by_gpu": decoded_by_gpu(model, files)?,
        "images": images,
        "seconds": seconds,
        "per_second": images as f64 / seconds,
    }))
}

/// How many of the files the GPU does not leave to the processor.
fn decoded_by_gpu(model: &Model, files: &[PathBuf]) -> Result<usize> {
    let mut count = 0;
    for batch in files.chunks(256) {
        let bytes = batch.iter().map(std::fs::read).collect::<std::io::Result<Vec<_>>>()?;
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        count += model.decode_files(&bytes)?.map_or(0, |decoded| decoded.files().len());
    }
    Ok(count)
}

/// A line of JSON on the cosines of two runs' rows.
fn compared(
    between: &[String],
    first: &HashMap<usize, Vec<f32>>,
    second: &HashMap<usize, Vec<f32>>,
) -> Value {
    let cosine = |(file, row): (&usize, &Vec<f32>)| {
        let pairs = row.iter().zip(&second[file]);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let cosines: Vec<f64> = first.iter().map(cosine).collect();
    json!({
        "between": between,
        "files": cosines.len(),
        "least_cosine": cosines.iter().copied().fold(f64::INFINITY, f64::min),
        "mean_cosine": cosines.iter().sum::<f64>() / cosines.len() as f64,
    })
}
