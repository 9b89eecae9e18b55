//! AdamW with the one-cycle schedule.

/// Decoupled weight decay Adam (Loshchilov and Hutter) on one flat parameter.
pub struct AdamW {
    mean: Vec<f32>,
    square: Vec<f32>,
    decay: f32,
    steps: i32,
}

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.98;
const EPSILON: f32 = 1e-8;

impl AdamW {
    /// For `len` values, with that weight decay.
    pub fn new(len: usize, decay: f32) -> Self {
        Self { mean: vec![0.0; len], square: vec![0.0; len], decay, steps: 0 }
    }

    /// One step at learning rate `rate`.
    pub fn step<'a>(
        &mut self,
        values: impl Iterator<Item = &'a mut f32>,
        gradients: impl Iterator<Item = &'a f32>,
        rate: f32,
    ) {
        self.steps += 1;
        let (correct1, correct2) = (1.0 - BETA1.powi(self.steps), 1.0 - BETA2.powi(self.steps));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((value, gradient), (mean, square)) in values.zip(gradients).zip(moments) {
            *mean = BETA1 * *mean + (1.0 - BETA1) * gradient;
            *square = BETA2 * *square + (1.0 - BETA2) * gradient * gradient;
            *value -= rate * self.decay * *value;
            *value -= rate * (*mean / correct1) / ((*square / correct2).sqrt() + EPSILON);
        }
    }
}

/// Learning rate of step `step` of `steps`: up from 1/25 of the highest over the first fifth, then down to almost nothing, both as half
/// cosines (Smith and Topin's one cycle, in PyTorch's form).
pub fn one_cycle(step: usize, steps: usize, highest: f32) -> f32 {
    let (start, end) = (highest / 25.0, highest / 25e4);
    let up = 0.2 * steps as f32 - 1.0;
    let cosine =
        |from: f32, to: f32, part: f32| to + (from - to) * 0.5 * (1.0 + (std::f32::consts::PI * part).cos());
    let step = step as f32;
    if step <= up {
        cosine(start, highest, step / up.max(1.0))
    } else {
        cosine(highest, end, (step - up) / (steps as f32 - 1.0 - up).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adamw_finds_a_minimum() {
        let (mut x, mut adam) = ([5.0f32, -3.0], AdamW::new(2, 0.0));
        for step in 0..2000 {
            let gradient = [2.0 * (x[0] - 1.0), 20.0 * (x[1] - 2.0)];
            adam.step(x.iter_mut(), gradient.iter(), one_cycle(step, 2000, 0.1));
        }
        assert!((x[0] - 1.0).abs() < 1e-2 && (x[1] - 2.0).abs() < 1e-2, "{x:?}");
    }

    #[test]
    fn the_cycle_rises_and_falls() {
        let rates: Vec<f32> = (0..100).map(|step| one_cycle(step, 100, 1.0)).collect();
        let peak = rates.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!(peak, 19);
        assert!((rates[0] - 0.04).abs() < 1e-6 && rates[99] < 1e-4);
    }
}
