//! Calibration: does a method's confidence say how often it is right?

use serde::{Deserialize, Serialize};

use super::{Outcome, mean, share};

/// Bins of the expected calibration error (Guo et al. 2017, arXiv 1706.04599).
const BINS: usize = 15;

/// Answers whose confidence lies in one fifteenth of [0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub count: usize,
    /// Mean confidence; 0 if there are none.
    pub confidence: f64,
    /// Share that is right; 0 if there are none.
    pub accuracy: f64,
}

/// How well confidence and truth agree. Over the images that could be read; those that could not have no distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error: Σ (n_b / n) |accuracy_b − confidence_b| over 15 bins of equal width, (0, 1/15] the first.
    pub ece: f64,
    /// Mean of −ln p(true label).
    pub nll: f64,
    /// Mean of Σ_c (p_c − y_c)², in [0, 2].
    pub brier: f64,
    /// Area under the risk–coverage curve (Geifman and El-Yaniv 2017): the mean, over all coverages, of the share that is wrong
    /// among the most confident answers. Images that could not be read come last and are wrong.
    pub aurc: f64,
    /// The bins of `ece`.
    pub bins: Vec<Bin>,
}

impl Calibration {
    /// `answers` has one entry an image, `None` where it could not be read.
    pub fn of(answers: &[Option<Outcome>]) -> Self {
        let read: Vec<Outcome> = answers.iter().flatten().copied().collect();
        let bins = bins(&read);
        let gap = |bin: &Bin| share(bin.count, read.len()) * (bin.accuracy - bin.confidence).abs();
        // A probability that has underflowed to 0 would make the sum infinite.
        let nll: Vec<f64> = read.iter().map(|a| -a.truth.max(f64::MIN_POSITIVE).ln()).collect();
        let brier: Vec<f64> = read.iter().map(|a| a.squares - 2.0 * a.truth + 1.0).collect();
        let risks: Vec<f64> = risk_coverage(answers).into_iter().map(|(_, risk)| risk).collect();
        Self {
            ece: bins.iter().map(gap).sum(),
            nll: mean(&nll),
            brier: mean(&brier),
            aurc: mean(&risks),
            bins,
        }
    }
}

fn bins(answers: &[Outcome]) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); BINS];
    for answer in answers {
        let bin = (answer.confidence * BINS as f64).ceil() as usize;
        let bin = &mut bins[bin.clamp(1, BINS) - 1];
        bin.count += 1;
        bin.confidence += answer.confidence;
        bin.accuracy += f64::from(u8::from(answer.right()));
    }
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

/// Coverage and risk when the most confident n answers are given, for n from 1 to all. Equal confidences stand in the images' order.
pub fn risk_coverage(answers: &[Option<Outcome>]) -> Vec<(f64, f64)> {
    let mut order: Vec<(f64, bool)> =
        answers.iter().map(|a| a.map_or((-1.0, false), |a| (a.confidence, a.right()))).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut wrong = 0;
    let curve = order.iter().enumerate().map(|(i, (_, right))| {
        wrong += usize::from(!right);
        (share(i + 1, answers.len()), share(wrong, i + 1))
    });
    curve.collect()
}

/// What is left when a method may say that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selective {
    /// Answers less confident than this are not given.
    pub threshold: f64,
    /// Share of all images that get an answer.
    pub coverage: f64,
    /// Share of these that is right; `None` if no image gets an answer.
    pub accuracy: Option<f64>,
}

/// Accuracy when answers with a confidence below `threshold` are withheld.
pub fn selective(answers: &[Option<Outcome>], threshold: f64) -> Selective {
    let given: Vec<&Outcome> = answers.iter().flatten().filter(|a| a.confidence >= threshold).collect();
    let right = given.iter().filter(|a| a.right()).count();
    Selective {
        threshold,
        coverage: share(given.len(), answers.len()),
        accuracy: (!given.is_empty()).then(|| share(right, given.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answers(of: &[(f64, bool)]) -> Vec<Option<Outcome>> {
        // Two labels, the first of which is predicted with that confidence.
        of.iter().map(|&(p, right)| Some(Outcome::new(&[p, 1.0 - p], usize::from(!right)))).collect()
    }

    #[test]
    fn a_worked_example() {
        // Bins of 1/15: 0.95 and 0.96 fall into (14/15, 1], 0.62 into (9/15, 10/15], 0.6 = 9/15 into (8/15, 9/15].
        let answers = answers(&[(0.95, true), (0.96, false), (0.62, true), (0.6, false)]);
        let found = Calibration::of(&answers);
        assert_eq!(found.bins.iter().map(|b| b.count).collect::<Vec<_>>()[8..], [1, 1, 0, 0, 0, 0, 2]);
        let ece = (2.0 * (0.955f64 - 0.5) + (1.0 - 0.62) + 0.6) / 4.0;
        assert!((found.ece - ece).abs() < 1e-12, "{} {ece}", found.ece);
        let nll = -(0.95f64.ln() + 0.04f64.ln() + 0.62f64.ln() + 0.4f64.ln()) / 4.0;
        assert!((found.nll - nll).abs() < 1e-12);
        let brier = 2.0 * (0.05f64.powi(2) + 0.96f64.powi(2) + 0.38f64.powi(2) + 0.6f64.powi(2)) / 4.0;
        assert!((found.brier - brier).abs() < 1e-12);
        // In order of confidence: wrong, right, right, wrong.
        let risks: Vec<f64> = risk_coverage(&answers).into_iter().map(|(_, risk)| risk).collect();
        assert_eq!(risks, [1.0, 0.5, 1.0 / 3.0, 0.5]);
        assert!((found.aurc - (1.0 + 0.5 + 1.0 / 3.0 + 0.5) / 4.0).abs() < 1e-15);
    }

    #[test]
    fn abstaining_trades_coverage_for_accuracy_and_unreadable_images_stay_in_the_count() {
        let mut answers = answers(&[(0.9, true), (0.8, false), (0.6, true)]);
        answers.push(None);
        let found = selective(&answers, 0.85);
        assert_eq!((found.coverage, found.accuracy), (0.25, Some(1.0)));
        assert_eq!(selective(&answers, 0.0).coverage, 0.75);
        assert_eq!(selective(&answers, 0.99).accuracy, None);
        assert_eq!(risk_coverage(&answers).last(), Some(&(1.0, 0.5)));
    }

    #[test]
    fn a_probability_that_underflowed_has_a_finite_loss() {
        let found = Calibration::of(&[Some(Outcome::new(&[1.0, 0.0], 1))]);
        assert!((found.nll - 708.396_418_532_264_1).abs() < 1e-9);
        assert_eq!((found.ece, found.brier), (1.0, 2.0));
    }

    proptest! {
        /// The bins against a plain count of each.
        #[test]
        fn bins_are_a_partition(of in proptest::collection::vec((0.5f64..=1.0, any::<bool>()), 1..60)) {
            let found = Calibration::of(&answers(&of));
            let mut ece = 0.0;
            for b in 0..15 {
                let (low, high) = (b as f64 / 15.0, (b + 1) as f64 / 15.0);
                let inside: Vec<_> = of.iter().filter(|(p, _)| *p > low && *p <= high).collect();
                if !inside.is_empty() {
                    let right = inside.iter().filter(|(_, right)| *right).count() as f64;
                    let confidence = inside.iter().map(|(p, _)| p).sum::<f64>();
                    ece += (right - confidence).abs() / of.len() as f64;
                }
            }
            // A confidence within rounding of a border may fall on either side of it.
            let on_border = of.iter().any(|(p, _)| ((p * 15.0).round() - p * 15.0).abs() < 1e-9);
            prop_assert!(on_border || (found.ece - ece).abs() < 1e-9, "{} {ece}", found.ece);
            prop_assert_eq!(found.bins.iter().map(|b| b.count).sum::<usize>(), of.len());
        }
    }
}
