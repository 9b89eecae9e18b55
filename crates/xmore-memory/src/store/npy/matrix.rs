//! A float16 matrix read as a memory map, or what is left of one.

use std::io::Read;
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use xmore_files::open_regular;

use super::NpyWriter;
use super::header::{MAX_DICT_BYTES, parse_header};
use crate::error::{AtPath, Result};
use crate::store::StoreError;

#[cfg(target_endian = "big")]
compile_error!("embeddings are mapped as little-endian float16, which a big-endian machine cannot do");

/// A memory-mapped float16 matrix.
#[derive(Debug)]
pub(crate) struct NpyMatrix {
    map: Mmap,
    /// Byte offset of the data.
    offset: usize,
    rows: usize,
    dim: usize,
}

impl NpyMatrix {
    /// Maps the file and checks that it is exactly a C-ordered float16 matrix `[rows, dim]`.
    pub fn open(path: &Path, rows: u64, dim: usize) -> Result<NpyMatrix> {
        let damaged = |expected: String, found: String| {
            StoreError::Damaged { path: path.to_owned(), expected, found }.into()
        };
        let file = open_regular(path).at("open", path)?;
        // SAFETY: the map is only ever read. A memory's files are not changed in place: the writer replaces whole
        // files by rename. That no other program truncates them is asked of the user, as for every mapped index.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.at("map", path)?;

        let header = parse_header(&map).map_err(|found| damaged("an npy header".to_owned(), found))?;
        let expected_shape = [rows, dim as u64];
        if header.descr != "<f2" || header.fortran_order || header.shape != expected_shape {
            return Err(damaged(
                format!("'<f2' in C order of shape {expected_shape:?}"),
                format!(
                    "{:?} in {} order of shape {:?}",
                    header.descr,
                    if header.fortran_order { "Fortran" } else { "C" },
                    header.shape
                ),
            ));
        }
        let data = rows.checked_mul(dim as u64 * 2).and_then(|n| n.checked_add(header.bytes as u64));
        if data != Some(map.len() as u64) {
            let expected =
                data.map_or_else(|| "a size that fits a file".to_owned(), |n| format!("{n} bytes"));
            return Err(damaged(expected, format!("{} bytes", map.len())));
        }
        // The map begins on a page; only a header of odd length can misalign what follows.
        if header.bytes % align_of::<f16>() != 0 {
            return Err(damaged("data at an even offset".to_owned(), format!("offset {}", header.bytes)));
        }
        // The length of a map is a usize, so `rows`, which is not greater, is one too.
        Ok(NpyMatrix { map, offset: header.bytes, rows: rows as usize, dim })
    }

    /// Number of whole rows of `dim` that a file has, however much of it is missing: what its header says at most, none if
    /// it cannot be read.
    pub fn whole_rows(path: &Path, dim: usize) -> u64 {
        let read = || {
            let mut file = open_regular(path).ok()?;
            let bytes = file.metadata().ok()?.len();
            let mut start = vec![0; (12 + MAX_DICT_BYTES).min(usize::try_from(bytes).ok()?)];
            file.read_exact(&mut start).ok()?;
            let header = parse_header(&start).ok()?;
            let fits =
                header.descr == "<f2" && !header.fortran_order && header.shape.get(1) == Some(&(dim as u64));
            let rows = bytes.checked_sub(header.bytes as u64)? / (dim as u64 * 2);
            fits.then(|| rows.min(header.shape[0]))
        };
        read().unwrap_or(0)
    }

    /// Copies the first `rows` rows of a matrix that may be cut off to another file.
    pub fn copy_rows(from: &Path, to: &Path, rows: u64, dim: usize) -> Result<()> {
        let file = open_regular(from).at("open", from)?;
        // SAFETY: as in `open`; the copy is made while the memory is locked.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.at("map", from)?;
        let damaged = |found: String| StoreError::Damaged {
            path: from.to_owned(),
            expected: format!("{rows} rows"),
            found,
        };
        let header = parse_header(&map).map_err(damaged)?;
        let data = rows.checked_mul(dim as u64 * 2).and_then(|n| usize::try_from(n).ok());
        let data = data.and_then(|bytes| map.get(header.bytes..)?.get(..bytes));
        let data = data.ok_or_else(|| damaged(format!("{} bytes", map.len())))?;
        let mut writer = NpyWriter::create(to.to_owned(), dim)?;
        let mut row = vec![f16::ZERO; dim];
        for bytes in data.chunks_exact(dim * 2) {
            bytemuck::cast_slice_mut(&mut row).copy_from_slice(bytes);
            writer.push(&row)?;
        }
        writer.finish()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All values, row by row.
    pub fn data(&self) -> &[f16] {
        bytemuck::cast_slice(&self.map[self.offset..])
    }

    /// Writes row `row` to `out` as f32; `out` has the embedding length.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        self.data()[row * self.dim..(row + 1) * self.dim].convert_to_f32_slice(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_size_or_shape_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.npy");
        let mut writer = NpyWriter::create(path.clone(), 2).unwrap();
        writer.push(&[f16::ONE, f16::ZERO]).unwrap();
        writer.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(NpyMatrix::open(&path, 2, 2).is_err() && NpyMatrix::open(&path, 1, 1).is_err());
        for length in [0, 5, 9, 60, whole.len() - 1, whole.len() + 1] {
            let mut bytes = whole.clone();
            bytes.resize(length, 0);
            std::fs::write(&path, &bytes).unwrap();
            let message = NpyMatrix::open(&path, 1, 2).unwrap_err().to_string();
            assert!(message.contains("part.npy"), "{length}: {message}");
        }
    }
}
