//! The temperature under which labeled photos are most likely (Guo et al. 2017, arXiv 1706.04599), with a prior for few photos.
//!
//! With β = 1/T, l = ln p and the true labels y, the sum over the photos of ln Σ_c exp(β l_c) − β l_y is minimized, to which
//! (β − 1)² / 2σ² is added with σ = 1/2: a normal prior around no change. Without it twenty photos that are all right give β = ∞. Both are
//! convex in β. With a hundred photos the prior changed T by 0.1 to 5 % on average over random halves of six sets, zero-shot, on which σ was
//! chosen of 1, 0.71, 0.5, 0.35 and 0.25 as well.

use xmore::Temperature;

/// 1/σ² of the prior on 1/T.
const PRIOR: f64 = 4.0;
/// Steps are this small at the end, relative to β.
const PRECISION: f64 = 1e-12;
/// Newton's method needs some ten steps, bisection alone fifty.
const MOST_STEPS: usize = 100;

/// The temperature, and whether it is a bound.
pub(super) fn fit(scores: &[Vec<f64>], truth: &[usize]) -> (Temperature, bool) {
    let logs: Vec<Vec<f64>> =
        scores.iter().map(|all| all.iter().map(|&p| Temperature::log(p)).collect()).collect();
    let inverse = minimum(&logs, truth, PRIOR, (1.0 / Temperature::MAX, 1.0 / Temperature::MIN));
    let temperature = (1.0 / inverse).clamp(Temperature::MIN, Temperature::MAX);
    let at_bound = temperature == Temperature::MIN || temperature == Temperature::MAX;
    (Temperature::new(temperature).expect("it is within the bounds"), at_bound)
}

/// The β within the bounds at which the sum is least: Newton's method, and bisection where it would leave the bounds that are known.
fn minimum(logs: &[Vec<f64>], truth: &[usize], prior: f64, (mut low, mut high): (f64, f64)) -> f64 {
    let slope = |beta: f64| {
        let (first, second) = derivatives(logs, truth, beta);
        (first + prior * (beta - 1.0), second + prior)
    };
    if slope(low).0 >= 0.0 {
        return low;
    }
    if slope(high).0 <= 0.0 {
        return high;
    }
    let mut beta: f64 = 1.0;
    for _ in 0..MOST_STEPS {
        let (first, second) = slope(beta);
        if first > 0.0 {
            high = beta
        } else {
            low = beta
        }
        let newton = beta - first / second;
        let next = if newton > low && newton < high { newton } else { f64::midpoint(low, high) };
        let step = (next - beta).abs();
        beta = next;
        if step <= PRECISION * beta {
            break;
        }
    }
    beta
}

/// First and second derivative by β of Σ ln Σ_c exp(β l_c) − β l_y: Σ (E l − l_y) and Σ Var l under the scaled distribution.
fn derivatives(logs: &[Vec<f64>], truth: &[usize], beta: f64) -> (f64, f64) {
    let (mut first, mut second) = (0.0, 0.0);
    for (logs, &truth) in logs.iter().zip(truth) {
        let max = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut mean, mut square) = (0.0, 0.0, 0.0);
        for log in logs {
            // Relative to the largest, so that the variance is no difference of large numbers.
            let below = log - max;
            let weight = (beta * below).exp();
            sum += weight;
            mean += weight * below;
            square += weight * below * below;
        }
        mean /= sum;
        first += mean - (logs[truth] - max);
        second += (square / sum - mean * mean).max(0.0);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn all(temperatures: (f64, f64)) -> (f64, f64) {
        (1.0 / temperatures.1, 1.0 / temperatures.0)
    }

    #[test]
    fn two_labels_have_a_closed_form() {
        // All photos say 0.9 to 0.1, 70 of 100 are right: the best is 0.7 to 0.3, so β = ln(7/3) / ln 9.
        let logs = vec![vec![0.9f64.ln(), 0.1f64.ln()]; 100];
        let truth: Vec<usize> = (0..100).map(|i| usize::from(i >= 70)).collect();
        let found = minimum(&logs, &truth, 0.0, all((0.05, 20.0)));
        let known = (7.0f64 / 3.0).ln() / 9.0f64.ln();
        assert!((found - known).abs() < 1e-9, "{found} {known}");
        // With the prior the slope vanishes there: 100 (E l − mean l_y) + 4 (β − 1) = 0.
        let found = minimum(&logs, &truth, PRIOR, all((0.05, 20.0)));
        let right = 1.0 / (1.0 + (-found * 9.0f64.ln()).exp());
        let slope = 100.0 * (right - 0.7) * 9.0f64.ln() + PRIOR * (found - 1.0);
        assert!(slope.abs() < 1e-7 && found > known, "{slope} {found}");
    }

    /// Labels that are drawn from softmax(z) and read from softmax(3 z) have the temperature 3, within what 20,000 photos tell.
    #[test]
    fn a_known_temperature_is_found_again() {
        let mut random = SplitMix64::new(1);
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let (mut scores, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let logits: Vec<f64> = (0..5).map(|_| 4.0 * uniform()).collect();
            let p = xmore::softmax(&logits);
            let (drawn, mut sum) = (uniform(), 0.0);
            truth.push(
                p.iter()
                    .position(|p| {
                        sum += p;
                        drawn < sum
                    })
                    .unwrap_or(4),
            );
            scores.push(xmore::softmax(&logits.iter().map(|l| 3.0 * l).collect::<Vec<_>>()));
        }
        let (found, at_bound) = fit(&scores, &truth);
        assert!((found.value() - 3.0).abs() < 0.1 && !at_bound, "{found:?}");
    }

    /// Against `scipy.optimize.brentq` on the same sum: see `tests/check_fit.py`.
    #[test]
    fn as_scipy_finds_it() {
        let scores: Vec<Vec<f64>> = (0..40u32)
            .map(|i| {
                let weights: Vec<f64> = (0..4u32).map(|c| f64::from((i * 7 + c * 5) % 11 + 1)).collect();
                let sum: f64 = weights.iter().sum();
                weights.into_iter().map(|w| w / sum).collect()
            })
            .collect();
        let of = |i: usize| if i.is_multiple_of(3) { i / 3 % 4 } else { xmore::argmax(&scores[i]) };
        let truth: Vec<usize> = (0..40).map(of).collect();
        let (found, at_bound) = fit(&scores, &truth);
        assert!((found.value() - 0.952_573_655_121_606_3).abs() < 1e-10 && !at_bound, "{found:?}");
    }

    #[test]
    fn few_photos_that_are_all_right_do_not_make_certain_and_bounds_are_told() {
        let (scores, right) = (vec![vec![0.6, 0.3, 0.1]; 20], vec![0; 20]);
        let (found, at_bound) = fit(&scores, &right);
        assert!(found.value() > 0.2 && found.value() < 1.0 && !at_bound, "{found:?}");
        assert_eq!(minimum(&[vec![-0.5, -1.0, -2.3]], &[0], 0.0, (0.05, 20.0)), 20.0);
        let (found, at_bound) = fit(&vec![vec![0.6, 0.3, 0.1]; 2_000], &vec![2; 2_000]);
        assert_eq!((found.value(), at_bound), (Temperature::MAX, true));
    }
}
