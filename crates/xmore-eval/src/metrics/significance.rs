//! Whether the difference between two methods on the same images is significant.
//!
//! Two tests that assume nothing about the images: McNemar's exact test of the images on which exactly one
//! of the two is right, and a percentile interval of the difference over bootstrap samples of the images (Efron and Tibshirani 1993).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Bootstrap samples that one task draws.
const SAMPLES_A_TASK: usize = 100;

/// One method against another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The other method.
    pub with: String,
    /// Difference of the accuracies, in [−1, 1].
    pub difference: f64,
    /// 95 % bootstrap interval of the difference.
    pub interval: [f64; 2],
    /// Images that this method alone gets right.
    pub better: usize,
    /// Images that the other alone gets right.
    pub worse: usize,
    /// Two-sided p of McNemar's exact test.
    pub p_value: f64,
}

/// Which images each method gets right.
#[derive(Clone, Debug, Default)]
pub struct Correctness {
    names: Vec<String>,
    /// For each method, for each image.
    right: Vec<Vec<bool>>,
}

impl Correctness {
    /// Adds a method.
    ///
    /// # Panics
    /// If it has another number of images than those before.
    pub fn add(&mut self, name: &str, right: Vec<bool>) {
        assert!(self.right.first().is_none_or(|first| first.len() == right.len()), "the same images");
        self.names.push(name.to_owned());
        self.right.push(right);
    }
}

/// Two-sided p of McNemar's exact test: of `better` + `worse` images on which the methods differ, how likely is so uneven a share if each
/// method were as likely to be the right one? min(1, 2 · Σ_{i ≤ min} C(n, i) / 2ⁿ).
pub fn mcnemar_exact(better: usize, worse: usize) -> f64 {
    let (n, few) = (better + worse, better.min(worse));
    // ln C(n, i) step by step, since 2⁻ⁿ underflows beyond n = 1074.
    let mut ln_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = ln_term.exp();
    for i in 0..few {
        ln_term += ((n - i) as f64 / (i + 1) as f64).ln();
        sum += ln_term.exp();
    }
    (2.0 * sum).min(1.0)
}

/// Compares every method with each of `references`. All comparisons see the same `samples` bootstrap samples, which `seed` determines.
pub fn compare(
    correctness: &Correctness,
    references: &[&str],
    samples: usize,
    seed: u64,
) -> Vec<Vec<Comparison>> {
    let references: Vec<usize> =
        references.iter().filter_map(|name| correctness.names.iter().position(|n| n == name)).collect();
    let images = correctness.right.first().map_or(0, Vec::len);
    let methods = correctness.right.len();
    if images == 0 || references.is_empty() {
        return vec![Vec::new(); methods];
    }
    let rights = sampled_rights(correctness, samples, seed);
    let compared = |method: usize, reference: usize| {
        let pairs = || correctness.right[method].iter().zip(&correctness.right[reference]);
        let better = pairs().filter(|(a, b)| **a && !**b).count();
        let worse = pairs().filter(|(a, b)| !**a && **b).count();
        let mut differences: Vec<i64> =
            rights.iter().map(|sample| sample[method] - sample[reference]).collect();
        differences.sort_unstable();
        let share = |count: i64| count as f64 / images as f64;
        Comparison {
            with: correctness.names[reference].clone(),
            difference: share(better as i64 - worse as i64),
            interval: [quantile(&differences, 0.025), quantile(&differences, 0.975)].map(share),
            better,
            worse,
            p_value: mcnemar_exact(better, worse),
        }
    };
    let others = |method: usize| references.iter().copied().filter(move |&reference| reference != method);
    (0..methods).map(|method| others(method).map(|reference| compared(method, reference)).collect()).collect()
}

/// The smallest value that at least the share `q` of the sorted ones does not exceed.
fn quantile(sorted: &[i64], q: f64) -> i64 {
    let at = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// For each bootstrap sample the number of images that each method gets right.
///
/// Few patterns of right and wrong occur, so a sample counts patterns instead of asking every method about every image.
fn sampled_rights(correctness: &Correctness, samples: usize, seed: u64) -> Vec<Vec<i64>> {
    let images = correctness.right[0].len();
    let mut patterns: Vec<Vec<bool>> = Vec::new();
    let mut index = std::collections::HashMap::new();
    let of_image: Vec<u32> = (0..images)
        .map(|i| {
            let pattern: Vec<bool> = correctness.right.iter().map(|right| right[i]).collect();
            *index.entry(pattern.clone()).or_insert_with(|| {
                patterns.push(pattern);
                patterns.len() as u32 - 1
            })
        })
        .collect();
    let tasks: Vec<usize> = (0..samples.div_ceil(SAMPLES_A_TASK)).collect();
    let drawn = tasks.into_par_iter().flat_map_iter(|task| {
        // Each task has a seed of its own, so that the number of threads changes nothing.
        let mut random = Random::new(seed.wrapping_add(task as u64));
        let (of_image, patterns) = (&of_image, &patterns);
        let count = SAMPLES_A_TASK.min(samples - task * SAMPLES_A_TASK);
        (0..count).map(move |_| {
            let mut counts = vec![0i64; patterns.len()];
            for _ in 0..images {
                counts[of_image[random.below(images as u64) as usize] as usize] += 1;
            }
            let methods = patterns[0].len();
            let right = |m: usize| patterns.iter().zip(&counts).filter(|(p, _)| p[m]).map(|(_, n)| n).sum();
            (0..methods).map(right).collect()
        })
    });
    drawn.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// References by exact fractions in Python; 86 and 150 are Agresti's prime-minister ratings, for which R's exact2x2 gives 3.716e-05.
    #[test]
    fn mcnemar_agrees_with_exact_fractions() {
        for (better, worse, p) in [
            (86, 150, 3.715_936_139_571_442e-5),
            (1, 9, 0.021_484_375),
            (5, 0, 0.0625),
            (3, 3, 1.0),
            (59, 121, 4.434_449_263_755_176e-6),
            (0, 0, 1.0),
            (1000, 1100, 0.030_720_707_864_242_296),
        ] {
            let found = mcnemar_exact(better, worse);
            assert!((found - p).abs() <= 1e-9 * p, "{better} {worse}: {found} {p}");
        }
    }

    fn correctness() -> Correctness {
        // 400 images: both right on 200, only `b` on 60, only `a` on 20, both wrong on 120.
        let mut correctness = Correctness::default();
        correctness.add("a", (0..400).map(|i| i < 220).collect());
        correctness.add("b", (0..400).map(|i| !(200..220).contains(&i) && i < 280).collect());
        correctness
    }

    #[test]
    fn the_bootstrap_interval_is_that_of_the_normal_approximation() {
        let found = compare(&correctness(), &["a"], 10_000, 1);
        assert!(found[0].is_empty());
        let found = &found[1][0];
        assert_eq!((found.better, found.worse, found.difference), (60, 20, 0.1));
        // σ² of one image's difference is (60 + 20) / 400 − 0.1² = 0.19; of the mean of 400, σ = 0.02179.
        let (low, high) = (0.1 - 1.96 * 0.021_794, 0.1 + 1.96 * 0.021_794);
        assert!(
            (found.interval[0] - low).abs() < 0.003 && (found.interval[1] - high).abs() < 0.003,
            "{found:?}"
        );
        assert!((found.p_value - mcnemar_exact(60, 20)).abs() < 1e-15);
    }

    #[test]
    fn a_seed_determines_the_interval_whatever_the_threads() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| compare(&correctness(), &["a", "b"], 1_050, 7))
        };
        assert_eq!(run(1), run(2));
        assert_ne!(sampled_rights(&correctness(), 100, 8), sampled_rights(&correctness(), 100, 9));
        assert!(compare(&Correctness::default(), &["a"], 10, 0).is_empty());
    }
}
