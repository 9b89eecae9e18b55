//! How much of what a command goes through may fail.

use clap::Args;
use xmore::SkipLimit;

use crate::error::Result;
use crate::skip_limit::check;

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
    /// As [`check`].
    pub(crate) fn check(self, failed: u64, total: u64, what: &str) -> Result<()> {
        check(self.max_skipped, failed, total, what)
    }
}
