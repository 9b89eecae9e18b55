//! Measures exact search on a memory of random unit vectors: `search_speed [pairs] [dim]`, 40,000 × 256 by default.

use std::time::Instant;

use xmore_memory::Memory;
use xmore_memory::store::{MemoryWriter, ModelIdentity};

/// Searches per figure; the median and the least are shown.
const REPEATS: usize = 21;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let pairs = arguments.next().transpose()?.unwrap_or(40_000);
    let dim = arguments.next().transpose()?.unwrap_or(256);
    let dir = std::env::temp_dir().join(format!("xmore-search-speed-{}", std::process::id()));

    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let model = ModelIdentity::new("random", String::new(), dim);
    let mut writer = MemoryWriter::create(&dir, model)?;
    let start = Instant::now();
    for i in 0..pairs {
        let (image, text) = (unit(dim, &mut seed), unit(dim, &mut seed));
        writer.push(&format!("photos/{:07}.jpg", i / 5), &format!("caption number {i}"), &image, &text)?;
    }
    writer.finish()?;
    println!("write {pairs} x {dim}: {:.2} s (random numbers included)", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let memory = Memory::open(&dir)?;
    println!("open: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    memory.caption(0)?;
    println!("metadata of the first part: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);

    for threads in [1, rayon::current_num_threads()] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for batch in [1, 8, 64] {
            let queries: Vec<f32> = (0..batch).flat_map(|_| unit(dim, &mut seed)).collect();
            let mut times = Vec::new();
            for _ in 0..REPEATS {
                let start = Instant::now();
                pool.install(|| memory.search_images(&queries, 128))?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            println!(
                "search, {threads} threads, batch {batch}, top 128: median {:.2} ms, least {:.2} ms",
                times[REPEATS / 2],
                times[0]
            );
        }
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
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
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= norm);
    row
}
