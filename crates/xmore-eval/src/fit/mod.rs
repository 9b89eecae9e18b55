//! Fitting a calibration on labeled photos: a temperature for each method that answers each photo by itself, and a threshold for a wished
//! precision.

mod temperature;
mod threshold;

use xmore::{Fit, FittedWith, LabelSet, Method, MethodCalibration};

use crate::data::Dataset;
use crate::error::{EvalError, Result};
use crate::metrics::{Calibration, Outcome};

/// What is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FitOptions {
    /// The share of given answers that is to be right, for a threshold.
    pub target_precision: Option<f64>,
}

/// A method's distributions over the labels, and the true labels, of the photos that it is fitted on.
#[derive(Clone, Debug, Default)]
pub struct FitSamples {
    scores: Vec<Vec<f64>>,
    truth: Vec<usize>,
}

impl FitSamples {
    /// Fewest photos that a calibration is fitted on.
    pub const FEWEST: usize = 10;

    /// Adds a photo.
    pub fn push(&mut self, scores: Vec<f64>, truth: usize) {
        self.scores.push(scores);
        self.truth.push(truth);
    }

    /// How many photos there are.
    pub fn len(&self) -> usize {
        self.truth.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.truth.is_empty()
    }

    /// Fits a method on these photos of a dataset.
    ///
    /// # Errors
    /// [`EvalError::TooFewPhotos`].
    pub fn fit(
        &self,
        method: Method,
        options: &FitOptions,
        dataset: &Dataset,
        unreadable: usize,
        fitted_with: FittedWith,
    ) -> Result<MethodCalibration> {
        if self.len() < Self::FEWEST {
            let (found, needed) = (self.len(), Self::FEWEST);
            return Err(EvalError::TooFewPhotos { method: method.name(), found, needed });
        }
        let (temperature, at_bound) = temperature::fit(&self.scores, &self.truth);
        let each = |scores: &dyn Fn(&Vec<f64>) -> Vec<f64>| -> Vec<Option<Outcome>> {
            let photos = self.scores.iter().zip(&self.truth);
            photos.map(|(all, &truth)| Some(Outcome::new(&scores(all), truth))).collect()
        };
        let (before, after) = (each(&|scores| scores.clone()), each(&|scores| temperature.apply(scores)));
        let target = options.target_precision;
        Ok(MethodCalibration {
            method,
            temperature: temperature.value(),
            at_bound,
            threshold: target.and_then(|target| threshold::find(&after, target)),
            photos: self.len(),
            unreadable,
            dataset: dataset.name.clone(),
            labels: LabelSet::of(&dataset.labels),
            before: figures(&before),
            after: figures(&after),
            fitted_with,
        })
    }
}

/// How well confidence and truth agree.
pub(crate) fn figures(answers: &[Option<Outcome>]) -> Fit {
    let Calibration { ece, nll, .. } = Calibration::of(answers);
    Fit { ece, nll }
}
