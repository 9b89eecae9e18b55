//! What the benchmarks of this tool share.

use std::error::Error;

use xmore_clip::Precision;

/// Whatever stops a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The precision of a GPU that is named as xmore's command line names it.
///
/// # Errors
/// There is none of that name.
pub fn precision(name: &str) -> Result<Precision> {
    Ok(match name {
        "f32" => Precision::F32,
        "f16" => Precision::F16,
        "bf16" => Precision::Bf16,
        "fp8" => Precision::Fp8,
        _ => return Err(format!("no precision {name}").into()),
    })
}
