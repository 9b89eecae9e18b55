//! Times xmore-memory's search against other libraries on the same rows: interleaved, one at a time, medians.

mod data;
mod machine;
mod peer;
mod report;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use serde_json::json;
use xmore_memory::Memory;
use xmore_memory::search::{Found, SearchOptions, search};

use data::{OpenRows, RowFile};
use peer::Peer;
use report::{Entry, Opened, Report, Row};

/// Anything that goes wrong, in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Times xmore-memory's search against other libraries on the same rows, interleaved, one at a time.
#[derive(Parser)]
struct Args {
    /// Python that has numpy, faiss and usearch
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The script of the other libraries
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers.py"))]
    script: PathBuf,
    /// Folder for rows, codes and usearch's indexes
    #[arg(long, default_value = "target/bench-search")]
    cache: PathBuf,
    /// Search a memory's image embeddings instead of synthetic rows; its own images are the queries
    #[arg(long, conflicts_with_all = ["rows", "dim"])]
    memory: Option<PathBuf>,
    /// Numbers of synthetic rows, separated by commas; each gets its lines
    #[arg(long, default_value = "1000000", value_delimiter = ',')]
    rows: Vec<usize>,
    /// Length of synthetic rows
    #[arg(long, default_value_t = 512)]
    dim: usize,
    /// Hits of each query
    #[arg(long, default_value_t = 128)]
    n: usize,
    /// Queries searched together, separated by commas
    #[arg(long, default_value = "1,64", value_delimiter = ',')]
    batches: Vec<usize>,
    /// Libraries to compare with, separated by commas: faiss-flat, faiss-sq-fp16, usearch
    #[arg(long, default_value = "faiss-flat,usearch")]
    peers: String,
    /// Most rows for which the other libraries are run: they take 4 bytes a dimension
    #[arg(long, default_value_t = 1_000_000)]
    peer_rows: usize,
    /// Turns of each library, of which the median counts
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Threads of every library
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How to print
    #[arg(long, default_value = "table")]
    format: Format,
    /// (internal) Opens rows, searches once and prints what it took
    #[arg(long, hide = true)]
    open_probe: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Queries that are made; batches are taken from them in turn.
const QUERIES: usize = 256;

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
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    if let Some(path) = &args.open_probe {
        return open_probe(RowFile { path: path.clone(), rows: args.rows[0], dim: args.dim }, args.n);
    }
    if args.batches.iter().any(|&b| !(1..=QUERIES).contains(&b)) {
        return Err(format!("a batch has 1 to {QUERIES} queries").into());
    }
    std::fs::create_dir_all(&args.cache)?;
    let mut report = Report {
        threads: args.threads,
        n: args.n,
        bandwidth: machine::read_bandwidth(),
        rows: Vec::new(),
        opened: Vec::new(),
    };
    let files = match &args.memory {
        Some(dir) => {
            let start = Instant::now();
            let memory = Memory::open(dir)?;
            eprintln!("{}: open {:.2} ms", dir.display(), start.elapsed().as_secs_f64() * 1e3);
            vec![RowFile::of_memory(&args.cache, &memory)?]
        }
        None => {
            let most = args.rows.iter().copied().max().unwrap_or(0);
            let whole = RowFile::synthetic(&args.cache, most, args.dim)?;
            args.rows.iter().map(|&rows| RowFile { path: whole.path.clone(), rows, dim: args.dim }).collect()
        }
    };
    for file in files {
        file.encode()?;
        report.opened.push(open(&file, args)?);
        measure(&file, args, &mut report)?;
    }
    match args.format {
        Format::Table => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

/// A library whose turn comes.
enum Library {
    Ours { codes: bool },
    Peer(usize),
}

fn measure(file: &RowFile, args: &Args, report: &mut Report) -> Result<()> {
    let open = file.open()?;
    let queries = match &args.memory {
        Some(_) => (0..QUERIES).flat_map(|q| open.row(q * file.rows / QUERIES)).collect(),
        None => data::synthetic_queries(QUERIES, file.dim),
    };
    let query_path = args.cache.join("queries.f32");
    std::fs::write(&query_path, bytemuck::cast_slice(&queries))?;
    let data = json!({"rows": file.path, "count": file.rows, "dim": file.dim, "queries": query_path, "n": args.n,
                      "cache": args.cache});
    let mut entries = vec![
        ("codes", String::new(), None, Library::Ours { codes: true }),
        ("f16 scan", String::new(), None, Library::Ours { codes: false }),
    ];
    let mut peers = Vec::new();
    if file.rows <= args.peer_rows {
        for name in args.peers.split(',').filter(|name| !name.is_empty()) {
            let mut peer = Peer::start(&args.python, &args.script, name, args.threads)?;
            let answer = peer.prepare(&data)?;
            entries.push((
                name,
                answer.version.unwrap_or_default(),
                answer.not_run,
                Library::Peer(peers.len()),
            ));
            peers.push(peer);
        }
    }
    let code_bytes = open.code_bytes();
    let row_bytes = (file.rows * file.dim * 2) as u64;
    for &batch in &args.batches {
        let mut row = Row {
            rows: file.rows,
            dim: file.dim,
            batch,
            entries: entries
                .iter()
                .map(|(name, version, not_run, _)| Entry {
                    name: (*name).to_owned(),
                    version: version.clone(),
                    ms: Vec::new(),
                    recall: 0.0,
                    not_run: not_run.clone(),
                })
                .collect(),
            code_bytes,
            row_bytes,
            candidates: 0,
            scored: 0,
            undecided: 0,
            same_bits: true,
        };
        // The first turn warms up and is not counted.
        for turn in 0..=args.repeats as usize {
            let first = if batch == QUERIES { 0 } else { turn * batch % (QUERIES - batch + 1) };
            let some = &queries[first * file.dim..][..batch * file.dim];
            let mut truth: Option<Found> = None;
            let mut codes = None;
            for (entry, (.., library)) in row.entries.iter_mut().zip(&entries) {
                let (ms, ids) = match library {
                    _ if entry.not_run.is_some() => continue,
                    Library::Ours { codes: with_codes } => {
                        let start = Instant::now();
                        let found = ours(&open, file.dim, some, args.n, *with_codes)?;
                        let ms = start.elapsed().as_secs_f64() * 1e3;
                        let ids = found.hits.iter().map(|h| h.iter().map(|h| h.id).collect()).collect();
                        *(if *with_codes { &mut codes } else { &mut truth }) = Some(found);
                        (ms, ids)
                    }
                    Library::Peer(index) => {
                        let answer = peers[*index].run(first, batch)?;
                        if let Some(why) = answer.not_run {
                            return Err(format!("{}: {why}", peers[*index].name()).into());
                        }
                        (answer.ms, answer.ids)
                    }
                };
                if turn > 0 {
                    entry.ms.push(ms);
                }
                if let Some(truth) = &truth {
                    entry.recall = recall(&open, some, truth, &ids);
                }
            }
            if let (Some(codes), Some(truth)) = (codes, truth) {
                row.same_bits &= codes.hits == truth.hits;
                let ids: Vec<Vec<u64>> =
                    codes.hits.iter().map(|h| h.iter().map(|h| h.id).collect()).collect();
                row.entries[0].recall = recall(&open, some, &truth, &ids);
                row.candidates = codes.counts.candidates;
                row.scored = codes.counts.scored;
                row.undecided += codes.counts.undecided;
            }
        }
        eprint!("{row}");
        report.rows.push(row);
    }
    Ok(())
}

fn ours(open: &OpenRows, dim: usize, queries: &[f32], n: usize, codes: bool) -> Result<Found> {
    Ok(search(&open.parts(codes), dim, queries, &SearchOptions::new(n))?)
}

/// Mean share of the true hits that were found. The truth is the f32 scan of the same rows; another row with the last hit's score, such
/// as the same image with another caption, is as good.
fn recall(open: &OpenRows, queries: &[f32], truth: &Found, ids: &[Vec<u64>]) -> f64 {
    let queries = queries.chunks_exact(queries.len() / ids.len());
    let of = |((truth, ids), query): ((&Vec<xmore_memory::Hit>, &Vec<u64>), &[f32])| {
        let known: HashSet<u64> = truth.iter().map(|hit| hit.id).collect();
        let last = f64::from(truth.last().map_or(f32::INFINITY, |hit| hit.similarity));
        let score =
            |id| open.row(id).iter().zip(query).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let distinct: HashSet<u64> = ids.iter().copied().collect();
        // A millionth is what sums of f32 in another order may differ by.
        let good = |id: &&u64| known.contains(id) || score(**id as usize) >= last - 1e-6;
        distinct.iter().filter(good).count().min(truth.len()) as f64 / truth.len().max(1) as f64
    };
    truth.hits.iter().zip(ids).zip(queries).map(of).sum::<f64>() / truth.hits.len() as f64
}

/// Opening in a fresh process of this very program.
fn open(file: &RowFile, args: &Args) -> Result<Opened> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--threads", &args.threads.to_string(), "--rows", &file.rows.to_string()])
        .args(["--dim", &file.dim.to_string(), "--n", &args.n.to_string(), "--open-probe"])
        .arg(&file.path)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the open probe ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child.
fn open_probe(file: RowFile, n: usize) -> Result<()> {
    let query = data::synthetic_queries(1, file.dim);
    let before = machine::resident()?;
    let start = Instant::now();
    let open = file.open()?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let opened = machine::resident()?;
    let start = Instant::now();
    ours(&open, file.dim, &query, n, true)?;
    let first_query_ms = start.elapsed().as_secs_f64() * 1e3;
    let queried = machine::resident()?;
    let probe = Opened { rows: file.rows, ms, before, opened, queried, first_query_ms };
    println!("{}", serde_json::to_string(&probe)?);
    Ok(())
}
