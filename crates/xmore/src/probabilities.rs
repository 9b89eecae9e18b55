//! Distributions over labels, their confidences, and how two become one: the modal-confidence ensemble.

use crate::math::confidence;

/// A distribution over the labels and how sure it is of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Probabilities {
    /// Probability of each label, in the labels' order.
    pub values: Vec<f64>,
    /// 1 − H(p) / ln C.
    pub confidence: f64,
}

impl Probabilities {
    /// # Panics
    /// If there are fewer than two labels; [`crate::Labels`] refuses that.
    pub fn new(values: Vec<f64>) -> Self {
        assert!(values.len() >= 2, "confidence is undefined for fewer than two labels");
        Self { confidence: confidence(&values), values }
    }

    /// Index of the most probable label; the first of equals.
    pub fn argmax(&self) -> usize {
        argmax(&self.values)
    }
}

/// Index of the largest score; the first of equals.
pub fn argmax(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// w p_img + (1 − w) p_cap.
pub fn mix(image: &Probabilities, captions: &Probabilities, image_weight: f64) -> Vec<f64> {
    let pairs = image.values.iter().zip(&captions.values);
    pairs.map(|(i, c)| image_weight * i + (1.0 - image_weight) * c).collect()
}

/// α / (α + β): the image's share in the ensemble. Two uniform distributions share equally.
pub fn image_weight(image: &Probabilities, captions: &Probabilities) -> f64 {
    let sum = image.confidence + captions.confidence;
    if sum > 0.0 { image.confidence / sum } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn distribution(weights: &[f64]) -> Probabilities {
        let sum: f64 = weights.iter().sum();
        Probabilities::new(weights.iter().map(|w| w / sum).collect())
    }

    #[test]
    fn the_surer_modality_leads() {
        let (image, captions) = (distribution(&[0.4, 0.35, 0.25]), distribution(&[0.05, 0.05, 0.9]));
        let weight = image_weight(&image, &captions);
        assert!(weight < 0.1, "{weight}");
        assert_eq!(argmax(&mix(&image, &captions, weight)), 2);
        assert_eq!(argmax(&mix(&image, &captions, 1.0)), image.argmax());
        assert_eq!(image_weight(&distribution(&[1.0, 1.0]), &distribution(&[1.0, 1.0])), 0.5);
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(argmax(&[0.1, 0.4, 0.4]), 1);
    }

    proptest! {
        #[test]
        fn an_ensemble_is_a_distribution(weights in proptest::collection::vec((0.001f64..1.0, 0.001f64..1.0), 2..30)) {
            let (i, c): (Vec<f64>, Vec<f64>) = weights.into_iter().unzip();
            let (image, captions) = (distribution(&i), distribution(&c));
            let mixed = mix(&image, &captions, image_weight(&image, &captions));
            prop_assert!((mixed.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
