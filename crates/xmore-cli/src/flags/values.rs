//! Parsers of the values of flags.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use xmore::{Method, Scores};

/// A size in bytes with a binary unit: `512MiB`, `4G`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a size such as 512MiB or 4GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(expected()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(expected)
}

/// A cosine: a number between -1 and 1.
pub(crate) fn cosine(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|cosine| (-1.0..=1.0).contains(cosine));
    value.ok_or_else(|| "expected a number between -1 and 1".to_owned())
}

/// A probability: a number between 0 and 1.
pub(crate) fn probability(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    value.ok_or_else(|| "expected a number between 0 and 1".to_owned())
}

/// A range of ids: `0..5000`, `5000..` or `..5000`.
pub(crate) fn id_range(text: &str) -> Result<Range<u64>, String> {
    let bounds = text.split_once("..").and_then(|(from, to)| {
        let bound =
            |text: &str, default: u64| if text.is_empty() { Some(default) } else { text.parse().ok() };
        Some(bound(from, 0)?..bound(to, u64::MAX)?)
    });
    bounds
        .filter(|range| range.start < range.end)
        .ok_or_else(|| "expected a range of ids such as 0..5000, 5000.. or ..5000".to_owned())
}

/// Methods by their names, with their summaries in the help.
pub(crate) fn method_parser() -> impl TypedValueParser<Value = Method> {
    let value = |method: Method| PossibleValue::new(method.name()).help(method.summary());
    PossibleValuesParser::new(Method::ALL.map(value)).try_map(|name| name.parse::<Method>())
}

/// What scores are, with summaries in the help.
pub(crate) fn scores_parser() -> impl TypedValueParser<Value = Scores> {
    let value = |scores: Scores| PossibleValue::new(scores.name()).help(scores.summary());
    PossibleValuesParser::new(Scores::ALL.map(value)).try_map(|name| name.parse::<Scores>())
}

/// A library's default as the value of a flag that must not be 0.
pub(crate) fn nonzero(default: usize) -> NonZeroUsize {
    NonZeroUsize::new(default).expect("the libraries' defaults are not 0")
}

/// The same for 64-bit numbers.
pub(crate) fn nonzero_u64(default: u64) -> NonZeroU64 {
    NonZeroU64::new(default).expect("the libraries' defaults are not 0")
}
