//! Loads `xmore serve` on this machine and compares it with the library in this process: throughput, latency, overload, SIGTERM.

mod http;
mod library;
mod load;
mod parts;
mod server;
#[cfg(test)]
mod stand_in;
mod stats;
mod tally;
mod workload;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;
use xmore_memory::Memory;

use library::Library;
use load::{closed_loop, connected};
use parts::Bar;
use parts::idle::{self, Idle};
use parts::overload::{self, Overload};
use parts::term::{self, Term};
use parts::throughput::{self, Throughput};
use server::{Launch, Limits, Server};
use workload::{Predictions, Workload};

/// Anything that goes wrong, in words.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Loads `xmore serve` on this machine and compares it with the library in this process.
#[derive(Parser)]
struct Args {
    /// Memory of both sides; its model is used
    #[arg(long)]
    memory: PathBuf,
    /// Folder with the photos: JPEG files, in a folder for each class
    #[arg(long)]
    photos: PathBuf,
    /// Most photos, evenly spaced
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,
    /// Labels, separated by commas [default: the names of the classes' folders]
    #[arg(long)]
    labels: Option<String>,
    /// The binary that has `serve`
    #[arg(long, default_value = "target/release/xmore")]
    xmore: PathBuf,
    /// A server that runs on this machine already; SIGTERM is not measured then
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Its process, for resident memory
    #[arg(long, requires = "server")]
    pid: Option<u32>,
    /// What to measure, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Threads of the library and of a server that is started here [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Throughput: connections, each with one request at a time [default: the server's queue]
    #[arg(long)]
    connections: Option<usize>,
    /// Throughput: rounds of each side, of which the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Idle: photos
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Overload: how long
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Overload: requests by capacity
    #[arg(long, default_value_t = 3.0)]
    factor: f64,
    /// Overload: connections, enough for all requests that wait at the same time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pool: u32,
    /// SIGTERM: how many times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    terms: u32,
    /// SIGTERM: connections that are kept
    #[arg(long, default_value_t = 64)]
    kept: usize,
    /// SIGTERM: threads that connect for each request
    #[arg(long, default_value_t = 8)]
    fresh: usize,
    /// Writes everything that was measured
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Further arguments of `xmore serve`
    #[arg(last = true)]
    more: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Throughput,
    Idle,
    Overload,
    Term,
}

/// Everything measured.
#[derive(Serialize)]
struct Report {
    threads: usize,
    photos: usize,
    labels: Vec<String>,
    pairs: u64,
    /// Whether the memory knows enough of the labels to be used.
    uses_memory: bool,
    limits: Limits,
    throughput: Option<Throughput>,
    idle: Option<Idle>,
    overload: Option<Overload>,
    term: Option<Term>,
    bars: Vec<Bar>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

/// Says whether all bars are met.
fn run(args: &Args) -> Result<bool> {
    if args.server.is_some() && args.only.contains(&Part::Term) {
        return Err("term starts and ends servers itself: leave out --server, or term in --only".into());
    }
    if !(args.factor.is_finite() && args.factor > 0.0) {
        return Err(format!("--factor {}: expected a number above 0", args.factor).into());
    }
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let photos = workload::photos(&args.photos, args.most as usize)?;
    let labels = workload::labels(args.labels.as_deref(), &args.photos)?;
    let memory = Memory::open(&args.memory)?;
    let model = Arc::new(library::model_of(&memory)?);
    let pairs = memory.len();
    let library = Library::new(model.clone(), memory, labels.clone())?;
    // The answers that are expected, and the library's warm-up.
    let expected: Vec<Predictions> =
        library.classify_files(&photos)?.iter().map(|scores| library.predictions(scores)).collect();
    let launch = Launch {
        program: args.xmore.clone(),
        memory: args.memory.clone(),
        threads: args.threads,
        more: args.more.clone(),
    };
    let server = match &args.server {
        Some(url) => Server::attach(url, args.pid)?,
        None => Server::start(&launch)?,
    };
    let workload = |server: &Server| Workload::new(server.address(), &photos, &labels, expected.clone());
    let requests = workload(&server)?;
    let connections = args.connections.unwrap_or(server.limits().queue).max(1);
    let mut report = Report {
        threads: rayon::current_num_threads(),
        photos: photos.len(),
        labels: labels.names().to_vec(),
        pairs,
        uses_memory: library.uses_memory(),
        limits: server.limits(),
        throughput: None,
        idle: None,
        overload: None,
        term: None,
        bars: Vec::new(),
    };
    let scene = Scene { library: &library, photos: &photos, requests: &requests, connections };
    let restart = || -> Result<(Server, Workload)> {
        let server = Server::start(&launch)?;
        let requests = workload(&server)?;
        Ok((server, requests))
    };
    let measured = measure(args, &scene, server, restart, &mut report);
    // What was measured before something went wrong is worth having.
    print!("{report}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    measured?;
    Ok(report.bars.iter().all(|bar| bar.met))
}

/// What all measurements have in common.
struct Scene<'a> {
    library: &'a Library,
    photos: &'a [PathBuf],
    requests: &'a Workload,
    connections: usize,
}

/// One after the other; each leaves its figures and bars in the report.
fn measure(
    args: &Args,
    scene: &Scene<'_>,
    server: Server,
    restart: impl Fn() -> Result<(Server, Workload)>,
    report: &mut Report,
) -> Result<()> {
    let Scene { library, photos, requests, connections } = *scene;
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    if wants(Part::Throughput) {
        eprintln!("throughput");
        let rounds = args.rounds as usize;
        let measured = throughput::run(library, &server, requests, photos, connections, rounds)?;
        report.bars.extend(measured.bars());
        report.throughput = Some(measured);
    }
    if wants(Part::Idle) {
        eprintln!("idle");
        let measured = idle::run(library, &server, requests, photos, args.images as usize)?;
        report.bars.extend(measured.bars());
        report.idle = Some(measured);
    }
    if wants(Part::Overload) {
        eprintln!("overload");
        let capacity = match &report.throughput {
            Some(measured) => measured.capacity(),
            None => capacity(&server, requests, connections)?,
        };
        let period = Duration::from_secs(args.seconds.into());
        let measured = overload::run(&server, requests, capacity, args.factor, period, args.pool as usize)?;
        report.bars.extend(measured.bars());
        report.overload = Some(measured);
    }
    drop(server);
    if wants(Part::Term) && args.server.is_none() {
        eprintln!("SIGTERM under load");
        let measured = term::run(restart, [args.kept, args.fresh], args.terms as usize)?;
        report.bars.extend(measured.bars());
        report.term = Some(measured);
    }
    Ok(())
}

/// Accepted requests a second, where throughput is not measured: the second of two rounds.
fn capacity(server: &Server, workload: &Workload, connections: usize) -> Result<f64> {
    let mut clients = connected(server.address(), connections)?;
    closed_loop(workload, &mut clients, workload.len())?;
    let round = closed_loop(workload, &mut clients, workload.len())?;
    if round.tally.accepted() == 0 {
        return Err(format!("no request was accepted: {}", round.tally).into());
    }
    Ok(round.rate())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} photos, {} labels, a memory of {} pairs (used: {}); {} threads; batches of {}, a queue of {}",
            self.photos,
            self.labels.len(),
            self.pairs,
            self.uses_memory,
            self.threads,
            self.limits.max_batch,
            self.limits.queue
        )?;
        self.throughput.iter().try_for_each(|part| write!(f, "\n{part}"))?;
        self.idle.iter().try_for_each(|part| write!(f, "\n{part}"))?;
        self.overload.iter().try_for_each(|part| write!(f, "\n{part}"))?;
        self.term.iter().try_for_each(|part| write!(f, "\n{part}"))?;
        if !self.bars.is_empty() {
            writeln!(f, "\nbars")?;
        }
        for Bar { what, value, bar, met } in &self.bars {
            writeln!(f, "  {what:<54}{value:>10.3}  {bar:<8}{}", if *met { "met" } else { "MISSED" })?;
        }
        Ok(())
    }
}
