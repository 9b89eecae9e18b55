//! Measures exact search: `search_speed [pairs] [dim] [clusters]` makes a memory of random unit vectors (40,000 × 256 in no
//! clusters by default) and removes it, `search_speed DIR` takes the memory that is there, or makes it if pairs follow.

use std::path::PathBuf;
use std::time::Instant;

use xmore_memory::search::SearchOptions;
use xmore_memory::store::{MemoryWriter, ModelIdentity};
use xmore_memory::{Memory, Result};

/// Searches per figure; the median and the least are shown.
const REPEATS: usize = 21;

/// Hits of each query.
const N: usize = 128;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = arguments.first().is_some_and(|a| a.parse::<usize>().is_err());
    let dir = if given {
        PathBuf::from(arguments.remove(0))
    } else {
        std::env::temp_dir().join(format!("xmore-search-speed-{}", std::process::id()))
    };
    let number = |place: usize, default: usize| arguments.get(place).map_or(Ok(default), |a| a.parse());
    let (pairs, dim, clusters) = (number(0, 40_000)?, number(1, 256)?, number(2, 0)?);
    if !given || !arguments.is_empty() {
        let start = Instant::now();
        make(&dir, pairs, dim, clusters)?;
        println!("write {pairs} x {dim}: {:.2} s (random numbers included)", start.elapsed().as_secs_f64());
    }
    measure(&dir, given)?;
    if !given {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Writes a memory of random unit vectors. Those in clusters are some centre and 0.6 of a random direction; a centre is 0.5 of a
/// direction that all share, as embeddings of one encoder do, and 0.6 of one of its own.
fn make(dir: &std::path::Path, pairs: usize, dim: usize, clusters: usize) -> Result<()> {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let common = unit(dim, &mut seed);
    let centres: Vec<Vec<f32>> =
        (0..clusters).map(|_| sum(&common, 0.5, &unit(dim, &mut seed), 0.6)).collect();
    let mut member = || {
        let own = unit(dim, &mut seed);
        if centres.is_empty() {
            return own;
        }
        let centre = &centres[(seed >> 20) as usize % centres.len()];
        let mut row = sum(centre, 1.0, &own, 0.6);
        scale_to_unit(&mut row);
        row
    };
    let mut writer = MemoryWriter::create(dir, ModelIdentity::new("random", String::new(), dim))?;
    for i in 0..pairs {
        let (image, text) = (member(), member());
        writer.push(&format!("photos/{:07}.jpg", i / 5), &format!("caption number {i}"), &image, &text)?;
    }
    writer.finish()?;
    Ok(())
}

/// Searches the memory's images; by its own images and captions, moved a little, if `own`, else by random unit vectors.
fn measure(dir: &std::path::Path, own: bool) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let memory = Memory::open(dir)?;
    println!("open: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    memory.caption(0)?;
    println!("metadata of the first part: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);

    let (dim, mut seed) = (memory.dim(), 0x2545_f491_4f6c_dd1d);
    let kinds: &[&str] = if own { &["images by images", "images by captions"] } else { &["random"] };
    for threads in [1, rayon::current_num_threads()] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for (kind, batch) in kinds.iter().flat_map(|kind| [1, 8, 64].map(|batch| (*kind, batch))) {
            let mut times = Vec::new();
            let mut counts = xmore_memory::search::Counts::default();
            for repeat in 0..REPEATS {
                let mut queries = Vec::new();
                for q in 0..batch {
                    let mut row = vec![0.0; dim];
                    let id = (repeat * batch + q) as u64 * 7919 % memory.len();
                    match kind {
                        "images by images" => memory.image_embedding(id, &mut row)?,
                        "images by captions" => memory.text_embedding(id, &mut row)?,
                        _ => row.fill(0.0),
                    }
                    let share = if kind == "random" { 1.0 } else { 0.3 };
                    let mut query = sum(&row, 1.0, &unit(dim, &mut seed), share);
                    scale_to_unit(&mut query);
                    queries.extend(query);
                }
                let start = Instant::now();
                let found = pool.install(|| memory.search_images_with(&queries, &SearchOptions::new(N)))?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
                counts = counts + found.counts;
            }
            times.sort_by(f64::total_cmp);
            println!(
                "search {kind}, {threads} threads, batch {batch}, top {N}: median {:.2} ms, least {:.2} ms; {} candidates, {} scored, \
                 {} undecided of {} queries",
                times[REPEATS / 2],
                times[0],
                counts.candidates,
                counts.scored,
                counts.undecided,
                REPEATS * batch,
            );
        }
    }
    Ok(())
}

/// `a` times x and `b` times y.
fn sum(x: &[f32], a: f32, y: &[f32], b: f32) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| a * x + b * y).collect()
}

fn scale_to_unit(row: &mut [f32]) {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= norm);
}

/// A random unit vector (xorshift; each component a sum of uniform ones, so nearly normal).
fn unit(dim: usize, seed: &mut u64) -> Vec<f32> {
    let mut uniform = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut row: Vec<f32> = (0..dim).map(|_| uniform() + uniform() + uniform()).collect();
    scale_to_unit(&mut row);
    row
}
