//! TDA, the training-free dynamic adapter (Karmanov et al. 2024, arXiv 2403.18293): a baseline that learns from the test stream.
//!
//! Two caches by predicted label hold features of earlier images. The positive one has those with the lowest entropy, and adds
//! α·exp(−β(1 − f·key)) to the logit of their labels. The negative one has images of middling entropy, and subtracts the same from the
//! labels that were unlikely for these. One view of each image is used here; for ImageNet the authors average confident ones among 64
//! augmented views, which costs 64 encodings an image.

use xmore_clip::Embeddings;

use crate::metrics::Outcome;
use xmore::{dot, entropy, softmax};

/// Hyperparameters. The default is the authors' published ImageNet configuration (`configs/imagenet.yaml`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TdaConfig {
    /// Images that the positive cache holds for a label.
    pub positive_shots: usize,
    /// Weight of the positive cache's logits.
    pub positive_alpha: f64,
    /// Sharpness of the positive cache.
    pub positive_beta: f64,
    /// Images that the negative cache holds for a label.
    pub negative_shots: usize,
    /// Weight of the negative cache's logits.
    pub negative_alpha: f64,
    /// Sharpness of the negative cache.
    pub negative_beta: f64,
    /// Entropies, as shares of log₂ C, between which an image enters the negative cache.
    pub negative_entropies: (f64, f64),
    /// Probabilities between which an image counts against a label in the negative cache.
    pub negative_probabilities: (f64, f64),
}

impl Default for TdaConfig {
    fn default() -> Self {
        Self {
            positive_shots: 3,
            positive_alpha: 2.0,
            positive_beta: 5.0,
            negative_shots: 2,
            negative_alpha: 0.117,
            negative_beta: 1.0,
            negative_entropies: (0.2, 0.5),
            negative_probabilities: (0.03, 1.0),
        }
    }
}

/// An earlier image, and the labels whose logits it changes.
struct Item {
    image: usize,
    entropy: f64,
    labels: Vec<usize>,
}

/// Up to `shots` images of the lowest entropy for each predicted label.
struct Cache {
    shots: usize,
    items: Vec<Vec<Item>>,
}

impl Cache {
    fn add(&mut self, predicted: usize, item: Item) {
        let items = &mut self.items[predicted];
        if items.len() < self.shots {
            items.push(item);
        } else if let Some(last) = items.last_mut().filter(|last| item.entropy < last.entropy) {
            *last = item;
        }
        items.sort_by(|a, b| a.entropy.total_cmp(&b.entropy));
    }

    /// Adds `weight`·exp(−`beta`(1 − f·key)) to the logits of each item's labels.
    fn add_affinities(&self, image: &[f32], images: &Embeddings, weight: f64, beta: f64, logits: &mut [f64]) {
        for item in self.items.iter().flatten() {
            let affinity = f64::from(dot(image, images.row(item.image)));
            let value = weight * (-(beta - beta * affinity)).exp();
            item.labels.iter().for_each(|&label| logits[label] += value);
        }
    }
}

/// The answers if the images, unit rows `[n, dim]`, come in `order`; each image's place in `truth` is its own.
pub(crate) fn tda(
    images: &Embeddings,
    labels: &Embeddings,
    logit_scale: f64,
    order: &[usize],
    truth: &[usize],
    config: &TdaConfig,
) -> Vec<Outcome> {
    let cache = |shots| Cache { shots, items: (0..labels.len()).map(|_| Vec::new()).collect() };
    let (mut positive, mut negative) = (cache(config.positive_shots), cache(config.negative_shots));
    let within = |value: f64, (low, high): (f64, f64)| low < value && value < high;
    let mut answers = vec![None; images.len()];
    for &i in order {
        let image = images.row(i);
        let mut logits: Vec<f64> = labels.rows().map(|t| logit_scale * f64::from(dot(image, t))).collect();
        let p = softmax(&logits);
        let predicted = xmore::argmax(&p);
        let entropy = entropy(&p);
        positive.add(predicted, Item { image: i, entropy, labels: vec![predicted] });
        // A natural logarithm over a binary one, as in the authors' code.
        if within(entropy / (labels.len() as f64).log2(), config.negative_entropies) {
            let labels = (0..p.len()).filter(|&c| within(p[c], config.negative_probabilities)).collect();
            negative.add(predicted, Item { image: i, entropy, labels });
        }
        positive.add_affinities(image, images, config.positive_alpha, config.positive_beta, &mut logits);
        negative.add_affinities(image, images, -config.negative_alpha, config.negative_beta, &mut logits);
        answers[i] = Some(Outcome::new(&softmax(&logits), truth[i]));
    }
    answers.into_iter().map(|answer| answer.expect("an order has every image")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_change_as_the_formulas_say() {
        // Two labels along the axes; scale 2. The entropy of the first image is low, that of the second is not.
        let labels = Embeddings::new(vec![1.0, 0.0, 0.0, 1.0], 2);
        let images = Embeddings::new(vec![0.8, 0.6, 0.6, 0.8], 2);
        let p = |z: f64| 1.0 / (1.0 + (-z).exp());
        let answers = tda(&images, &labels, 2.0, &[0, 1], &[0, 0], &TdaConfig::default());
        // Image 0: p = σ(0.4); its entropy over log₂ 2 = 1 is 0.674, too high for the negative cache. It is its own key: 2·e⁰.
        assert!((answers[0].truth - p(0.4 + 2.0)).abs() < 1e-6, "{answers:?}");
        // Image 1 sees image 0 at f·key = 0.96, and itself under label 1.
        let logit = -0.4 + 2.0 * (-5.0f64 * 0.04).exp() - 2.0;
        assert!((answers[1].truth - p(logit)).abs() < 1e-6, "{answers:?}");

        // With the bounds opened, the negative cache lowers both labels alike; 0.4 is narrower than σ(0.4).
        let open = TdaConfig {
            negative_entropies: (0.2, 0.7),
            negative_probabilities: (0.03, 0.5),
            ..Default::default()
        };
        let answers = tda(&images, &labels, 2.0, &[0, 1], &[0, 0], &open);
        // Image 0 lowers label 1 alone (p = 0.401).
        assert!((answers[0].truth - p(0.4 + 2.0 + 0.117)).abs() < 1e-6, "{answers:?}");
    }

    #[test]
    fn a_full_cache_keeps_the_lowest_entropies() {
        let mut cache = Cache { shots: 2, items: vec![Vec::new()] };
        for (image, entropy) in [(0, 0.5), (1, 0.3), (2, 0.4), (3, 0.9)] {
            cache.add(0, Item { image, entropy, labels: vec![0] });
        }
        assert_eq!(cache.items[0].iter().map(|item| item.image).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_order_decides() {
        let labels = Embeddings::new(vec![1.0, 0.0, 0.0, 1.0], 2);
        let images = Embeddings::new(vec![0.8, 0.6, 0.6, 0.8], 2);
        let run = |order: &[usize]| tda(&images, &labels, 2.0, order, &[0, 1], &TdaConfig::default());
        assert_ne!(run(&[0, 1]), run(&[1, 0]));
    }
}
