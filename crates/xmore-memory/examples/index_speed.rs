//! Measures upload to and search in a running Milvus: `index_speed milvus://host:port/collection [pairs] [dim]`, 10,000 × 512
//! random unit vectors by default. The collection is made, and dropped at the end.

use std::time::Instant;

use xmore_memory::retriever::{IndexKind, Milvus, MilvusAddress, RemoteOptions};
use xmore_memory::store::{MemoryWriter, ModelIdentity};
use xmore_memory::{Memory, Retriever};

/// Searches per figure.
const REPEATS: usize = 51;
const NEIGHBORS: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let location: MilvusAddress = arguments.next().ok_or("which collection?")?.parse()?;
    let mut numbers = arguments.map(|a| a.parse::<usize>());
    let pairs = numbers.next().transpose()?.unwrap_or(10_000);
    let dim = numbers.next().transpose()?.unwrap_or(512);
    let dir = std::env::temp_dir().join(format!("xmore-index-speed-{}", std::process::id()));

    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let model = ModelIdentity::new("random", "00", dim);
    let mut writer = MemoryWriter::create(&dir, model.clone())?;
    for i in 0..pairs {
        let (image, text) = (unit(dim, &mut seed), unit(dim, &mut seed));
        writer.push(&format!("photos/{:07}.jpg", i / 5), &format!("caption number {i}"), &image, &text)?;
    }
    writer.finish()?;
    let memory = Memory::open(&dir)?;

    let options = RemoteOptions::default();
    let milvus = Milvus::create(&location, &model, pairs as u64, IndexKind::Flat, &options)?;
    let (start, mut sent) = (Instant::now(), 0.0);
    let report = milvus.upload(&memory, |progress| {
        if progress.done == progress.total {
            sent = start.elapsed().as_secs_f64();
        }
        true
    })?;
    let whole = start.elapsed().as_secs_f64();
    println!("{pairs} x {dim}: {report:?}");
    println!(
        "upload: {:.0} rows/s ({sent:.1} s), counted and visible after {whole:.1} s",
        pairs as f64 / sent
    );

    for (name, retriever) in [("remote", &milvus as &dyn Retriever), ("local", &memory)] {
        for batch in [1, 8] {
            let mut times = Vec::new();
            for _ in 0..REPEATS {
                let queries: Vec<f32> = (0..batch).flat_map(|_| unit(dim, &mut seed)).collect();
                let start = Instant::now();
                retriever.nearest_images(&queries, dim, NEIGHBORS)?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            let (median, most) = (times[REPEATS / 2], times[REPEATS * 95 / 100]);
            println!("{name}, {batch} queries, top {NEIGHBORS}: median {median:.1} ms, 95 % {most:.1} ms");
        }
    }
    let exact = {
        let queries: Vec<f32> = (0..32).flat_map(|_| unit(dim, &mut seed)).collect();
        let ids = |retriever: &dyn Retriever| -> Result<Vec<Vec<u64>>, xmore_memory::MemoryError> {
            let answers = retriever.nearest_images(&queries, dim, NEIGHBORS)?;
            Ok(answers.iter().map(|a| a.pairs.iter().map(|n| n.id).collect()).collect())
        };
        ids(&milvus)?.iter().zip(&ids(&memory)?).filter(|(a, b)| a == b).count()
    };
    println!("{exact} of 32 queries find the same pairs in the same order as the local search");
    milvus.drop_collection()?;
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
    let row: Vec<f32> = (0..dim).map(|_| (0..4).map(|_| uniform()).sum()).collect();
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.into_iter().map(|v| v / norm).collect()
}
