//! What can be wrong with an embedding or a query that is handed in.

/// An embedding or a query that is none of the model's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// An embedding (or a buffer for one) has another length than the memory's.
    #[error("{what} has {found} values, expected {expected}; was it made by another model?")]
    Length {
        /// What was measured: "image embedding", "text embedding", "output buffer".
        what: &'static str,
        /// The memory's embedding length.
        expected: usize,
        /// Length found.
        found: usize,
    },

    /// A batch of queries does not divide into rows of the memory's embedding length.
    #[error(
        "{found} query values do not make whole queries of {dim}, the embedding length of {model:?}; \
         was the query made by another model?"
    )]
    QueryLength {
        /// The memory's embedding length.
        dim: usize,
        /// Number of values in the batch.
        found: usize,
        /// Name of the memory's model.
        model: String,
    },

    /// An embedding holds a NaN, an infinity, or a value too large for float16.
    #[error("{what} {row} holds {value} at position {position}; embeddings must be finite unit vectors")]
    NotFinite {
        /// What was checked: "image embedding", "text embedding", "query".
        what: &'static str,
        /// Its row.
        row: u64,
        /// Index within the row.
        position: usize,
        /// The value.
        value: f32,
    },
}

/// A search on a GPU that failed.
#[cfg(feature = "cuda")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The card, its driver or its libraries failed.
    #[error("cannot search on the GPU: {source}")]
    Failed {
        /// What failed.
        source: xmore_cuda::CudaError,
    },

    /// More rows than the card's kernels can number.
    #[error("cannot search {rows} rows on a GPU: {max} are the most")]
    TooManyRows {
        /// Rows.
        rows: u64,
        /// Rows, at most.
        max: u64,
    },
}
