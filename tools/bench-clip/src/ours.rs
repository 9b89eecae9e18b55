//! xmore-clip's side of a row.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use xmore_clip::{Embeddings, LoadOptions, Model, Pixels, Precision};

use crate::Result;
use crate::rows::{Input, Row};

/// The ways to load a model that are timed, the reference first: each gets a column. bf16 is timed where the processor is faster in it than in f32.
pub fn variants() -> Vec<(&'static str, LoadOptions)> {
    let mut variants = vec![("f32", options(Precision::F32)), ("int8", options(Precision::Int8))];
    if Precision::Bf16.is_accelerated() {
        variants.push(("bf16", options(Precision::Bf16)));
    }
    variants
}

fn options(precision: Precision) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.precision = precision;
    options
}

/// A model and a row's input.
pub struct Ours<'a> {
    model: Model,
    input: &'a Input,
    pixels: Vec<Pixels>,
}

impl<'a> Ours<'a> {
    pub fn new(row: &'a Row, cache: &Path, options: &LoadOptions) -> Result<Self> {
        let model = Model::load_with(cache.join(row.arch), options)?;
        Ok(Self { model, input: &row.input, pixels: row.pixels() })
    }

    /// What is timed. Captions are tokenised here, too.
    pub fn run(&self) -> Result<Embeddings> {
        Ok(match self.input {
            Input::Images { .. } => self.model.encode_images(&self.pixels)?,
            Input::Texts { texts, .. } => self.model.encode_texts(texts)?.embeddings,
        })
    }
}

/// What a fresh process takes to its first embedding of an image, the weights being in the page cache.
#[derive(Clone, Serialize)]
pub struct Load {
    /// From starting the process to the embedding, median.
    pub ms: f64,
    /// Largest resident size, in bytes, median.
    pub peak_bytes: u64,
    /// Size of the weights' file.
    pub file_bytes: u64,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (peak, file) = (mib(self.peak_bytes), mib(self.file_bytes));
        let ratio = peak / file;
        write!(
            f,
            "{:.0} ms to the first embedding, peak {peak:.0} MiB = {ratio:.2} x the file's {file:.0} MiB",
            self.ms
        )
    }
}

/// What the child says: its own peak of resident memory.
#[derive(Deserialize, Serialize)]
struct Probe {
    peak_bytes: u64,
}

/// Times fresh processes of this very program, in a precision of [`variants`].
pub fn load(dir: &Path, precision: &str, threads: usize, repeats: u32) -> Result<Load> {
    let file = dir.join("open_clip_model.safetensors");
    // Into the page cache.
    let file_bytes = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?.len() as u64;
    let mut times = Vec::new();
    let mut peaks = Vec::new();
    for _ in 0..repeats {
        let start = Instant::now();
        let output = Command::new(std::env::current_exe()?)
            .args(["--threads", &threads.to_string(), "--load-precision", precision, "--load-probe"])
            .arg(dir)
            .stderr(Stdio::inherit())
            .output()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if !output.status.success() {
            return Err(format!("the load probe ended with {}", output.status).into());
        }
        peaks.push(serde_json::from_slice::<Probe>(&output.stdout)?.peak_bytes);
    }
    peaks.sort_unstable();
    Ok(Load { ms: crate::report::median(&times), peak_bytes: peaks[peaks.len() / 2], file_bytes })
}

/// The child: one grey image.
pub fn load_probe(dir: &Path, precision: &str) -> Result<()> {
    let (_, options) =
        variants().into_iter().find(|(name, _)| *name == precision).ok_or("no such precision")?;
    let model = Model::load_with(dir, &options)?;
    let side = model.preprocess().size() as usize;
    let embedding = model.encode_images(&[Pixels::new(vec![0.1; side * side * 3])])?;
    assert!(embedding.row(0).iter().all(|v| v.is_finite()), "an embedding is finite");
    println!("{}", serde_json::to_string(&Probe { peak_bytes: peak_resident()? })?);
    Ok(())
}

fn peak_resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
