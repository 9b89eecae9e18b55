//! Which pairs of a memory are searched.

use std::ops::Range;

use clap::Args;
use regex::Regex;
use xmore::OpenPairs;
use xmore_memory::RowSet;

use super::values::id_range;
use crate::error::Result;

/// Which pairs of a memory are looked at.
#[derive(Clone, Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only pairs whose caption matches this regular expression, such as `(?i)\bdog\b`
    #[arg(long, value_name = "REGEX", env = "XMORE_CAPTION_FILTER", help_heading = "Retrieval")]
    pub(crate) caption_filter: Option<Regex>,
    /// Only pairs with ids in this range, such as 0..5000
    #[arg(long, value_name = "FROM..TO", value_parser = id_range, env = "XMORE_ROWS", help_heading = "Retrieval")]
    pub(crate) rows: Option<Range<u64>>,
}

impl FilterArgs {
    /// The rows that the caption filter allows, if there is one.
    pub(crate) fn allowed(&self, pairs: &OpenPairs) -> Result<Option<RowSet>> {
        let pattern = self.caption_filter.as_ref();
        Ok(pattern.map(|pattern| pairs.rows_with_caption(pattern)).transpose()?)
    }
}
