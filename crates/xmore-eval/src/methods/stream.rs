//! `xmore-stream`: the ensemble as the authors' code computes it, with confidences divided by their sums so far.
//!
//! METHOD: α̂_t = α_t / Σ_{i≤t} α_i and β̂_t likewise; the answer is argmax_c α̂_t·p_img(c) + β̂_t·p_cap(c). The first image is always
//! mixed 1 : 1, and every later one depends on those before it.

use crate::metrics::Outcome;
use xmore::Evidence;

/// Both probabilities of every image, kept until the order is known: 8 bytes an image and label.
#[derive(Default)]
pub(crate) struct StreamProbabilities {
    image: Vec<f32>,
    captions: Vec<f32>,
    /// (α, β), `None` for an image without captions.
    confidences: Vec<Option<(f64, f64)>>,
    labels: usize,
}

impl StreamProbabilities {
    pub(crate) fn push(&mut self, evidence: &Evidence) {
        let image = &evidence.image;
        let captions = evidence.captions.as_ref();
        self.labels = image.values.len();
        let narrow = |p: &f64| *p as f32;
        self.image.extend(image.values.iter().map(narrow));
        self.captions.extend(captions.unwrap_or(image).values.iter().map(narrow));
        self.confidences.push(captions.map(|captions| (image.confidence, captions.confidence)));
    }

    /// For each image the share of p_img, α̂ / (α̂ + β̂), if they come in this order. An image without captions is answered by p_img
    /// and adds nothing to the sums, as there.
    fn shares(&self, order: &[usize]) -> Vec<f64> {
        let mut shares = vec![1.0; self.confidences.len()];
        let (mut alphas, mut betas) = (0.0, 0.0);
        for &i in order {
            let Some((alpha, beta)) = self.confidences[i] else { continue };
            alphas += alpha;
            betas += beta;
            // 0 / 0 where all confidences were 0.
            let of = |value: f64, sum: f64| if sum > 0.0 { value / sum } else { 0.0 };
            let (alpha, beta) = (of(alpha, alphas), of(beta, betas));
            shares[i] = if alpha + beta > 0.0 { alpha / (alpha + beta) } else { 0.5 };
        }
        shares
    }
}

/// The answers if the images come in `order`; each image's place in `truth` is its own. Scores are normalized to a distribution, which
/// changes no answer.
pub(crate) fn xmore_stream<'a>(
    probabilities: &'a StreamProbabilities,
    order: &[usize],
    truth: &[usize],
) -> Vec<Outcome> {
    let shares = probabilities.shares(order);
    let rows = |all: &'a [f32]| all.chunks_exact(probabilities.labels.max(1));
    let pairs = rows(&probabilities.image).zip(rows(&probabilities.captions));
    let answers = pairs.zip(shares).zip(truth).map(|(((image, captions), w), &truth)| {
        let mix = |(&i, &c): (&f32, &f32)| w * f64::from(i) + (1.0 - w) * f64::from(c);
        Outcome::new(&image.iter().zip(captions).map(mix).collect::<Vec<f64>>(), truth)
    });
    answers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmore::Probabilities;

    fn evidence(image: f64, captions: Option<f64>) -> Evidence {
        let distribution = |p: f64| Probabilities::new(vec![p, 1.0 - p]);
        Evidence {
            similarities: Vec::new(),
            image: distribution(image),
            templates: None,
            sigmoids: None,
            captions: captions.map(distribution),
            retrieved: Vec::new(),
            votes: Vec::new(),
            gated: None,
            note: None,
        }
    }

    #[test]
    fn confidences_are_divided_by_their_sums_so_far() {
        let mut probabilities = StreamProbabilities::default();
        for (image, captions) in [(0.9, Some(0.2)), (0.7, None), (0.6, Some(0.05))] {
            probabilities.push(&evidence(image, captions));
        }
        let confidence = |p: f64| 1.0 + (p * p.ln() + (1.0 - p) * (1.0 - p).ln()) / 2f64.ln();
        // In the images' order: 1 : 1 first, then each confidence over the sum of two; the one without captions is not counted.
        let (a0, b0, a2, b2) = (confidence(0.9), confidence(0.2), confidence(0.6), confidence(0.05));
        let (a, b) = (a2 / (a0 + a2), b2 / (b0 + b2));
        let shares = probabilities.shares(&[0, 1, 2]);
        assert_eq!(shares[..2], [0.5, 1.0]);
        assert!((shares[2] - a / (a + b)).abs() < 1e-12);
        // The other way round the last image is the first.
        assert_eq!(probabilities.shares(&[2, 1, 0])[2], 0.5);

        let answers = xmore_stream(&probabilities, &[0, 1, 2], &[0, 0, 0]);
        assert!((answers[0].truth - 0.55).abs() < 1e-7 && answers[0].right());
        assert!((answers[1].truth - 0.7).abs() < 1e-7);
        assert!(
            (answers[2].truth - (shares[2] * 0.6 + (1.0 - shares[2]) * 0.05)).abs() < 1e-7
                && !answers[2].right()
        );
    }

    #[test]
    fn images_that_are_sure_of_nothing_share_equally() {
        let mut probabilities = StreamProbabilities::default();
        probabilities.push(&evidence(0.5, Some(0.5)));
        assert_eq!(probabilities.shares(&[0]), [0.5]);
    }
}
