//! Times the library's answers to single images: `bench.py` starts it beside the Python package, and asks for rounds by a line on standard input each.

use std::io::{BufRead, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use xmore::{AnswerOptions, Labels, NamedModel, OpenPairs, Pipeline, QueryImage, RemoteOptions};

/// Anything that goes wrong, in words.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Times the library's answers to single images.
#[derive(Parser)]
struct Args {
    /// The model's name
    #[arg(long, default_value = "lite")]
    model: String,
    /// Labels between commas
    #[arg(long)]
    labels: String,
    /// Memory
    #[arg(long)]
    memory: Option<String>,
    /// Threads; all cores if 0
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Answers of a round
    #[arg(long, default_value_t = 200)]
    calls: usize,
    /// The image, whose bytes are classified
    image: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let pairs =
        args.memory.as_ref().map(|path| OpenPairs::open(path, &RemoteOptions::default())).transpose()?;
    let model = Arc::new(NamedModel::open(&args.model)?);
    let pipeline = Pipeline::builder(model).pairs(pairs.map(Arc::new)).build()?;
    let method = pipeline.default_method();
    let classifier = pipeline.classifier(Labels::parse(&args.labels)?, &[method])?;
    let options = AnswerOptions { explain: true, ..AnswerOptions::new(method) };
    let image = QueryImage::Bytes(std::fs::read(&args.image)?);
    for line in stdin().lock().lines() {
        line?;
        let mut seconds = Vec::with_capacity(args.calls);
        for _ in 0..args.calls {
            let start = Instant::now();
            let answers = pipeline.classify(&classifier, std::slice::from_ref(&image), &options)?;
            answers.into_iter().collect::<Result<Vec<_>, _>>()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        println!("{}", seconds[seconds.len() / 2]);
    }
    Ok(())
}
