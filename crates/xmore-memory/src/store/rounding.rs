//! Embeddings as they are stored: checked, and rounded to float16.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::Result;
use crate::search::VectorError;

/// Checks an embedding and rounds it into `out`, `[dim]`.
pub(super) fn to_f16(what: &'static str, row: &[f32], number: u64, out: &mut [f16]) -> Result<()> {
    if row.len() != out.len() {
        return Err(VectorError::Length { what, expected: out.len(), found: row.len() }.into());
    }
    out.convert_from_f32_slice(row);
    match out.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(position) => {
            Err(VectorError::NotFinite { what, row: number, position, value: row[position] }.into())
        }
    }
}
