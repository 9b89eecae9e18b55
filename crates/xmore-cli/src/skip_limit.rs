//! The one rule behind `--max-skipped` and exit status 3: when a command that goes through many things has read enough of them.

use xmore::SkipLimit;

use crate::error::{CliError, Result};

/// Ends a command in which `failed` of `total` things (`what`, in the plural) could not be read.
///
/// # Errors
/// [`CliError::NotEnough`] if none could, or if more failed than is allowed.
pub(crate) fn check(limit: SkipLimit, failed: u64, total: u64, what: &str) -> Result<()> {
    let message = || format!("{failed} of {total} {what} could not be read");
    if failed > 0 && failed >= total {
        return Err(CliError::NotEnough(message()));
    }
    if !limit.allows(failed, total) {
        return Err(CliError::NotEnough(format!("{}, and --max-skipped allows {limit}", message())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_read_is_never_enough_and_too_much_skipped_is_not() {
        let message = |limit: &str, failed, total| {
            check(limit.parse().unwrap(), failed, total, "images").err().map(|error| error.to_string())
        };
        assert_eq!(message("10%", 0, 0), None);
        assert_eq!(message("10%", 1, 10), None);
        assert_eq!(message("100%", 2, 3), None);
        assert_eq!(message("100%", 3, 3).unwrap(), "3 of 3 images could not be read");
        let over = message("10%", 2, 10).unwrap();
        assert_eq!(over, "2 of 10 images could not be read, and --max-skipped allows 10%");
        assert!(message("0", 1, 1000).is_some());
    }
}
