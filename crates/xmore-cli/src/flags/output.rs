//! Forms of the output on standard output.

use clap::ValueEnum;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One list
    Json,
    /// One JSON object a line, as an element of json's list
    Jsonl,
    /// Rows with a header
    Csv,
}

/// Form of the output, where rows of a csv would make no sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShortFormat {
    #[default]
    Table,
    Json,
}
