//! Calibration fitted on labeled photos: a temperature, and a threshold for a wished precision, for each method; as a file, bound to what it was
//! fitted with.
//!
//! Temperature scaling (Guo et al. 2017, arXiv 1706.04599) raises a method's probabilities to the power 1/T and normalizes them; of a softmax
//! that divides the logits by T. The order of the labels stays. `xmore-eval` fits; here the result is read, checked and applied.

pub(crate) mod error;
mod fitted_with;

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xmore_files::{hex, read_input, write_output};

use crate::error::Result;
use crate::labels::Labels;
use crate::math::softmax;
use crate::methods::Method;
use error::CalibrationError;
pub use fitted_with::{CaptionsUsed, FittedWith, PairsUsed};

/// Version of the file's format.
const FORMAT_VERSION: u64 = 1;
/// Most bytes of a file that are read; one of six methods has some ten thousand.
const MAX_BYTES: u64 = 16 << 20;

/// What the probabilities of one method are raised to, as 1/T.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature(f64);

impl Temperature {
    /// The least temperature.
    pub const MIN: f64 = 0.05;
    /// The largest.
    pub const MAX: f64 = 20.0;

    /// `None` outside the bounds.
    pub fn new(value: f64) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&value).then_some(Self(value))
    }

    /// T.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The calibrated distribution: p^(1/T), normalized.
    pub fn apply(self, scores: &[f64]) -> Vec<f64> {
        softmax(&scores.iter().map(|&score| Self::log(score) / self.0).collect::<Vec<f64>>())
    }

    /// ln p, of a probability that has underflowed that of the least normal number: fitting and applying take the same.
    pub fn log(score: f64) -> f64 {
        score.max(f64::MIN_POSITIVE).ln()
    }
}

/// What is known of each method that was fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    methods: Vec<MethodCalibration>,
}

/// What was fitted for one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodCalibration {
    /// The method.
    #[serde(with = "method_name")]
    pub method: Method,
    /// The temperature.
    pub temperature: f64,
    /// Whether that is a bound of the temperatures that are looked at, so that another may fit better.
    pub at_bound: bool,
    /// The threshold, where a precision was wished for and one was found.
    pub threshold: Option<Threshold>,
    /// Photos that it was fitted on.
    pub photos: usize,
    /// Photos that could not be read, which are left out.
    pub unreadable: usize,
    /// Their dataset's name.
    pub dataset: String,
    /// Their labels.
    pub labels: LabelSet,
    /// On these photos, without the temperature.
    pub before: Fit,
    /// On these photos, with it.
    pub after: Fit,
    /// Model, memory and options.
    pub fitted_with: FittedWith,
}

/// The least score of answers of a wished precision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Answers with this calibrated score or more are given.
    pub min_score: f64,
    /// Share of them that is right, as it was wished for.
    pub target_precision: f64,
    /// Probability over the choice of photos that the precision is reached on further photos of the same kind.
    pub confidence: f64,
    /// Photos with a score above it.
    pub answered: usize,
    /// Those of them that are right.
    pub right: usize,
}

/// How well confidence and truth agree on photos.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Expected calibration error, in [0, 1].
    pub ece: f64,
    /// Mean of −ln p(true label).
    pub nll: f64,
}

/// Which labels: their names, own prompts and further names, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelSet {
    /// How many.
    pub count: usize,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl LabelSet {
    /// That of labels.
    pub fn of(labels: &Labels) -> Self {
        let own = labels.own_prompts().iter().zip(labels.synonyms());
        let mut each: Vec<_> = labels.names().iter().zip(own).collect();
        each.sort();
        let mut hash = Sha256::new();
        for (name, (prompts, synonyms)) in each {
            for texts in [std::slice::from_ref(name), prompts, synonyms] {
                hash.update((texts.len() as u64).to_le_bytes());
                for text in texts {
                    hash.update((text.len() as u64).to_le_bytes());
                    hash.update(text);
                }
            }
        }
        Self { count: labels.names().len(), sha256: hex(hash.finalize()) }
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    format_version: u64,
    methods: Vec<MethodCalibration>,
}

impl Calibration {
    /// Of methods that were fitted, each once.
    pub fn new(methods: Vec<MethodCalibration>) -> Self {
        Self { methods }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`CalibrationError::Io`], [`CalibrationError::Version`], [`CalibrationError::File`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_input(path, MAX_BYTES).map_err(|e| CalibrationError::io("read", path, e))?;
        let wrong = |reason: String| CalibrationError::File { path: path.to_owned(), reason };
        // The version comes before the other fields: a later version may have others.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let Version { format_version: found } =
            serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if found != FORMAT_VERSION {
            let path = path.to_owned();
            return Err(CalibrationError::Version { path, found, supported: FORMAT_VERSION }.into());
        }
        let File { methods, .. } = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        for (i, fitted) in methods.iter().enumerate() {
            let method = fitted.method;
            if methods[..i].iter().any(|other| other.method == method) {
                return Err(wrong(format!("method {method} is there twice")).into());
            }
            fitted.check().map_err(|reason| wrong(format!("method {method}: {reason}")))?;
        }
        Ok(Self { methods })
    }

    /// Writes the file in one step.
    ///
    /// # Errors
    /// [`CalibrationError::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = write_output(path, |file| self.write_to(file));
        Ok(written.map_err(|e| CalibrationError::io("write", path, e))?)
    }

    /// Writes the file's content.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(&self, mut file: &mut dyn Write) -> io::Result<()> {
        let content = File { format_version: FORMAT_VERSION, methods: self.methods.clone() };
        serde_json::to_writer_pretty(&mut file, &content)?;
        file.write_all(b"\n")
    }

    /// What was fitted, method by method.
    pub fn methods(&self) -> &[MethodCalibration] {
        &self.methods
    }

    /// What was fitted for a method.
    ///
    /// # Errors
    /// [`CalibrationError::NotFitted`].
    pub fn of(&self, method: Method) -> Result<&MethodCalibration> {
        let found = self.methods.iter().find(|fitted| fitted.method == method);
        Ok(found.ok_or_else(|| CalibrationError::NotFitted {
            method: method.name(),
            fitted: self.methods.iter().map(|fitted| fitted.method.name()).collect(),
        })?)
    }

    /// What was fitted for a method, if that was with `used`.
    ///
    /// # Errors
    /// [`CalibrationError::NotFitted`], [`CalibrationError::FittedWithOther`].
    pub fn for_use(&self, method: Method, used: &FittedWith) -> Result<&MethodCalibration> {
        let fitted = self.of(method)?;
        fitted.fitted_with.check(method, used)?;
        Ok(fitted)
    }
}

impl MethodCalibration {
    /// T.
    ///
    /// # Panics
    /// If it is outside of the bounds, which no file has.
    pub fn temperature(&self) -> Temperature {
        Temperature::new(self.temperature).expect("it was checked")
    }

    /// A warning, where labels are others than those that it was fitted on.
    pub fn label_warning(&self, labels: &Labels) -> Option<String> {
        let (fitted, found) = (&self.labels, LabelSet::of(labels));
        (*fitted != found).then(|| {
            format!(
                "the calibration of {} was fitted on other labels ({} of {}; here are {}): its probabilities may be off",
                self.method, fitted.count, self.dataset, found.count
            )
        })
    }

    /// Whether it holds what no fit gives; says what.
    fn check(&self) -> Result<(), String> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if Temperature::new(self.temperature).is_none() {
            let (min, max) = (Temperature::MIN, Temperature::MAX);
            return Err(format!("temperature {} is not in {min}..={max}", self.temperature));
        }
        if self.photos == 0 {
            return Err("it was fitted on no photos".to_owned());
        }
        if let Some(t) = &self.threshold
            && !(share(t.min_score)
                && share(t.target_precision)
                && share(t.confidence)
                && t.right <= t.answered
                && t.answered <= self.photos)
        {
            return Err("its threshold is not one that is fitted".to_owned());
        }
        Ok(())
    }
}

/// A method by its name.
mod method_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::methods::Method;

    pub(super) fn serialize<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(method.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
