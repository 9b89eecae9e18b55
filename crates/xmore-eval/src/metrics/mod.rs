//! Figures from outcomes: accuracy with every image counted, calibration, and significance.

mod calibration;
mod significance;

use serde::{Deserialize, Serialize};

pub use calibration::{Bin, Calibration, Selective, risk_coverage, selective};
pub use significance::{Comparison, Correctness, compare, mcnemar_exact};

use xmore::argmax;

/// A method's prediction for one image compared with the true label, reduced to what the figures need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The most probable label, the first of equals.
    pub label: usize,
    /// Its probability.
    pub confidence: f64,
    /// How many labels are ranked before the true one: 0 if the prediction is right.
    pub rank: usize,
    /// The true label's probability.
    pub truth: f64,
    /// Σ p², for the Brier score.
    pub squares: f64,
}

impl Outcome {
    /// Reduces a distribution over the labels.
    pub fn new(scores: &[f64], truth: usize) -> Self {
        let label = argmax(scores);
        let before =
            |(i, score): &(usize, &f64)| **score > scores[truth] || (**score == scores[truth] && *i < truth);
        Self {
            label,
            confidence: scores[label],
            rank: scores.iter().enumerate().filter(before).count(),
            truth: scores[truth],
            squares: scores.iter().map(|p| p * p).sum(),
        }
    }

    /// Whether the first answer is the true label.
    pub fn right(&self) -> bool {
        self.rank == 0
    }
}

/// Accuracy of one method; every image counts, those that could not be read as wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of all images whose first answer is right, in [0, 1].
    pub acc1: f64,
    /// Share of all images with the true label among the first five; none with fewer than five labels, as in CLIP_benchmark.
    pub acc5: Option<f64>,
    /// Mean over the labels that have images of the share of theirs that is right.
    pub mean_per_class_recall: f64,
}

impl Accuracy {
    /// `answers` has one entry an image, `None` where it could not be read; `truth` the label of each, below `classes`.
    pub fn of(answers: &[Option<Outcome>], truth: &[usize], classes: usize) -> Self {
        let within = |rank: usize| {
            let right = answers.iter().flatten().filter(|answer| answer.rank < rank).count();
            share(right, answers.len())
        };
        let recalls: Vec<f64> = class_recalls(answers, truth, classes).into_iter().flatten().collect();
        Self {
            acc1: within(1),
            acc5: (classes >= 5).then(|| within(5)),
            mean_per_class_recall: mean(&recalls),
        }
    }
}

/// For each label the share of its images that is right; `None` for a label without images.
pub fn class_recalls(answers: &[Option<Outcome>], truth: &[usize], classes: usize) -> Vec<Option<f64>> {
    let (mut right, mut all) = (vec![0usize; classes], vec![0usize; classes]);
    for (answer, &truth) in answers.iter().zip(truth) {
        all[truth] += 1;
        right[truth] += usize::from(answer.is_some_and(|answer| answer.right()));
    }
    right.into_iter().zip(all).map(|(right, all)| (all > 0).then(|| share(right, all))).collect()
}

/// `count` of `all`; 0 of nothing.
pub(crate) fn share(count: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { count as f64 / all as f64 }
}

/// The mean; 0 of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Sample standard deviation (divisor N − 1); `None` of fewer than two.
pub(crate) fn std(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_image_counts_and_labels_weigh_the_same() {
        // Three images of label 0, one right, one wrong, one unreadable; one of label 1, right; none of label 2.
        let answers = [
            Some(Outcome::new(&[0.6, 0.3, 0.1], 0)),
            Some(Outcome::new(&[0.3, 0.6, 0.1], 0)),
            None,
            Some(Outcome::new(&[0.2, 0.7, 0.1], 1)),
        ];
        let truth = [0, 0, 0, 1];
        let accuracy = Accuracy::of(&answers, &truth, 3);
        assert_eq!(accuracy.acc1, 0.5);
        assert_eq!(accuracy.acc5, None);
        assert!((accuracy.mean_per_class_recall - (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-15);
        assert_eq!(class_recalls(&answers, &truth, 3), [Some(1.0 / 3.0), Some(1.0), None]);
    }

    #[test]
    fn the_first_five_count_with_ties_in_the_labels_order() {
        let scores = [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1];
        let ranks: Vec<usize> = (0..7).map(|truth| Outcome::new(&scores, truth).rank).collect();
        assert_eq!(ranks, [0, 1, 2, 3, 4, 5, 6]);
        let answers: Vec<_> = (0..7).map(|truth| Some(Outcome::new(&scores, truth))).collect();
        assert_eq!(Accuracy::of(&answers, &[0, 1, 2, 3, 4, 5, 6], 7).acc5, Some(5.0 / 7.0));
    }

    #[test]
    fn the_spread_of_seeds_is_the_sample_standard_deviation() {
        assert_eq!(std(&[1.0]), None);
        assert_eq!(std(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), Some((32.0f64 / 7.0).sqrt()));
    }

    proptest! {
        #[test]
        fn a_right_answer_is_the_argmax(scores in proptest::collection::vec(0f64..1.0, 2..20), truth: prop::sample::Index) {
            let truth = truth.index(scores.len());
            let answer = Outcome::new(&scores, truth);
            prop_assert_eq!(answer.right(), answer.label == truth);
            prop_assert!(answer.rank < scores.len());
        }
    }
}
