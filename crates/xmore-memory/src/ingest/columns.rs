//! Columns of strings and bytes of a parquet file, read in batches; without arrow.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use xmore_files::open_regular;

use crate::error::{AtPath, InParquet, MemoryError, Result};

/// An open parquet file: its footer is read, its data are not.
pub(super) struct ParquetFile {
    path: Arc<Path>,
    reader: SerializedFileReader<File>,
    /// First row of each row group, then the number of rows; what the footer says.
    starts: Vec<u64>,
}

/// A column of byte arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Index among the file's leaves.
    index: usize,
    /// Whether the file says that it holds text.
    pub text: bool,
    /// Whether a row may hold several.
    pub list: bool,
}

impl ParquetFile {
    /// Opens a file and checks that its footer adds up.
    pub fn open(path: &Path) -> Result<Arc<ParquetFile>> {
        let file = open_regular(path).at("open", path)?;
        let reader = guarded(path, || SerializedFileReader::new(file).in_parquet(path))?;
        let mut starts = vec![0u64];
        for group in reader.metadata().row_groups() {
            let rows = u64::try_from(group.num_rows()).ok();
            let end = rows.and_then(|rows| starts[starts.len() - 1].checked_add(rows));
            starts.push(end.ok_or_else(|| {
                damaged(path, "a number of rows".to_owned(), format!("{}", group.num_rows()))
            })?);
        }
        Ok(Arc::new(ParquetFile { path: path.into(), reader, starts }))
    }

    /// Where it is.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Number of rows by the footer, which may lie.
    pub fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Names of its top-level columns.
    pub fn names(&self) -> Vec<String> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect()
    }

    /// The byte-array column at this path below the root (`["image", "bytes"]`), upper and lower case alike. A list is found by the
    /// name of its column alone. `None` if there is none, or it is of another type, or nested more deeply.
    pub fn leaf(&self, path: &[&str]) -> Option<Leaf> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let same = |parts: &[String]| parts.iter().zip(path).all(|(a, b)| a.eq_ignore_ascii_case(b));
        let mut found = None;
        for index in 0..schema.num_columns() {
            let column = schema.column(index);
            let parts = column.path().parts();
            let list = column.max_rep_level() == 1;
            let here = same(parts) && (parts.len() == path.len() || (list && parts.len() > path.len()));
            if !here || column.physical_type() != PhysicalType::BYTE_ARRAY || column.max_rep_level() > 1 {
                continue;
            }
            if found.is_some() {
                // A list of structs: which of its fields is meant cannot be known.
                return None;
            }
            let text = column.logical_type_ref() == Some(&LogicalType::String)
                || column.converted_type() == ConvertedType::UTF8;
            found = Some(Leaf { index, text, list });
        }
        found
    }

    /// Whether the file's statistics say that the column holds nothing but nulls.
    pub fn is_all_null(&self, leaf: Leaf) -> bool {
        let groups = self.reader.metadata().row_groups();
        !groups.is_empty()
            && groups.iter().all(|group| {
                let column = group.column(leaf.index);
                let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
                nulls.is_some() && nulls == u64::try_from(column.num_values()).ok()
            })
    }

    /// The row group that holds a row.
    fn group_of(&self, row: u64) -> Option<usize> {
        let group = self.starts.partition_point(|&start| start <= row).checked_sub(1)?;
        (group + 1 < self.starts.len()).then_some(group)
    }

    fn column_reader(&self, group: usize, leaf: Leaf) -> Result<ColumnReaderImpl<ByteArrayType>> {
        let column = self.reader.get_row_group(group).and_then(|g| g.get_column_reader(leaf.index));
        match column.in_parquet(&self.path)? {
            ColumnReader::ByteArrayColumnReader(column) => Ok(column),
            _ => Err(damaged(&self.path, "byte arrays".to_owned(), "another type".to_owned())),
        }
    }
}

/// Values of some rows of a column.
#[derive(Debug, Default)]
pub(super) struct Rows {
    values: Vec<ByteArray>,
    /// End of each row in `values`.
    ends: Vec<usize>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Values of a row: none for a null, one, or those of a list.
    pub fn get(&self, row: usize) -> &[ByteArray] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.values[start..self.ends[row]]
    }

    /// The one value of a row, `None` for a null.
    pub fn first(&self, row: usize) -> Option<&[u8]> {
        self.get(row).first().map(ByteArray::data)
    }
}

/// A place in a column from which rows are read onwards.
pub(super) struct Cursor {
    file: Arc<ParquetFile>,
    leaf: Leaf,
    group: usize,
    /// Row of the file that is read next.
    next: u64,
    /// Reader of the group, `None` before its first row.
    column: Option<ColumnReaderImpl<ByteArrayType>>,
}

impl Cursor {
    /// A cursor at the first row.
    pub fn new(file: &Arc<ParquetFile>, leaf: Leaf) -> Cursor {
        Cursor { file: Arc::clone(file), leaf, group: 0, next: 0, column: None }
    }

    /// A cursor at a row, `None` past the last.
    pub fn at(file: &Arc<ParquetFile>, leaf: Leaf, row: u64) -> Result<Option<Cursor>> {
        let Some(group) = file.group_of(row) else { return Ok(None) };
        let mut cursor =
            Cursor { file: Arc::clone(file), leaf, group, next: file.starts[group], column: None };
        cursor.skip_to(row)?;
        Ok(Some(cursor))
    }

    /// Whether `row` can be reached by [`Cursor::skip_to`].
    pub fn is_before(&self, row: u64) -> bool {
        self.next <= row && self.file.group_of(row) == Some(self.group)
    }

    /// The file it is in.
    pub fn file(&self) -> &Path {
        &self.file.path
    }

    /// The row that is read next.
    pub fn next_row(&self) -> u64 {
        self.next
    }

    /// Moves on to a row of the same row group without decoding what is between.
    pub fn skip_to(&mut self, row: u64) -> Result<()> {
        debug_assert!(self.is_before(row));
        let by = usize::try_from(row - self.next).unwrap_or(usize::MAX);
        let path = Arc::clone(&self.file.path);
        let skipped = guarded(&path, || self.column()?.skip_records(by).in_parquet(&path))?;
        self.next = row;
        if skipped == by { Ok(()) } else { Err(self.cut(row)) }
    }

    /// Reads up to `max` rows; fewer only at the end of a row group, none only at the end of the file.
    ///
    /// # Errors
    /// Damage, also a row group with fewer rows than it should have; the rows before it have been given out.
    pub fn read(&mut self, max: usize) -> Result<Rows> {
        while self.group + 1 < self.file.starts.len() && self.next == self.file.starts[self.group + 1] {
            self.group += 1;
            self.column = None;
        }
        let Some(&end) = self.file.starts.get(self.group + 1) else { return Ok(Rows::default()) };
        let max = usize::try_from(end - self.next).unwrap_or(usize::MAX).min(max);
        let path = Arc::clone(&self.file.path);
        let rows = guarded(&path, || self.read_trusting(max).in_parquet(&path))?;
        if rows.len() == 0 && max > 0 {
            return Err(self.cut(end));
        }
        self.next += rows.len() as u64;
        Ok(rows)
    }

    fn read_trusting(&mut self, max: usize) -> parquet::errors::Result<Rows> {
        let descriptor = self.file.reader.metadata().file_metadata().schema_descr().column(self.leaf.index);
        let (max_defined, nested) = (descriptor.max_def_level(), descriptor.max_rep_level() > 0);
        let column = self.column().map_err(|e| parquet::errors::ParquetError::External(Box::new(e)))?;
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        let (records, _, levels) =
            column.read_records(max, Some(&mut defined), Some(&mut repeated), &mut values)?;
        if !nested && max_defined == 0 {
            let ends = (1..=values.len()).collect();
            return Ok(Rows { values, ends });
        }
        // Levels say which rows have a value, and where a row of a list begins.
        let mut rows = Rows { ends: Vec::with_capacity(records), values };
        let mut end = 0;
        for level in 0..levels {
            if level > 0 && (!nested || repeated.get(level) == Some(&0)) {
                rows.ends.push(end);
            }
            end += usize::from(defined.get(level) == Some(&max_defined));
        }
        if levels > 0 {
            rows.ends.push(end);
        }
        if rows.ends.len() != records || end != rows.values.len() {
            let (ends, values) = (rows.ends.len(), rows.values.len());
            let message = format!("{records} rows expected, {ends} with {end} of {values} values found");
            return Err(parquet::errors::ParquetError::General(message));
        }
        Ok(rows)
    }

    fn column(&mut self) -> Result<&mut ColumnReaderImpl<ByteArrayType>> {
        if self.column.is_none() {
            self.column = Some(self.file.column_reader(self.group, self.leaf)?);
        }
        Ok(self.column.as_mut().expect("set above"))
    }

    fn cut(&self, expected: u64) -> MemoryError {
        damaged(
            &self.file.path,
            format!("{expected} rows or more"),
            format!("data that end at row {}", self.next),
        )
    }
}

/// Runs what calls the parquet crate, which panics on some damaged pages (version 60: "Decoder for dict should have been set").
/// After a panic nobody uses the reader again: a cursor that failed is dropped.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(damaged(path, "a parquet file".to_owned(), "pages that cannot be decoded".to_owned()))
    })
}

fn damaged(path: &Path, expected: String, found: String) -> MemoryError {
    MemoryError::Damaged { path: path.to_owned(), expected, found }
}
