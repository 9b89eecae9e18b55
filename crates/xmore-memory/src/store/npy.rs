//! npy files of float16 matrices: written row by row, read as a memory map.
//!
//! The header is parsed here rather than with the `npyz` crate, which takes up to 4 GiB for a header, recurses on
//! nested brackets and multiplies shapes unchecked. The tests read our files with it as an independent reader.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use xmore_files::open_regular;

use super::checksum::Running;
use crate::error::{AtPath, MemoryError, Result};

#[cfg(target_endian = "big")]
compile_error!("embeddings are mapped as little-endian float16, which a big-endian machine cannot do");

/// Every npy file begins so.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Bytes of the headers written here: a multiple of 64 that holds any shape, so that the row count can be
/// filled in when the rows have been written.
const WRITTEN_HEADER_BYTES: usize = 128;

/// Longest header dictionary that is read, numpy's own limit.
pub(crate) const MAX_DICT_BYTES: usize = 10_000;

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
    /// [`MemoryError::Damaged`] if there are fewer rows, or others.
    pub fn resume(path: PathBuf, dim: usize, rows: u64, sha256: &str) -> Result<NpyWriter> {
        let temporary = path.with_extension("npy.tmp");
        if path.exists() {
            std::fs::rename(&path, &temporary).at("rename to", &temporary)?;
        }
        let mut file = File::options().read(true).write(true).open(&temporary).at("open", &temporary)?;
        let found = file.metadata().at("read", &temporary)?.len();
        let kept = WRITTEN_HEADER_BYTES as u64 + rows * dim as u64 * 2;
        if found < kept {
            return Err(MemoryError::Damaged {
                path: temporary,
                expected: format!("{kept} bytes, as the checkpoint says"),
                found: found.to_string(),
            });
        }
        file.seek(SeekFrom::Start(WRITTEN_HEADER_BYTES as u64)).at("read", &temporary)?;
        let checksum = Running::of_next(&mut file, kept - WRITTEN_HEADER_BYTES as u64, &temporary)?;
        if checksum.value() != sha256 {
            let expected = format!("{rows} rows of SHA-256 {sha256}, as the checkpoint says");
            return Err(MemoryError::Damaged { path: temporary, expected, found: checksum.value() });
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

/// Header of a version 1 npy file, padded with spaces as numpy does.
fn header(rows: u64, dim: usize) -> [u8; WRITTEN_HEADER_BYTES] {
    let dict = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = [b' '; WRITTEN_HEADER_BYTES];
    header[..6].copy_from_slice(MAGIC);
    header[6..8].copy_from_slice(&[1, 0]);
    header[8..10].copy_from_slice(&(WRITTEN_HEADER_BYTES as u16 - 10).to_le_bytes());
    header[10..10 + dict.len()].copy_from_slice(dict.as_bytes());
    header[WRITTEN_HEADER_BYTES - 1] = b'\n';
    header
}

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
        let damaged =
            |expected: String, found: String| MemoryError::Damaged { path: path.to_owned(), expected, found };
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
        let damaged = |found: String| MemoryError::Damaged {
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

/// What an npy header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Element type, such as `<f2`.
    pub descr: String,
    /// Whether columns rather than rows lie together.
    pub fortran_order: bool,
    /// Sizes of the dimensions.
    pub shape: Vec<u64>,
    /// Bytes before the data.
    pub bytes: usize,
}

/// Parses the header at the beginning of `bytes`, or says what is wrong with it.
pub(crate) fn parse_header(bytes: &[u8]) -> Result<Header, String> {
    let truncated = || format!("a file that ends in the header, after {} bytes", bytes.len());
    if !bytes.starts_with(MAGIC) {
        return Err("a file that does not begin as npy does".to_owned());
    }
    let version = bytes.get(6..8).ok_or_else(truncated)?;
    let (start, length) = match version {
        [1, 0] => {
            let b = bytes.get(8..10).ok_or_else(truncated)?;
            (10, usize::from(u16::from_le_bytes([b[0], b[1]])))
        }
        [2 | 3, 0] => {
            let b = bytes.get(8..12).ok_or_else(truncated)?;
            (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        }
        other => return Err(format!("npy version {}.{}", other[0], other[1])),
    };
    if length > MAX_DICT_BYTES {
        return Err(format!("a header of {length} bytes"));
    }
    let text = bytes.get(start..start + length).ok_or_else(truncated)?;
    let text = std::str::from_utf8(text).map_err(|_| "a header that is not UTF-8".to_owned())?;
    let mut header =
        Header { descr: String::new(), fortran_order: false, shape: vec![], bytes: start + length };
    parse_dict(text, &mut header).ok_or_else(|| format!("the header {:?}", text.trim_end()))?;
    Ok(header)
}

/// Parses `{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order, each exactly once.
fn parse_dict(text: &str, header: &mut Header) -> Option<()> {
    let mut cursor = Cursor(text);
    let (mut descr, mut order, mut shape) = (None, None, None);
    cursor.take("{")?;
    while cursor.take("}").is_none() {
        let key = cursor.string()?;
        cursor.take(":")?;
        let again = match key {
            "descr" => descr.replace(cursor.string()?).is_some(),
            "fortran_order" => order.replace(cursor.boolean()?).is_some(),
            "shape" => shape.replace(cursor.tuple()?).is_some(),
            _ => return None,
        };
        if again {
            return None;
        }
        if cursor.take(",").is_none() {
            cursor.take("}")?;
            break;
        }
    }
    header.descr = descr?.to_owned();
    header.fortran_order = order?;
    header.shape = shape?;
    cursor.0.trim().is_empty().then_some(())
}

/// The rest of a header text.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Takes a token after white space, if it is next.
    fn take(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    /// A quoted string without escapes: no header of a plain matrix has any.
    fn string(&mut self) -> Option<&'a str> {
        let quote = if self.take("'").is_some() { '\'' } else { self.take("\"").map(|()| '"')? };
        let (string, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        Some(string)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.take("True") {
            Some(()) => Some(true),
            None => self.take("False").map(|()| false),
        }
    }

    /// A tuple of non-negative integers.
    fn tuple(&mut self) -> Option<Vec<u64>> {
        let mut values = Vec::new();
        self.take("(")?;
        while self.take(")").is_none() {
            self.0 = self.0.trim_start();
            let end = self.0.find(|c: char| !c.is_ascii_digit())?;
            values.push(self.0[..end].parse().ok()?);
            self.0 = &self.0[end..];
            if self.take(",").is_none() {
                self.take(")")?;
                break;
            }
        }
        Some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn npy(dict: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16).to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes
    }

    #[test]
    fn our_header_is_aligned_version_1_and_holds_any_shape() {
        for (rows, dim) in [(0, 1), (65_536, 1_024), (u64::MAX, 65_536)] {
            let header = header(rows, dim);
            assert_eq!(header.len() % 64, 0);
            let parsed = parse_header(&header).unwrap();
            assert_eq!(parsed.shape, [rows, dim as u64]);
            assert_eq!((parsed.descr.as_str(), parsed.fortran_order, parsed.bytes), ("<f2", false, 128));
        }
    }

    #[test]
    fn headers_of_other_writers_are_read() {
        for dict in [
            "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }   \n",
            "{\"shape\":(3,4),\"fortran_order\":False,\"descr\":\"<f2\"}\n",
            " { 'fortran_order' : False , 'descr' : '<f2' , 'shape' : ( 3 , 4 , ) , } ",
        ] {
            assert_eq!(parse_header(&npy(dict)).unwrap().shape, [3, 4], "{dict}");
        }
        let mut version_2 = b"\x93NUMPY\x02\x00".to_vec();
        let dict = "{'descr': '<f4', 'fortran_order': True, 'shape': (), }";
        version_2.extend((dict.len() as u32).to_le_bytes());
        version_2.extend(dict.as_bytes());
        let header = parse_header(&version_2).unwrap();
        assert_eq!(
            header,
            Header { descr: "<f4".into(), fortran_order: true, shape: vec![], bytes: version_2.len() }
        );
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
        for dict in [
            "",
            "{}",
            "{'descr': '<f2', 'fortran_order': False}",
            "{'descr': '<f2', 'descr': '<f2', 'fortran_order': False, 'shape': (1, 1)}",
            "{'descr': [('a', '<f2')], 'fortran_order': False, 'shape': (1, 1)}",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 1)}",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999999999999, 1)}",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1)} trailing",
            "{'descr': '<f2', 'fortran_order': False, 'shape': ((((((((1, 1)}",
        ] {
            assert!(parse_header(&npy(dict)).is_err(), "{dict}");
        }
        let huge = [&b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..], &[b' '; 64]].concat();
        assert!(parse_header(&huge).unwrap_err().contains("4294967295"));
    }

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
                assert!(matches!(resumed, Err(MemoryError::Damaged { .. })));
            }
            std::fs::remove_file(path.with_extension("npy.tmp")).unwrap();
        }
    }

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

    proptest! {
        #[test]
        fn no_bytes_make_the_header_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_header(&bytes);
            let _ = parse_header(&npy(&String::from_utf8_lossy(&bytes)));
        }

        #[test]
        fn a_damaged_header_never_panics_nor_is_its_length_believed(
            cut in 0usize..=128, flips in prop::collection::vec((0usize..128, any::<u8>()), 0..4)
        ) {
            let mut bytes = header(1_234, 512);
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok(header) = parse_header(&bytes[..cut]) {
                prop_assert!(header.bytes <= cut);
            }
        }
    }
}
