//! The measurements; each has its figures, its text and its bars.

pub mod idle;
pub mod overload;
pub mod term;
pub mod throughput;

use serde::Serialize;

/// A figure that has to be reached.
#[derive(Debug, Serialize)]
pub struct Bar {
    pub what: &'static str,
    pub value: f64,
    /// As printed: `≥ 0.9`.
    pub bar: String,
    pub met: bool,
}

impl Bar {
    pub fn at_least(what: &'static str, value: f64, least: f64) -> Self {
        Self { what, value, bar: format!("≥ {least}"), met: value >= least }
    }

    pub fn at_most(what: &'static str, value: f64, most: f64) -> Self {
        Self { what, value, bar: format!("≤ {most}"), met: value <= most }
    }
}

/// A count as the number it is printed as.
pub fn count(count: u64) -> f64 {
    count as f64
}
