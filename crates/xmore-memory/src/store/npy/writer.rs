//! A float16 matrix written row by row, which can be left at any row and taken up again.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use half::f16;

use super::super::checksum::Running;
use super::header::{WRITTEN_HEADER_BYTES, header};
use crate::error::{AtPath, Result};
use crate::store::StoreError;

/// A float16 matrix that is being written, under a temporary name until it is finished. It can be left at any row and
/// taken up again.
pub(crate) struct NpyWriter {
    file: BufWriter<File>,
    /// A second handle with a place of its own, for reading rows back.
    reader: File,
    path: PathBuf,
    temporary: PathBuf,
    rows: u64,
    /// Rows that have left the buffer.
    flushed: u64,
    dim: usize,
    /// Of the rows.
    checksum: Running,
}

impl NpyWriter {
    /// Starts a matrix of rows of `dim` values that will be at `path`.
    pub fn create(path: PathBuf, dim: usize) -> Result<NpyWriter> {
        let temporary = path.with_extension("npy.tmp");
        let file = File::create(&temporary).at("create", &temporary)?;
        let mut writer = Self::over(file, path, temporary, dim)?;
        writer.file.write_all(&header(0, dim)).at("write", &writer.temporary)?;
        Ok(writer)
    }

    /// Takes up a matrix after `rows` rows with that checksum, whatever was written behind them, even if it was finished since.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there are fewer rows, or others.
    pub fn resume(path: PathBuf, dim: usize, rows: u64, sha256: &str) -> Result<NpyWriter> {
        let temporary = path.with_extension("npy.tmp");
        if path.exists() {
            std::fs::rename(&path, &temporary).at("rename to", &temporary)?;
        }
        let mut file = File::options().read(true).write(true).open(&temporary).at("open", &temporary)?;
        let found = file.metadata().at("read", &temporary)?.len();
        let kept = WRITTEN_HEADER_BYTES as u64 + rows * dim as u64 * 2;
        if found < kept {
            return Err(StoreError::Damaged {
                path: temporary,
                expected: format!("{kept} bytes, as the checkpoint says"),
                found: found.to_string(),
            }
            .into());
        }
        file.seek(SeekFrom::Start(WRITTEN_HEADER_BYTES as u64)).at("read", &temporary)?;
        let checksum = Running::of_next(&mut file, kept - WRITTEN_HEADER_BYTES as u64, &temporary)?;
        if checksum.value() != sha256 {
            let expected = format!("{rows} rows of SHA-256 {sha256}, as the checkpoint says");
            return Err(StoreError::Damaged { path: temporary, expected, found: checksum.value() }.into());
        }
        file.set_len(kept).at("cut", &temporary)?;
        let mut writer = Self::over(file, path, temporary, dim)?;
        writer.file.seek(SeekFrom::End(0)).at("read", &writer.temporary)?;
        (writer.rows, writer.flushed, writer.checksum) = (rows, rows, checksum);
        Ok(writer)
    }

    fn over(file: File, path: PathBuf, temporary: PathBuf, dim: usize) -> Result<NpyWriter> {
        let reader = File::open(&temporary).at("open", &temporary)?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(NpyWriter {
            file,
            reader,
            path,
            temporary,
            rows: 0,
            flushed: 0,
            dim,
            checksum: Running::default(),
        })
    }

    /// Appends a row.
    pub fn push(&mut self, row: &[f16]) -> Result<()> {
        assert_eq!(row.len(), self.dim, "the caller checks the length");
        let bytes = bytemuck::cast_slice(row);
        self.file.write_all(bytes).at("write", &self.temporary)?;
        self.checksum.update(bytes);
        self.rows += 1;
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads a row back into `out`, `[dim]`.
    pub fn read_row(&mut self, row: u64, out: &mut [f16]) -> Result<()> {
        assert!(row < self.rows && out.len() == self.dim, "the caller checks row and length");
        if row >= self.flushed {
            self.file.flush().at("write", &self.temporary)?;
            self.flushed = self.rows;
        }
        let at = WRITTEN_HEADER_BYTES as u64 + row * self.dim as u64 * 2;
        self.reader
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.reader.read_exact(bytemuck::cast_slice_mut(out)))
            .at("read", &self.temporary)
    }

    /// Makes all rows so far durable; returns their checksum.
    pub fn sync(&mut self) -> Result<String> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).at("write", &self.temporary)?;
        self.flushed = self.rows;
        Ok(self.checksum.value())
    }

    /// Writes the number of rows into the header, makes the file durable and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        let header = header(self.rows, self.dim);
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all())
            .at("write", &self.temporary)?;
        std::fs::rename(&self.temporary, &self.path).at("rename to", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NpyMatrix;
    use super::*;
    use crate::error::MemoryError;

    #[test]
    fn an_independent_reader_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let rows: Vec<[f16; 3]> =
            (0..5).map(|i| [0, 1, 2].map(|j| f16::from_f32((i * 3 + j) as f32))).collect();
        let mut writer = NpyWriter::create(path.clone(), 3).unwrap();
        assert!(!path.exists());
        for row in &rows {
            writer.push(row).unwrap();
        }
        writer.finish().unwrap();

        let bytes = std::fs::read(&path).unwrap();
        let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!(npy.shape(), [5, 3]);
        assert_eq!(npy.order(), npyz::Order::C);
        assert_eq!(npy.into_vec::<f16>().unwrap(), rows.concat());
        assert_eq!(NpyMatrix::open(&path, 5, 3).unwrap().data(), rows.concat());
    }

    #[test]
    fn a_matrix_is_taken_up_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let row = |i: u16| [f16::from_f32(f32::from(i)), f16::ONE];
        let whole = dir.path().join("whole.npy");
        let mut writer = NpyWriter::create(whole.clone(), 2).unwrap();
        (0..9).for_each(|i| writer.push(&row(i)).unwrap());
        let mut back = [f16::ZERO; 2];
        for i in [8, 0, 5] {
            writer.read_row(i, &mut back).unwrap();
            assert_eq!(back, row(i as u16));
        }
        writer.finish().unwrap();

        let path = dir.path().join("part.npy");
        for (kept, finished) in [(0, false), (4, false), (7, true)] {
            let mut writer = NpyWriter::create(path.clone(), 2).unwrap();
            (0..kept as u16).for_each(|i| writer.push(&row(i)).unwrap());
            let sha256 = writer.sync().unwrap();
            (kept as u16..7).for_each(|i| writer.push(&row(i)).unwrap());
            writer.sync().unwrap();
            // What came behind the last checkpoint, half a row of it.
            writer.file.write_all(&[1, 2, 3]).unwrap();
            if finished {
                writer.finish().unwrap();
            } else {
                drop(writer);
            }
            let mut writer = NpyWriter::resume(path.clone(), 2, kept, &sha256).unwrap();
            (kept as u16..9).for_each(|i| writer.push(&row(i)).unwrap());
            writer.read_row(3, &mut back).unwrap();
            assert_eq!(back, row(3));
            writer.finish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&whole).unwrap());
            // More rows than there are, and other rows.
            for rows in [10, kept + 1] {
                let resumed = NpyWriter::resume(path.clone(), 2, rows, &sha256);
                assert!(matches!(resumed, Err(MemoryError::Store(StoreError::Damaged { .. }))));
            }
            std::fs::remove_file(path.with_extension("npy.tmp")).unwrap();
        }
    }
}
