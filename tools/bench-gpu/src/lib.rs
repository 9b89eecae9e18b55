//! What the benchmarks of this tool share.

use std::error::Error;

use xmore_clip::Precision;

/// Whatever stops a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The precision that is named as xmore's command line names it.
///
/// # Errors
/// There is none of that name.
pub fn precision(name: &str) -> Result<Precision> {
    Precision::of_short_name(name).ok_or_else(|| format!("no precision {name}").into())
}
