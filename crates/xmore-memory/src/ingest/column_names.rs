//! Which columns of a table have images and captions, where a user names them.

/// Names of the columns of tables and parquet files, or their numbers from 1; `None` for those that have one of the usual names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// The column of images.
    pub image: Option<String>,
    /// The column of captions.
    pub caption: Option<String>,
}
