//! Random splits that a seed determines, and the spread of a figure over them.

use serde::Serialize;
use xmore_eval::SplitMix64;

/// Uniform in 0..bound, without the bias of a plain remainder.
fn below(random: &mut SplitMix64, bound: u64) -> u64 {
    let unbiased = u64::MAX - u64::MAX % bound;
    loop {
        let value = random.next_u64();
        if value < unbiased {
            return value % bound;
        }
    }
}

/// Indices of the pairs in memory and of the queries, each sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// 75 %.
    pub memory: Vec<usize>,
    /// 25 %, rounded to the nearest.
    pub queries: Vec<usize>,
}

impl Split {
    /// A random split of `count` pairs, over all of them regardless of labels (Fisher–Yates).
    pub fn random(count: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..count).collect();
        let mut random = SplitMix64::new(seed);
        for i in (1..count).rev() {
            order.swap(i, below(&mut random, i as u64 + 1) as usize);
        }
        let mut memory = order.split_off((count + 2) / 4);
        order.sort_unstable();
        memory.sort_unstable();
        Self { memory, queries: order }
    }
}

/// Mean and sample standard deviation of a figure over the splits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation (divisor N − 1); `None` for a single value.
    pub std: Option<f64>,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Self { mean, std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_deterministic_disjoint_and_three_to_one() {
        for count in [8, 9, 10, 11, 601] {
            for seed in 0..20 {
                let split = Split::random(count, seed);
                assert_eq!(split, Split::random(count, seed));
                assert!((split.queries.len() as f64 - count as f64 / 4.0).abs() <= 0.5);
                let mut all = [split.memory, split.queries].concat();
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
        assert_ne!(Split::random(601, 0), Split::random(601, 1));
    }

    #[test]
    fn every_pair_is_a_query_equally_often() {
        let mut queried = [0u32; 20];
        for seed in 0..4000 {
            Split::random(20, seed).queries.into_iter().for_each(|i| queried[i] += 1);
        }
        // Binomial(4000, 1/4): mean 1000, standard deviation 27; five of them.
        assert!(queried.iter().all(|&n| n.abs_diff(1000) < 137), "{queried:?}");
    }

    #[test]
    fn mean_and_sample_deviation() {
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(spread.mean, 5.0);
        assert!((spread.std.unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-15);
        assert_eq!(Spread::of(&[0.5]), Spread { mean: 0.5, std: None });
    }
}
