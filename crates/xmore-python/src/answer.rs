//! The answer to one image, kept as the library gives it until it is looked at.

use std::sync::Arc;

use numpy::PyArray1;
use pyo3::prelude::*;
use xmore::Answer as GivenAnswer;

use crate::errors::classes::XmoreError;

/// One image's answer, with its explanation.
#[pyclass(frozen, module = "xmore._native")]
pub(crate) struct Answer {
    answer: GivenAnswer,
    labels: Arc<[String]>,
}

#[pymethods]
impl Answer {
    /// The best label; `None` where it is not good enough.
    #[getter]
    fn label(&self) -> Option<&str> {
        self.answer.label.as_deref()
    }

    /// The best label's score.
    #[getter]
    fn score(&self) -> Option<f64> {
        self.answer.predictions.first().map(|best| best.score)
    }

    /// float64 `[labels]`: the scores in the labels' order.
    fn scores<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        let scores = self.answer.explanation.as_ref().map(|explanation| &explanation.scores);
        let score = |label: &String| scores.and_then(|scores| scores.get(label)).copied().unwrap_or(f64::NAN);
        PyArray1::from_iter(py, self.labels.iter().map(score))
    }

    /// The answer as JSON: what `xmore classify --format json` prints of it, but for the image's name.
    fn json(&self) -> PyResult<String> {
        serde_json::to_string(&self.answer).map_err(|error| XmoreError::new_err(error.to_string()))
    }
}

impl Answer {
    pub(crate) fn new(answer: GivenAnswer, labels: Arc<[String]>) -> Self {
        Self { answer, labels }
    }
}
