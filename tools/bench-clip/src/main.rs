//! Times xmore-clip against other engines on the same random weights: interleaved, one at a time, medians.

mod agreement;
mod ours;
mod peak;
mod peer;
mod processor;
mod report;
mod rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use ours::Ours;
use peer::Peer;
use report::{Compared, OurResult, PeerResult, RowReport};
use rows::{Input, Row};

/// Anything that goes wrong, in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Times xmore-clip against other engines on the same random weights, interleaved, one at a time.
#[derive(Parser)]
struct Args {
    /// Python that has torch, open_clip, onnx and onnxruntime (and transformers, faster-clip)
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The script of the other engines
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers.py"))]
    script: PathBuf,
    /// Folder for weights, graphs and inputs (11 GB)
    #[arg(long, default_value = "target/bench-clip")]
    cache: PathBuf,
    /// Captions: a csv file with a column `caption`, or lines of text; without it 64 sentences that are built in
    #[arg(long)]
    captions: Option<PathBuf>,
    /// Model folder whose text embeddings in int8 and bf16 are compared with its f32 ones, such as lite's
    #[arg(long)]
    near_texts: Option<PathBuf>,
    /// Rows to run: parts of their names, separated by commas (`--rows list` names them)
    #[arg(long, default_value = "")]
    rows: String,
    /// Engines to compare with, separated by commas
    #[arg(
        long,
        default_value = "onnxruntime,openvino-f32,openvino,torch,torch-bf16,transformers,faster-clip"
    )]
    peers: String,
    /// Runs of each engine in each row, of which the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Threads of every engine
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How to print
    #[arg(long, default_value = "table")]
    format: Format,
    /// (internal) Loads a model, encodes one image and prints what it took
    #[arg(long, hide = true)]
    load_probe: Option<PathBuf>,
    /// (internal) The precision of --load-probe
    #[arg(long, hide = true, default_value = "f32")]
    load_precision: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // As the command line tool starts them.
    let bind = xmore_clip::bind_threads(args.threads);
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).start_handler(bind).build_global()?;
    if let Some(dir) = &args.load_probe {
        return ours::load_probe(dir, &args.load_precision);
    }
    let wanted: Vec<&str> = args.rows.split(',').filter(|part| !part.is_empty()).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    let captions = rows::captions(args.captions.as_deref(), 64)?;
    let rows: Vec<Row> = rows::all(captions).into_iter().filter(|row| chosen(&row.name)).collect();
    if wanted == ["list"] {
        rows::all(Vec::new()).iter().for_each(|row| println!("{}", row.name));
        rows::loads().for_each(|(arch, precision)| println!("{}", rows::load_name(arch, precision)));
        println!("peak");
        return Ok(());
    }
    std::fs::create_dir_all(&args.cache)?;
    let cache = args.cache.canonicalize()?;
    let mut report = report::Report::new(args.threads, args.repeats);
    if chosen("peak") {
        report.peak = Some(peak::measure(args.threads, args.repeats));
        eprintln!("peak: {}", report.peak.as_ref().expect("just set"));
    }
    let mut peers = Vec::new();
    if !rows.is_empty() {
        for name in args.peers.split(',').filter(|name| !name.is_empty()) {
            peers.push(Peer::start(&args.python, &args.script, name, &cache, args.threads)?);
        }
    }
    for row in &rows {
        weights(args, &cache, row.arch)?;
        let row = measure(row, &mut peers, &cache, args.repeats)?;
        eprintln!("{}", report::line(&row));
        report.rows.push(row);
    }
    drop(peers);
    for (arch, precision) in rows::loads() {
        let name = rows::load_name(arch, precision);
        if chosen(&name) {
            weights(args, &cache, arch)?;
            let load = ours::load(&cache.join(arch), precision, args.threads, args.repeats)?;
            eprintln!("{name}: {load}");
            report.loads.push((name, load));
        }
    }
    if let Some(dir) = &args.near_texts {
        let texts = rows::captions(args.captions.as_deref(), 2000)?;
        report.near_texts = agreement::measure(dir, &texts)?;
        report.near_texts.iter().for_each(|agreement| eprintln!("texts: {agreement}"));
    }
    match args.format {
        Format::Table => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report.json())?),
    }
    Ok(())
}

/// Makes an architecture's random weights unless they are in the cache.
fn weights(args: &Args, cache: &Path, arch: &str) -> Result<()> {
    if cache.join(arch).join("open_clip_config.json").is_file() {
        return Ok(());
    }
    eprintln!("making random weights of {arch}");
    let status = std::process::Command::new(&args.python)
        .arg(&args.script)
        .args(["weights", arch, "--cache"])
        .arg(cache)
        .stdout(std::io::stderr())
        .status()
        .map_err(|e| format!("{}: {e}", args.python.display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ended with {status}", args.script.display()).into())
    }
}

/// One row: everyone prepares, then everyone runs in turn, `repeats` times.
fn measure(row: &Row, peers: &mut [Peer], cache: &Path, repeats: u32) -> Result<RowReport> {
    let request = row.request(cache)?;
    let mut results: Vec<PeerResult> = Vec::new();
    for peer in peers.iter_mut() {
        results.push(match peer.prepare(&request)? {
            Ok(ready) => PeerResult::new(peer.name(), ready),
            Err(why) => PeerResult::not_run(peer.name(), why),
        });
    }
    let variants = ours::variants();
    let engines: Vec<Ours> =
        variants.iter().map(|(_, options)| Ours::new(row, cache, options)).collect::<Result<_>>()?;
    let outputs = engines.iter().map(Ours::run).collect::<Result<Vec<_>>>()?;
    let first = &outputs[0];
    let mut times = vec![Vec::new(); engines.len()];
    let mut order: Vec<usize> = (0..engines.len() + peers.len()).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..repeats {
        // So that no engine always runs after the same one.
        rng.shuffle(&mut order);
        for &n in &order {
            peer::settle(peers);
            if n < engines.len() {
                let start = Instant::now();
                engines[n].run()?;
                times[n].push(start.elapsed().as_secs_f64() * 1e3);
            } else if results[n - engines.len()].not_run.is_none() {
                let n = n - engines.len();
                match peers[n].run()? {
                    Ok(ms) => results[n].times.push(ms),
                    Err(why) => results[n].not_run = Some(why),
                }
            }
        }
    }
    for (peer, result) in peers.iter_mut().zip(&mut results) {
        if result.not_run.is_none() {
            result.compared = peer.output()?.map(|rows| Compared::of(first, &rows));
        }
    }
    let ours = variants.into_iter().zip(times).zip(&outputs).map(|(((name, _), times), rows)| OurResult {
        name,
        times,
        compared: Compared::of(first, rows),
    });
    let ours = ours.collect();
    let items = match &row.input {
        Input::Images { batch } => *batch,
        Input::Texts { texts, .. } => texts.len(),
    };
    Ok(RowReport { name: row.name.clone(), arch: row.arch, items, ours, peers: results })
}
