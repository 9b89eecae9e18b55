//! Times encoders on a GPU against PyTorch, in turns, on the same weights.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bench_gpu::Result;
use bench_worker::Worker;
use clap::Parser;
use serde_json::{Value, json};
use xmore_clip::{DeviceChoice, Embeddings, LoadOptions, Model, Pixels, Precision, profile_report};

/// Times encoders on an NVIDIA GPU against PyTorch, in turns, on the same weights.
#[derive(Debug, Parser)]
struct Args {
    /// A transformers folder, as `peers.py weights` makes it
    model: PathBuf,
    /// What is encoded: `images/BATCH`, `texts/77`, `texts/cut`
    #[arg(long, value_delimiter = ',', default_value = "images/256")]
    rows: Vec<String>,
    /// Our precisions: f32, f16, bf16, fp8
    #[arg(long, value_delimiter = ',', default_value = "f16")]
    precision: Vec<String>,
    /// PyTorch's ways to run: eager, or modes of torch.compile; none with an empty one
    #[arg(long, value_delimiter = ',', default_value = "eager,reduce-overhead")]
    modes: Vec<String>,
    /// The interpreter with PyTorch and transformers
    #[arg(long, default_value = "python3")]
    python: String,
    /// The peers' script
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers.py"))]
    script: PathBuf,
    /// csv with a column `caption`
    #[arg(long)]
    captions: Option<PathBuf>,
    /// Turns of each
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Passes in a turn
    #[arg(long, default_value_t = 10)]
    passes: usize,
    /// Compare with our own embeddings on the processor in f32: of the first 16 images or texts
    #[arg(long)]
    check: bool,
}

/// What is encoded.
enum Input {
    Images(Vec<Pixels>),
    Texts(Vec<Vec<u32>>),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let cpu = args.check.then(|| Model::load(&args.model)).transpose()?;
    for row in &args.rows {
        for precision in &args.precision {
            let precision = bench_gpu::precision(precision)?;
            let mut options = LoadOptions::default();
            options.precision = precision;
            options.device = DeviceChoice::Cuda(0);
            let model = Model::load_with(&args.model, &options)?;
            println!("{}", run(&args, row, precision, &model, cpu.as_ref())?);
        }
    }
    if let Some(report) = profile_report() {
        eprintln!("{report}");
    }
    Ok(())
}

/// Times a row and gives a line of JSON.
fn run(args: &Args, row: &str, precision: Precision, model: &Model, cpu: Option<&Model>) -> Result<Value> {
    let input = input(args, row, model)?;
    let ours = Ours { model, input: &input };
    let embeddings = ours.embed(model, usize::MAX)?;
    let mut peers = Vec::new();
    let mut failed = Vec::new();
    for mode in args.modes.iter().filter(|mode| !mode.is_empty()) {
        let mut worker =
            Worker::start(mode, Command::new(&args.python).arg(&args.script).args(["worker", mode]))?;
        let answer: Value = worker.ask(&request(args, row, precision, model, &input)?)?;
        match answer.get("failed") {
            Some(why) => failed.push(format!("{mode}: {why}")),
            None => peers.push((worker, Vec::new(), answer)),
        }
    }
    let mut times = Vec::new();
    for _ in 0..args.turns {
        times.extend(ours.passes(args.passes)?);
        for (worker, times, _) in &mut peers {
            let answer: Value = worker.ask(&json!({"op": "run", "repeats": args.passes}))?;
            times.extend(answer["ms"].as_array().into_iter().flatten().filter_map(Value::as_f64));
        }
    }
    let mine = median(&mut times);
    let mut theirs = serde_json::Map::new();
    let mut best = f64::INFINITY;
    let mut cosine = Value::Null;
    for (worker, times, _) in &mut peers {
        let time = median(times);
        best = best.min(time);
        theirs.insert(worker.name().to_owned(), json!(time));
        if cosine.is_null() {
            let answer: Value = worker.ask(&json!({"op": "output"}))?;
            cosine = json!(least_cosine(&embeddings, &rows(&answer)));
        }
    }
    let to_cpu = match cpu {
        Some(cpu) => {
            let expected = ours.embed(cpu, 16)?;
            let expected: Vec<Vec<f32>> = expected.rows().map(<[f32]>::to_vec).collect();
            json!({"least_cosine": least_cosine(&embeddings, &expected), "max_difference": max_difference(&embeddings, &expected)})
        }
        None => Value::Null,
    };
    let count = match &input {
        Input::Images(images) => images.len(),
        Input::Texts(texts) => texts.len(),
    };
    Ok(json!({
        "model": args.model.file_name().map(|name| name.to_string_lossy()),
        "device": model.device(),
        "row": row,
        "precision": precision.name(),
        "ms": mine,
        "per_second": count as f64 / mine * 1e3,
        "peers_ms": theirs,
        "ratio": if best.is_finite() { json!(mine / best) } else { Value::Null },
        "least_cosine_to_peer": cosine,
        "to_cpu_f32": to_cpu,
        "failed": failed,
        "peer": peers.first().map(|(_, _, answer)| answer["version"].clone()),
    }))
}

/// The input of a row.
fn input(args: &Args, row: &str, model: &Model) -> Result<Input> {
    if let Some(batch) = row.strip_prefix("images/") {
        let side = model.preprocess().size() as usize;
        let mut random = fastrand::Rng::with_seed(7);
        let image = |_| Pixels::new((0..side * side * 3).map(|_| random.f32() * 4.0 - 2.0).collect());
        return Ok(Input::Images((0..batch.parse()?).map(image).collect()));
    }
    let file = args.captions.as_deref().ok_or("texts need --captions")?;
    let texts = captions(file)?;
    let step = (texts.len() / 1024).max(1);
    let ids = texts.iter().step_by(step).take(1024).map(|text| Ok(model.tokenize(text)?.ids));
    Ok(Input::Texts(ids.collect::<Result<_>>()?))
}

fn captions(file: &Path) -> Result<Vec<String>> {
    let mut reader = csv::Reader::from_path(file)?;
    let column = reader.headers()?.iter().position(|name| name == "caption").ok_or("no column `caption`")?;
    reader.records().map(|record| Ok(record?[column].to_owned())).collect()
}

/// What a peer is asked to prepare.
fn request(args: &Args, row: &str, precision: Precision, model: &Model, input: &Input) -> Result<Value> {
    let kind = match precision {
        Precision::F32 => "float32",
        Precision::F16 => "float16",
        _ => "bfloat16",
    };
    Ok(match input {
        Input::Images(images) => {
            let side = model.preprocess().size() as usize;
            let mut bytes = Vec::with_capacity(images.len() * side * side * 12);
            for image in images {
                let values = image.as_slice();
                for c in 0..3 {
                    bytes.extend(values.iter().skip(c).step_by(3).flat_map(|v| v.to_le_bytes()));
                }
            }
            let file = std::env::temp_dir().join(format!("bench-gpu-{}.f32", row.replace('/', "-")));
            std::fs::write(&file, bytes)?;
            json!({"op": "prepare", "model": args.model, "kind": "images", "batch": images.len(), "input": file, "type": kind})
        }
        Input::Texts(texts) => {
            let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
            let length = if row == "texts/cut" { longest } else { model.context_length() };
            json!({"op": "prepare", "model": args.model, "kind": "texts", "ids": texts, "length": length, "type": kind})
        }
    })
}

/// Our side of a row.
struct Ours<'a> {
    model: &'a Model,
    input: &'a Input,
}

impl Ours<'_> {
    /// Embeddings of the first `most` inputs.
    fn embed(&self, model: &Model, most: usize) -> Result<Embeddings> {
        Ok(match self.input {
            Input::Images(images) => model.encode_images(&images[..images.len().min(most)])?,
            Input::Texts(texts) => {
                let texts: Vec<&[u32]> = texts.iter().take(most).map(Vec::as_slice).collect();
                model.encode_token_ids(&texts)?
            }
        })
    }

    /// Milliseconds of each pass.
    fn passes(&self, passes: usize) -> Result<Vec<f64>> {
        Ok(match self.input {
            Input::Images(images) => {
                self.model.time_image_passes(images, passes)?.into_iter().map(|s| s * 1e3).collect()
            }
            Input::Texts(_) => {
                let timed = (0..passes).map(|_| {
                    let start = Instant::now();
                    self.embed(self.model, usize::MAX)?;
                    Ok(start.elapsed().as_secs_f64() * 1e3)
                });
                timed.collect::<Result<_>>()?
            }
        })
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rows(answer: &Value) -> Vec<Vec<f32>> {
    let numbers = |row: &Value| {
        row.as_array().into_iter().flatten().filter_map(|v| v.as_f64().map(|v| v as f32)).collect()
    };
    answer["rows"].as_array().into_iter().flatten().map(numbers).collect()
}

/// The least cosine of unit rows to others, row by row.
fn least_cosine(found: &Embeddings, expected: &[Vec<f32>]) -> f64 {
    let cosines = found.rows().zip(expected).map(|(a, b)| {
        let dot =
            |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    });
    cosines.fold(f64::INFINITY, f64::min)
}

fn max_difference(found: &Embeddings, expected: &[Vec<f32>]) -> f64 {
    let values = found.rows().zip(expected).flat_map(|(a, b)| a.iter().zip(b));
    values.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}
