//! What the machine could do, and what this process takes of it.

use std::time::Instant;

use rayon::prelude::*;

use crate::Result;

/// Bytes of the buffer that is read: far more than any cache holds.
const BYTES: usize = 1 << 30;

/// Bytes per second that the pool's threads read from memory, the best of a few runs.
pub fn read_bandwidth() -> f64 {
    // Not zeros, which the system might map to one page.
    let buffer = vec![1u64; BYTES / 8];
    let once = || {
        let start = Instant::now();
        let sum: u64 = buffer.par_chunks(1 << 17).map(sum).reduce(|| 0, u64::wrapping_add);
        assert_eq!(sum, (BYTES / 8) as u64, "every byte was read");
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..7).map(|_| once()).fold(0.0, f64::max)
}

/// Enough independent sums for the compiler to use the widest vectors of the baseline.
fn sum(values: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for values in values.chunks_exact(sums.len()) {
        sums.iter_mut().zip(values).for_each(|(sum, &x)| *sum = sum.wrapping_add(x));
    }
    sums.iter().fold(0, |a, &b| a.wrapping_add(b))
}

/// Resident bytes of this process.
pub fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).ok_or("no second field in /proc/self/statm")?.parse()?;
    Ok(pages * 4096)
}
