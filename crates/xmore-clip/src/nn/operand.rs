//! What attention multiplies with: an operand that is packed anew for each head.

use super::gemm::{ColumnBlock, Strided};

/// The right operand of a small product, packed into a buffer that is reused.
pub(super) trait Operand {
    /// Rows of the tile that uses the registers best.
    fn tile_rows(&self) -> usize;

    /// `columns`, rounded up to a length of output rows that [`Operand::multiply`] can write to without copies.
    fn padded(&self, columns: usize) -> usize;

    /// Takes the transpose of `count` rows' elements `at..at + len`: column c is row c.
    fn set_transposed(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize);

    /// Takes `count` rows' elements `at..at + len` as they are.
    fn set(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize);

    /// `out = a · self` for `count` rows of `a`, whose elements from `at` on are read. `out` must have at least the padded
    /// number of columns, or exactly those of the product.
    fn multiply(&mut self, a: Strided<'_>, count: usize, at: usize, out: &mut ColumnBlock<'_>);
}
