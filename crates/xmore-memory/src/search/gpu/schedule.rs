//! Which rows a scan visits when, and how many entries its lists hold.

use std::ops::Range;

/// Rows of a tile: those that a block of the card scans together.
pub(super) const TILE_ROWS: usize = 128;

/// Entries of a list, at least: the rows of the first launch, all of which are kept.
const CAPACITY: usize = 8192;

/// Entries of a list for each hit, at least.
const CAPACITY_OF_A_HIT: usize = 16;

/// A launch visits at most so many times the rows that were seen: how many of them reach the n-th best of those seen varies, for a small n by as
/// much as there are.
const MOST_GROWTH: usize = 64;

/// Entries that each query's list holds.
pub(super) fn capacity(n: usize) -> usize {
    (n * CAPACITY_OF_A_HIT).max(CAPACITY).next_multiple_of(TILE_ROWS)
}

/// The tiles, as visited, of each launch over `tiles` of them, after `seen` rows were scanned. The first launch of all fills the lists; a later
/// one may add a quarter of their capacity if the rows that it visits are like those seen: then n of as many rows reach the n-th best.
pub(super) fn launches(tiles: usize, seen: u64, n: usize) -> Vec<Range<usize>> {
    let growth = (capacity(n) / (4 * n.max(1))).min(MOST_GROWTH) as u64;
    let (mut launches, mut at) = (Vec::new(), 0);
    while at < tiles {
        let seen = seen + (at * TILE_ROWS) as u64;
        let rows = if seen == 0 { capacity(n) as u64 } else { seen.saturating_mul(growth) };
        let count = usize::try_from(rows).unwrap_or(usize::MAX) / TILE_ROWS;
        let end = at.saturating_add(count.max(1)).min(tiles);
        launches.push(at..end);
        at = end;
    }
    launches
}

/// A step that visits each of `tiles` tiles once, the v-th being v · step modulo their number, and any first of them spread over all: the one
/// nearest to the golden section that has no common divisor with it.
pub(super) fn step(tiles: usize) -> usize {
    let golden = (tiles as f64 * 0.618_033_988_749_895) as usize;
    let coprime = |&step: &usize| step > 0 && gcd(step, tiles) == 1;
    (0..=golden).rev().find(coprime).unwrap_or(1)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_tile_is_visited_once(tiles in 1usize..5000, seen in 0u64..1_000_000, n in 1usize..2000) {
            let step = step(tiles);
            let mut visited = vec![false; tiles];
            let launches = launches(tiles, seen, n);
            for v in launches.iter().cloned().flatten() {
                prop_assert!(!std::mem::replace(&mut visited[v * step % tiles], true));
            }
            prop_assert!(visited.iter().all(|&v| v));
            // The first launch of all keeps every row.
            prop_assert!(seen > 0 || launches[0].len() * TILE_ROWS <= capacity(n));
            prop_assert!(capacity(n) >= n);
        }

        #[test]
        fn the_first_tiles_are_spread_over_all(tiles in 1000usize..100_000) {
            let step = step(tiles);
            let mut first: Vec<usize> = (0..64).map(|v| v * step % tiles).collect();
            first.sort_unstable();
            let widest = first.windows(2).map(|w| w[1] - w[0]).max().unwrap();
            prop_assert!(widest < tiles / 8, "{widest} of {tiles}");
        }
    }

    #[test]
    fn ten_million_rows_take_few_launches() {
        let tiles = 10_000_000usize.div_ceil(TILE_ROWS);
        assert_eq!(launches(tiles, 0, 128).len(), 4);
        assert_eq!(launches(tiles, 0, 1).len(), 3);
        assert!(launches(tiles, 0, 1024).len() <= 6);
    }
}
