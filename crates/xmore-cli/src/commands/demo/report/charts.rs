//! The demo's figures as charts.

use maud::Markup;
use xmore::Method;

use super::super::findings::{Figures, SHOWN};
use crate::html::charts::{self, Bar, Series};
use crate::html::class;

/// One bar a method, with the mean ± one standard deviation.
pub(super) fn bars(figures: &Figures) -> Markup {
    let bar = |(method, f): &(Method, super::super::findings::MethodFigures)| Bar {
        name: method.name(),
        class: class(method.name()),
        value: f.acc1_mean,
        std: f.acc1_std,
    };
    charts::bars(&figures.0.iter().map(bar).collect::<Vec<_>>())
}

/// Accuracy over the number of captions, which matters to two of the methods.
pub(super) fn lines(sweep: &[(usize, Figures)]) -> Markup {
    let series = [Method::ZeroShot, Method::Captions, Method::Xmore, SHOWN].map(|method| Series {
        name: method.name(),
        class: class(method.name()),
        values: sweep.iter().map(|(_, figures)| figures.get(method).acc1_mean).collect(),
    });
    let places: Vec<String> = sweep.iter().map(|(k, _)| k.to_string()).collect();
    let description = "Accuracy over the number of captions K; the table below has the figures";
    charts::lines(&series, &places, "captions kept, K", description)
}
