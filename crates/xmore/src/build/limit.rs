//! How much may fail before what was done is not enough: the rule behind `--max-skipped`.

use std::fmt;
use std::str::FromStr;

/// Most things that may fail: a number, or a share of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SkipLimit {
    /// So many.
    Count(u64),
    /// So many percent of all.
    Percent(f64),
}

impl SkipLimit {
    /// Nothing may fail.
    pub const NONE: SkipLimit = SkipLimit::Count(0);
    /// Everything may fail.
    pub const ALL: SkipLimit = SkipLimit::Percent(100.0);

    /// Whether `failed` of `total` things are within the limit.
    pub fn allows(self, failed: u64, total: u64) -> bool {
        match self {
            SkipLimit::Count(most) => failed <= most,
            SkipLimit::Percent(percent) => failed as f64 * 100.0 <= percent * total as f64,
        }
    }
}

impl Default for SkipLimit {
    /// A tenth: a few dead links are usual, images that are not mounted are not.
    fn default() -> Self {
        SkipLimit::Percent(10.0)
    }
}

impl fmt::Display for SkipLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkipLimit::Count(most) => write!(f, "{most}"),
            SkipLimit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for SkipLimit {
    type Err = String;

    /// Reads a number, or a percentage such as `2.5%`.
    fn from_str(text: &str) -> Result<SkipLimit, String> {
        let expected = || "expected a number, or a percentage from 0% to 100%".to_owned();
        match text.strip_suffix('%') {
            None => text.parse().map(SkipLimit::Count).map_err(|_| expected()),
            Some(percent) => {
                let percent = percent.trim_end().parse().ok().filter(|p| (0.0..=100.0).contains(p));
                percent.map(SkipLimit::Percent).ok_or_else(expected)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_share() {
        for (limit, failed, total, allowed) in [
            ("0", 0, 5, true),
            ("0", 1, 5, false),
            ("3", 3, 3, true),
            ("10%", 1, 10, true),
            ("10%", 2, 19, false),
            ("0%", 1, 1000, false),
            ("100%", 7, 7, true),
            ("2.5%", 25, 1000, true),
        ] {
            let limit: SkipLimit = limit.parse().unwrap();
            assert_eq!(limit.allows(failed, total), allowed, "{limit}: {failed} of {total}");
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        for bad in ["", "-1", "1.5", "101%", "-1%", "NaN%", "%", "ten"] {
            assert!(bad.parse::<SkipLimit>().is_err(), "{bad}");
        }
    }
}
