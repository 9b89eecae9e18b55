//! The least score of answers of a wished precision, as in selective classification with guaranteed risk (Geifman and El-Yaniv 2017,
//! arXiv 1705.08500).
//!
//! Tried are the scores above which a tenth, two tenths, … and all of the photos lie. One is kept if so few answers above it are wrong that,
//! were the precision below the wished one, this would happen with a probability of at most δ/10 (exact binomial, one-sided: the bound of
//! Clopper and Pearson). Of those kept the least is taken. So, with a probability of 1 − δ over the choice of photos, the answers to further
//! photos of the same kind have the wished precision. The temperature is of the same photos, which that leaves out of account.

use xmore::Threshold;

use crate::metrics::Outcome;

/// 1 − δ.
const CONFIDENCE: f64 = 0.95;
/// Thresholds that are tried.
const TRIED: usize = 10;

/// The threshold; `None` if there is none for which so many photos tell it.
pub(super) fn find(answers: &[Option<Outcome>], target_precision: f64) -> Option<Threshold> {
    let mut order: Vec<(f64, bool)> = answers.iter().flatten().map(|a| (a.confidence, a.right())).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    (1..=TRIED).rev().find_map(|tenths| {
        let above = order.len() * tenths / TRIED;
        // All photos lie above 0; otherwise the score of the next one is the threshold, and those equal to it are not counted.
        let min_score = order.get(above).map_or(0.0, |(score, _)| *score);
        let counted: Vec<bool> =
            order[..above].iter().filter(|(score, _)| *score > min_score).map(|(_, right)| *right).collect();
        let (answered, right) = (counted.len(), counted.iter().filter(|right| **right).count());
        let chance = at_most(answered - right, answered, 1.0 - target_precision);
        (answered > 0 && chance <= (1.0 - CONFIDENCE) / TRIED as f64).then_some(Threshold {
            min_score,
            target_precision,
            confidence: CONFIDENCE,
            answered,
            right,
        })
    })
}

/// P(X ≤ k) for X binomial of n and p.
fn at_most(k: usize, n: usize, p: f64) -> f64 {
    if p >= 1.0 {
        return if k >= n { 1.0 } else { 0.0 };
    }
    if p <= 0.0 {
        return 1.0;
    }
    // ln of the probability of i, from that of i − 1.
    let (mut log, mut sum) = (n as f64 * (-p).ln_1p(), 0.0);
    for i in 0..=k.min(n) {
        if i > 0 {
            log += ((n - i + 1) as f64 / i as f64).ln() + p.ln() - (-p).ln_1p();
        }
        sum += log.exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.binom.cdf`: see `tests/check_fit.py`.
    #[test]
    fn the_binomial_is_scipys() {
        for (k, n, p, known) in [
            (0, 10, 0.1, 0.348_678_440_1),
            (3, 100, 0.1, 0.007_836_487_121_184_42),
            (12, 500, 0.05, 0.002_610_318_391_912_119_4),
            (7, 7, 0.3, 1.0),
        ] {
            let found = at_most(k, n, p);
            assert!((found - known).abs() < 1e-12, "{k} {n} {p}: {found} {known}");
        }
    }

    fn answers(count: usize, right: impl Fn(usize) -> bool) -> Vec<Option<Outcome>> {
        let of = |i: usize| {
            let p = 0.999 - 0.4 * i as f64 / count as f64;
            Some(Outcome::new(&[p, 1.0 - p], usize::from(!right(i))))
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn the_least_score_that_the_photos_prove_is_taken() {
        // The 600 most certain are right, of the others every second is: 700 answers have 50 wrong, 93 %.
        let all = answers(1_000, |i| i < 600 || i % 2 == 0);
        let found = find(&all, 0.88).unwrap();
        assert_eq!((found.answered, found.right), (700, 650));
        assert_eq!(found.min_score, all[700].unwrap().confidence);
        assert_eq!(find(&all, 0.95).unwrap().answered, 600);
        // All answers are right often enough.
        assert_eq!(
            find(&all, 0.7).unwrap(),
            Threshold { min_score: 0.0, answered: 1_000, right: 800, ..find(&all, 0.7).unwrap() }
        );
    }

    #[test]
    fn few_photos_prove_nothing() {
        // 0.9^50 > 0.005 ≥ 0.9^51: it takes 51 right answers without a wrong one.
        assert_eq!(find(&answers(50, |_| true), 0.9), None);
        assert_eq!(find(&answers(51, |_| true), 0.9).unwrap().min_score, 0.0);
        assert_eq!(find(&answers(1_000, |i| i % 2 == 0), 0.9), None);
        assert_eq!(find(&answers(1_000, |_| true), 1.0), None);
        assert_eq!(find(&[None], 0.5), None);
        // Equal scores cannot be told apart: no threshold lies between them.
        let equal: Vec<_> = (0..100).map(|i| Some(Outcome::new(&[0.8, 0.2], usize::from(i >= 80)))).collect();
        assert_eq!(find(&equal, 0.9), None);
    }

    /// On photos that were drawn alike the precision is missed at most as often as is said.
    #[test]
    fn the_guarantee_holds_on_other_photos() {
        use crate::random::SplitMix64;
        let mut random = SplitMix64::new(7);
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        // An answer of score s is right with probability s: above t the precision is the mean of s there, (1 + t) / 2.
        let (mut missed, mut found) = (0, 0);
        for _ in 0..400 {
            let photos: Vec<_> = (0..300)
                .map(|_| {
                    let (p, is_right) = (0.5 + 0.5 * uniform(), uniform());
                    Some(Outcome::new(&[p, 1.0 - p], usize::from(is_right >= p)))
                })
                .collect();
            if let Some(threshold) = find(&photos, 0.85) {
                found += 1;
                missed += usize::from((1.0 + threshold.min_score.max(0.5)) / 2.0 < 0.85);
            }
        }
        assert!(found > 200 && missed <= 20, "{missed} of {found}");
    }
}
