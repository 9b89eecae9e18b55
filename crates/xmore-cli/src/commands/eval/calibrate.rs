//! Fitting a calibration on a dataset, and measuring with one.

use xmore::{
    Calibration, CalibrationError, FittedWith, Method, MethodCalibration, RetrievalOptions, XmoreError,
};
use xmore_eval::{Dataset, EvalError, EvalMethod, FitOptions, FitSamples};

use super::args::EvalArgs;
use super::results::Outcome;
use crate::error::{CliError, Result};
use crate::messages::{counted, tell};
use crate::setup::Setup;

/// What a method's answers depend on in a run.
fn fitted_with(args: &EvalArgs, setup: &Setup, method: Method) -> FittedWith {
    let options = RetrievalOptions { k: args.retrieval.k.main(), ..args.retrieval.options() };
    FittedWith::of(&setup.pipeline, method, setup.pipeline.templates(), options)
}

/// Those of the methods that a calibration can be of.
fn alone(methods: &[EvalMethod]) -> impl Iterator<Item = Method> + '_ {
    methods.iter().filter_map(|method| match method {
        EvalMethod::Each(method) => Some(*method),
        _ => None,
    })
}

/// That a calibration can be fitted for one of the methods at least, and that there are photos enough.
pub(super) fn check_methods(methods: &[EvalMethod], dataset: &Dataset) -> Result<()> {
    let (found, needed) = (dataset.images.len(), FitSamples::FEWEST);
    match alone(methods).next() {
        Some(method) if found < needed => {
            Err(EvalError::TooFewPhotos { method: method.name(), found, needed }.into())
        }
        Some(_) => Ok(()),
        None => Err(CliError::Usage("--fit needs a method that classify has; none is measured".to_owned())),
    }
}

/// What was fitted for the methods, of which one at least must be among those of the calibration.
pub(super) fn of_methods(
    args: &EvalArgs,
    setup: &Setup,
    calibration: &Calibration,
    methods: &[EvalMethod],
) -> Result<Vec<MethodCalibration>> {
    let (mut fitted, mut others, mut error) = (Vec::new(), Vec::new(), None);
    for method in alone(methods) {
        match calibration.for_use(method, &fitted_with(args, setup, method)) {
            Ok(found) => fitted.push(found.clone()),
            Err(XmoreError::Calibration(not_fitted @ CalibrationError::NotFitted { .. })) => {
                others.push(method.name());
                error.get_or_insert(not_fitted);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (fitted.is_empty(), error) {
        (true, Some(error)) => return Err(XmoreError::from(error).into()),
        (true, None) => {
            return Err(CliError::Usage(
                "--calibration needs a method that classify has; none is measured".to_owned(),
            ));
        }
        (false, _) if !others.is_empty() => tell!("measured without a calibration: {}", others.join(", ")),
        (false, _) => {}
    }
    Ok(fitted)
}

/// Fits each method on the one dataset that was measured, and tells what was found.
pub(super) fn fit(args: &EvalArgs, setup: &Setup, outcome: &Outcome) -> Result<Calibration> {
    let fresh = outcome.fresh.as_ref();
    let fresh = fresh.ok_or_else(|| CliError::Failed("nothing was measured to fit on".to_owned()))?;
    let options = FitOptions { target_precision: args.target_precision };
    let mut methods = Vec::new();
    for (method, samples) in &fresh.details.samples {
        let used = fitted_with(args, setup, *method);
        let fitted = samples.fit(*method, &options, &fresh.dataset, outcome.report.unreadable, used)?;
        tell!("{}", describe(&fitted, args.target_precision));
        methods.push(fitted);
    }
    Ok(Calibration::new(methods))
}

fn describe(fitted: &MethodCalibration, target: Option<f64>) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mut text = format!(
        "{}: temperature {:.3} fitted on {}; on these, ECE {} before, {} after",
        fitted.method,
        fitted.temperature,
        counted(fitted.photos as u64, "photo"),
        percent(fitted.before.ece),
        percent(fitted.after.ece)
    );
    if fitted.unreadable > 0 {
        text += &format!("; {} could not be read and are left out", fitted.unreadable);
    }
    if fitted.at_bound {
        text += "; the temperature is at the bound of what is looked at: are the labels right?";
    }
    match (&fitted.threshold, target) {
        (Some(found), _) => {
            text += &format!(
                "; answers of {:.3} and more, {} of {} photos, have a precision of {} (with a probability of {})",
                found.min_score,
                found.answered,
                fitted.photos,
                percent(found.target_precision),
                percent(found.confidence)
            );
        }
        (None, Some(target)) => {
            text += &format!("; no threshold: so few photos do not show a precision of {}", percent(target));
        }
        (None, None) => {}
    }
    text
}
