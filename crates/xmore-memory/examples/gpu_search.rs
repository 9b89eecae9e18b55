//! Measures exact search on an NVIDIA GPU: `gpu_search [rows] [seed] [dim] [hopper]`, 10,000,000 random unit rows of 512 by default;
//! `hopper` 0 leaves out the kernel for compute capability 9.0. A JSON object a line.

use std::time::{Duration, Instant};

use half::f16;
use rayon::prelude::*;
use xmore_cuda::Device;
use xmore_memory::search::gpu::{GpuOptions, GpuRows};
use xmore_memory::search::{SearchOptions, SearchPart, search};

/// Searches per figure; their median is shown.
const REPEATS: usize = 20;

/// Hits of each query.
const N: usize = 128;

/// Rows that a task makes.
const CHUNK: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let rows = arguments.next().transpose()?.unwrap_or(10_000_000) as usize;
    let seed = arguments.next().transpose()?.unwrap_or(1);
    let dim = arguments.next().transpose()?.unwrap_or(512) as usize;
    let device = Device::open(0)?;

    let start = Instant::now();
    let mut stored = vec![f16::ZERO; rows * dim];
    stored.par_chunks_mut(CHUNK * dim).enumerate().for_each(|(i, out)| {
        let mut random = Random::new(seed, i as u64);
        let mut row = vec![0.0; dim];
        for out in out.chunks_exact_mut(dim) {
            random.unit(&mut row);
            out.iter_mut().zip(&row).for_each(|(out, &x)| *out = f16::from_f32(x));
        }
    });
    let made = start.elapsed();
    let parts = [SearchPart { first_id: 0, rows: &stored, codes: None }];
    let start = Instant::now();
    let fastest = GpuOptions::fastest(&device, rows as u64, dim)?;
    let hopper = arguments.next().transpose()?.map_or(fastest.hopper, |flag| flag != 0);
    let gpu = GpuRows::with_options(&device, &parts, dim, GpuOptions { hopper, ..fastest })?;
    println!(
        r#"{{"what":"rows","gpu":{:?},"rows":{rows},"dim":{dim},"made_s":{:.2},"uploaded_s":{:.2},"kept":{},"hopper":{hopper}}}"#,
        device.info().name,
        made.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        gpu.are_kept()
    );

    let mut queries = vec![0.0; 1024 * dim];
    let mut random = Random::new(seed, u64::MAX);
    queries.chunks_exact_mut(dim).for_each(|query| random.unit(query));
    let options = SearchOptions::new(N);
    for count in [1, 2, 4, 8, 64, 256, 1024] {
        let queries = &queries[..count * dim];
        let start = Instant::now();
        gpu.search(&parts, queries, &options)?;
        let first = start.elapsed();
        let mut all = Vec::new();
        let mut counts = None;
        for _ in 0..REPEATS {
            let start = Instant::now();
            let (found, times) = gpu.search_timed(&parts, queries, &options)?;
            all.push((start.elapsed(), times.card, times.scoring, times.without));
            counts = Some(found.counts);
        }
        let median = |of: fn(&(Duration, Duration, Duration, Duration)) -> Duration| {
            let mut times: Vec<f64> = all.iter().map(|times| of(times).as_secs_f64() * 1e3).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let counts = counts.unwrap_or_default();
        let card = median(|t| t.1);
        println!(
            r#"{{"what":"search","queries":{count},"n":{N},"first_ms":{:.2},"median_ms":{:.3},"card_ms":{card:.3},"scoring_ms":{:.3},"without_ms":{:.3},"undecided":{},"candidates":{:.1},"read_tb_s":{:.3},"tflop_s":{:.1}}}"#,
            first.as_secs_f64() * 1e3,
            median(|t| t.0),
            median(|t| t.2),
            median(|t| t.3),
            counts.undecided,
            counts.candidates as f64 / count as f64,
            (rows * dim * 2) as f64 / card / 1e9,
            2.0 * (rows * dim) as f64 * count as f64 / card / 1e9,
        );
    }

    // The same hits as without a card, by each of the card's ways.
    let checked = 64;
    let start = Instant::now();
    let expected = search(&parts, dim, &queries[..checked * dim], &options)?;
    let without = start.elapsed();
    for batch in [1, 8, checked] {
        let (mut same, mut equal) = (0usize, true);
        for (queries, expected) in
            queries[..checked * dim].chunks(batch * dim).zip(expected.hits.chunks(batch))
        {
            let found = gpu.search(&parts, queries, &options)?;
            equal &= found.hits == expected;
            for (found, expected) in found.hits.iter().zip(expected) {
                let ids: std::collections::HashSet<u64> = found.iter().map(|hit| hit.id).collect();
                same += expected.iter().filter(|hit| ids.contains(&hit.id)).count();
            }
        }
        println!(
            r#"{{"what":"check","queries":{checked},"batch":{batch},"recall":{:.6},"equal":{equal},"without_gpu_ms":{:.1}}}"#,
            same as f64 / (checked * N.min(rows)) as f64,
            without.as_secs_f64() * 1e3
        );
        if !equal {
            return Err("hits differ from those of the search without a GPU".into());
        }
    }
    Ok(())
}

/// Repeatable random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// A random unit vector; each component is a sum of four uniform ones, so nearly normal.
    fn unit(&mut self, out: &mut [f32]) {
        for x in &mut *out {
            let bits = self.next();
            let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
            *x = sum as f32 - 2.0 * 65535.0;
        }
        let norm = out.iter().map(|x| x * x).sum::<f32>().sqrt();
        out.iter_mut().for_each(|x| *x /= norm);
    }
}
