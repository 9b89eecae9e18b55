//! Rows of unit vectors.

/// Embeddings of images or texts: unit f32 rows, `[rows, dim]`, in the order of the input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    data: Vec<f32>,
    dim: usize,
}

impl Embeddings {
    /// Takes rows of `dim` values, one after another.
    ///
    /// # Panics
    /// If `data` is not a whole number of rows.
    pub fn new(data: Vec<f32>, dim: usize) -> Self {
        assert!(dim > 0 && data.len().is_multiple_of(dim), "{} values in rows of {dim}", data.len());
        Self { data, dim }
    }

    /// Adds rows at the end.
    ///
    /// # Panics
    /// If they have another length.
    pub fn append(&mut self, rows: &Self) {
        assert_eq!(rows.dim, self.dim, "rows of one length");
        self.data.extend_from_slice(&rows.data);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Row `n`.
    ///
    /// # Panics
    /// If there is none.
    pub fn row(&self, n: usize) -> &[f32] {
        &self.data[n * self.dim..(n + 1) * self.dim]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim.max(1))
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }
}
