//! The losses, each with its gradients.

use ndarray::{Array2, ArrayView2, Axis, Zip};

/// A loss and its gradients with respect to both sides' unit rows and the logarithm of the scale.
pub struct Loss {
    pub value: f32,
    pub images: Array2<f32>,
    pub texts: Array2<f32>,
    pub log_scale: f32,
}

/// Symmetric InfoNCE with label smoothing: row i of both sides belong together. `negative[[i, j]]` tells whether text j may be
/// a negative of image i; what is neither negative nor the pair itself is left out of the sums.
pub fn info_nce(
    images: ArrayView2<f32>,
    texts: ArrayView2<f32>,
    scale: f32,
    negative: &Array2<bool>,
    smoothing: f32,
) -> Loss {
    let n = images.nrows();
    let mut logits = images.dot(&texts.t()) * scale;
    Zip::indexed(&mut logits).and(negative).for_each(|(i, j), l, &ok| {
        if i != j && !ok {
            *l = f32::NEG_INFINITY;
        }
    });
    let mut gradient = Array2::zeros((n, n));
    let mut value = cross_entropy(&logits, smoothing, &mut gradient);
    let mut transposed = Array2::zeros((n, n));
    value += cross_entropy(&logits.t().to_owned(), smoothing, &mut transposed);
    gradient += &transposed.t();
    gradient *= 0.5 / n as f32;
    through_logits(value * 0.5 / n as f32, images, texts, scale, &logits, gradient)
}

/// Sum over rows of the cross entropy between softmax(row) and the smoothed diagonal; writes softmax − target.
fn cross_entropy(logits: &Array2<f32>, smoothing: f32, gradient: &mut Array2<f32>) -> f32 {
    let mut total = 0.0;
    for (i, (row, mut out)) in logits.axis_iter(Axis(0)).zip(gradient.axis_iter_mut(Axis(0))).enumerate() {
        let max = row.fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
        let log_sum = max + sum.ln();
        let count = row.iter().filter(|v| v.is_finite()).count() as f32;
        for (j, (&logit, g)) in row.iter().zip(&mut out).enumerate() {
            if logit == f32::NEG_INFINITY {
                continue;
            }
            let target = smoothing / count + if i == j { 1.0 - smoothing } else { 0.0 };
            total += target * (log_sum - logit);
            *g = (logit - log_sum).exp() - target;
        }
    }
    total
}

/// KL(targets ‖ softmax(scale · images · textsᵀ)), mean over the images, up to the targets' own entropy.
pub fn distillation(
    images: ArrayView2<f32>,
    texts: ArrayView2<f32>,
    scale: f32,
    targets: &Array2<f32>,
) -> Loss {
    let n = images.nrows() as f32;
    let logits = images.dot(&texts.t()) * scale;
    let mut gradient = logits.clone();
    let mut value = 0.0;
    for (mut row, targets) in gradient.axis_iter_mut(Axis(0)).zip(targets.axis_iter(Axis(0))) {
        let max = row.fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        let log_sum = max + row.iter().map(|v| (v - max).exp()).sum::<f32>().ln();
        for (v, &target) in row.iter_mut().zip(&targets) {
            value += target * (log_sum - *v);
            *v = ((*v - log_sum).exp() - target) / n;
        }
    }
    through_logits(value / n, images, texts, scale, &logits, gradient)
}

/// From the gradient of the logits to those of their ingredients.
fn through_logits(
    value: f32,
    images: ArrayView2<f32>,
    texts: ArrayView2<f32>,
    scale: f32,
    logits: &Array2<f32>,
    gradient: Array2<f32>,
) -> Loss {
    let log_scale = logits.iter().zip(&gradient).filter(|(l, _)| l.is_finite()).map(|(l, g)| l * g).sum();
    Loss { value, images: gradient.dot(&texts) * scale, texts: gradient.t().dot(&images) * scale, log_scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::{Head, Linear};

    fn table(rows: usize, width: usize, seed: u64) -> Array2<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        Array2::from_shape_simple_fn((rows, width), || rng.f32() - 0.5)
    }

    /// The whole chain, both heads and both losses, against central differences.
    #[test]
    fn gradients_match_finite_differences() {
        let (n, dim) = (7, 5);
        // The last layer starts as zero; here it must not be.
        let with_mlp = |inputs, rng: &mut fastrand::Rng| {
            let mut head = Head::random(dim, inputs, 4, rng);
            if let Some([_, last]) = &mut head.mlp {
                last.weight = table(dim, 4, 9);
            }
            head
        };
        let (x, e) = (table(n, 11, 1), table(n, 6, 2));
        let mut rng = fastrand::Rng::with_seed(3);
        let (visual, text) = (with_mlp(11, &mut rng), with_mlp(6, &mut rng));
        let negative = Array2::from_shape_fn((n, n), |(i, j)| (i + 2 * j) % 5 != 0);
        let mut targets = table(n, n, 4).mapv(|v| v + 0.6);
        targets /= &targets.sum_axis(Axis(1)).insert_axis(Axis(1));
        let losses = |visual: &Head, text: &Head, log_scale: f32| {
            let (v, t) = (visual.forward(x.clone()), text.forward(e.clone()));
            let scale = log_scale.exp();
            let nce = info_nce(v.unit.view(), t.unit.view(), scale, &negative, 0.1);
            let kl = distillation(v.unit.view(), t.unit.view(), scale, &targets);
            (nce, kl, v, t)
        };
        let log_scale = 1.5f32;
        let value = |visual: &Head, text: &Head, log_scale: f32| {
            let (nce, kl, ..) = losses(visual, text, log_scale);
            f64::from(nce.value) + f64::from(kl.value)
        };
        let (nce, kl, v, t) = losses(&visual, &text, log_scale);
        let visual_gradient = visual.backward(&v, &(&nce.images + &kl.images));
        let text_gradient = text.backward(&t, &(&nce.texts + &kl.texts));
        let h = 1e-2f32;
        let check = |name: &str, found: f32, up: f64, down: f64| {
            let want = (up - down) / (2.0 * f64::from(h));
            assert!((f64::from(found) - want).abs() < 2e-3, "{name}: {found} {want}");
        };
        let moved = |head: &Head, layer: usize, (r, c): (usize, Option<usize>), by: f32| {
            let mut head = head.clone();
            match c {
                Some(c) => head.layers_mut()[layer].weight[[r, c]] += by,
                None => head.layers_mut()[layer].bias[r] += by,
            }
            head
        };
        let get = |gradient: &[Linear], layer: usize, (r, c): (usize, Option<usize>)| match c {
            Some(c) => gradient[layer].weight[[r, c]],
            None => gradient[layer].bias[r],
        };
        for (layer, place) in [
            (0, (2, Some(7))),
            (0, (4, Some(10))),
            (0, (1, None)),
            (1, (3, Some(2))),
            (1, (0, None)),
            (2, (4, Some(3))),
        ] {
            let at = |by| value(&moved(&visual, layer, place, by), &text, log_scale);
            check("visual", get(&visual_gradient, layer, place), at(h), at(-h));
        }
        for (layer, place) in [(0, (0, Some(0))), (0, (3, Some(5))), (1, (2, Some(1))), (2, (1, None))] {
            let at = |by| value(&visual, &moved(&text, layer, place, by), log_scale);
            check("text", get(&text_gradient, layer, place), at(h), at(-h));
        }
        let at = |by: f32| value(&visual, &text, log_scale + by);
        check("log scale", nce.log_scale + kl.log_scale, at(h), at(-h));
    }
}
