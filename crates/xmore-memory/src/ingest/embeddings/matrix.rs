//! Rows of an npy matrix of float16 or float32, read from first to last.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use xmore_files::open_regular;

use crate::error::{AtPath, Result};
use crate::ingest::SourceError;
use crate::store::MAX_DIM;
use crate::store::npy::{MAX_DICT_BYTES, parse_header};

/// Element type of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F16,
    F32,
}

/// A matrix `[rows, dim]` in a file, as its header says and its size confirms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matrix {
    pub path: PathBuf,
    pub rows: u64,
    pub dim: usize,
    element: Element,
    /// Bytes before the data.
    offset: u64,
}

impl Matrix {
    /// Reads the header, and checks that the file has just the size that it gives.
    pub fn open(path: &Path) -> Result<Matrix> {
        let damaged = |expected: String, found: String| {
            SourceError::Damaged { path: path.to_owned(), expected, found }.into()
        };
        let file = open_regular(path).at("open", path)?;
        let length = file.metadata().at("open", path)?.len();
        let mut head = Vec::new();
        // The longest prelude has twelve bytes.
        file.take(MAX_DICT_BYTES as u64 + 12).read_to_end(&mut head).at("read", path)?;
        let header = parse_header(&head).map_err(|found| damaged("an npy header".to_owned(), found))?;
        let element = match header.descr.as_str() {
            "<f2" => Element::F16,
            "<f4" => Element::F32,
            other => {
                return Err(damaged("float16 or float32 ('<f2', '<f4')".to_owned(), format!("{other:?}")));
            }
        };
        let [rows, dim] = header.shape[..] else {
            return Err(damaged("a matrix".to_owned(), format!("shape {:?}", header.shape)));
        };
        if header.fortran_order || dim == 0 || dim > MAX_DIM as u64 {
            let order = if header.fortran_order { "Fortran" } else { "C" };
            let expected = format!("rows of 1 to {MAX_DIM} values in C order");
            return Err(damaged(expected, format!("shape {:?} in {order} order", header.shape)));
        }
        let matrix =
            Matrix { path: path.to_owned(), rows, dim: dim as usize, element, offset: header.bytes as u64 };
        let expected = rows.checked_mul(matrix.row_bytes() as u64).and_then(|n| n.checked_add(matrix.offset));
        if expected != Some(length) {
            let expected = expected.map_or("a size that fits a file".to_owned(), |n| format!("{n} bytes"));
            return Err(damaged(expected, format!("{length} bytes")));
        }
        Ok(matrix)
    }

    fn row_bytes(&self) -> usize {
        self.dim * if self.element == Element::F16 { 2 } else { 4 }
    }

    /// A reader at the first row.
    pub fn reader(&self) -> Result<MatrixReader> {
        let mut file = open_regular(&self.path).at("open", &self.path)?;
        file.seek(SeekFrom::Start(self.offset)).at("read", &self.path)?;
        let row = vec![0; self.row_bytes()];
        Ok(MatrixReader { input: BufReader::with_capacity(1 << 18, file), matrix: self.clone(), row })
    }
}

/// A place in a matrix.
pub(super) struct MatrixReader {
    input: BufReader<File>,
    matrix: Matrix,
    row: Vec<u8>,
}

impl MatrixReader {
    /// Reads the next row; `out` has `dim` values.
    pub fn read_row(&mut self, out: &mut [f32]) -> Result<()> {
        self.input.read_exact(&mut self.row).at("read", &self.matrix.path)?;
        match self.matrix.element {
            Element::F16 => {
                let values: Vec<f16> =
                    self.row.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
                values.convert_to_f32_slice(out);
            }
            Element::F32 => {
                for (value, bytes) in out.iter_mut().zip(self.row.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
        }
        Ok(())
    }
}
