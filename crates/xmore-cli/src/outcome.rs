//! When a command that goes through many things has done enough: the one rule behind `--max-skipped` and exit status 3.

use clap::Args;
use xmore::SkipLimit;

use crate::error::{CliError, Result};

/// Exit status of a command that went through its things but got none of them, or failed on more than is allowed.
pub(crate) const NOT_ENOUGH: u8 = 3;

/// The limit as a flag.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SkipArgs {
    /// Most images, rows or files that may fail: a number, or a percentage of all. Beyond it the exit status is 3
    #[arg(long, value_name = "N|P%", default_value_t, env = "XMORE_MAX_SKIPPED")]
    pub(crate) max_skipped: SkipLimit,
}

impl SkipArgs {
    /// Ends a command in which `failed` of `total` things (`what`, in the plural) could not be read.
    ///
    /// # Errors
    /// [`CliError::NotEnough`] if none could, or if more failed than is allowed.
    pub(crate) fn check(self, failed: u64, total: u64, what: &str) -> Result<()> {
        check(self.max_skipped, failed, total, what)
    }
}

/// The same for a limit that is not a flag.
pub(crate) fn check(limit: SkipLimit, failed: u64, total: u64, what: &str) -> Result<()> {
    let told = || format!("{failed} of {total} {what} could not be read");
    if failed > 0 && failed >= total {
        return Err(CliError::NotEnough(told()));
    }
    if !limit.allows(failed, total) {
        return Err(CliError::NotEnough(format!("{}, and --max-skipped allows {limit}", told())));
    }
    Ok(())
}

/// A number of things: "1 pair", "2 pairs".
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_read_is_never_enough_and_too_much_skipped_is_not() {
        let told = |limit: &str, failed, total| {
            check(limit.parse().unwrap(), failed, total, "images").err().map(|error| error.to_string())
        };
        assert_eq!(told("10%", 0, 0), None);
        assert_eq!(told("10%", 1, 10), None);
        assert_eq!(told("100%", 2, 3), None);
        assert_eq!(told("100%", 3, 3).unwrap(), "3 of 3 images could not be read");
        let over = told("10%", 2, 10).unwrap();
        assert_eq!(over, "2 of 10 images could not be read, and --max-skipped allows 10%");
        assert!(told("0", 1, 1000).is_some());
    }
}
