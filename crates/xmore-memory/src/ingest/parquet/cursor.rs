//! Rows of a column of strings, read onwards in batches. Values are copied, so that no page outlives its batch.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;

use super::damage::damaged;
use super::file::{Leaf, ParquetFile};
use super::guarded::guarded;
use super::pages::Used;
use crate::error::{InParquet, MemoryError, Result};

/// Rows decoded at a time: what decoding takes, as pages and prefixes multiply, is bounded by it.
const STEP_ROWS: usize = 64;

/// Values of some rows of a column.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Rows {
    bytes: Vec<u8>,
    values: Vec<Value>,
    /// End of each row in `values`.
    ends: Vec<usize>,
}

#[derive(Debug)]
enum Value {
    Kept(Range<usize>),
    TooLong(usize),
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) enum Cell<'a> {
    /// There is none.
    Null,
    /// Its bytes.
    Bytes(&'a [u8]),
    /// It is longer than what the cursor keeps, by its length.
    TooLong(usize),
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Values of a row: none for a null, one, or those of a list.
    pub fn get(&self, row: usize) -> impl Iterator<Item = Cell<'_>> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        self.values[start..self.ends[row]].iter().map(|value| match value {
            Value::Kept(range) => Cell::Bytes(&self.bytes[range.clone()]),
            Value::TooLong(length) => Cell::TooLong(*length),
        })
    }

    /// The one value of a row.
    pub fn first(&self, row: usize) -> Cell<'_> {
        self.get(row).next().unwrap_or(Cell::Null)
    }

    fn push(&mut self, value: &ByteArray, longest: usize) {
        if value.len() > longest {
            self.values.push(Value::TooLong(value.len()));
        } else {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(value.data());
            self.values.push(Value::Kept(start..self.bytes.len()));
        }
    }
}

/// A place in a column from which rows are read onwards.
pub(in crate::ingest) struct Cursor {
    file: Arc<ParquetFile>,
    leaf: Leaf,
    /// Most bytes of a value that are kept.
    longest: usize,
    group: usize,
    /// Row of the file that is read next.
    next: u64,
    /// Reader of the group, `None` before its first row.
    column: Option<ColumnReaderImpl<ByteArrayType>>,
    used: Arc<Used>,
    /// What stopped a read that had given out rows before it.
    failed: Option<MemoryError>,
}

impl Cursor {
    /// A cursor at the first row, that keeps values of up to `longest` bytes.
    pub fn new(file: &Arc<ParquetFile>, leaf: Leaf, longest: usize) -> Cursor {
        let (file, used) = (Arc::clone(file), Arc::default());
        Cursor { file, leaf, longest, group: 0, next: 0, column: None, used, failed: None }
    }

    /// A cursor at a row, `None` past the last.
    pub fn at(file: &Arc<ParquetFile>, leaf: Leaf, longest: usize, row: u64) -> Result<Option<Cursor>> {
        let Some(group) = file.group_of(row) else { return Ok(None) };
        let mut cursor = Cursor::new(file, leaf, longest);
        (cursor.group, cursor.next) = (group, file.start_of(group));
        cursor.skip_to(row)?;
        Ok(Some(cursor))
    }

    /// Whether `row` can be reached by [`Cursor::skip_to`].
    pub fn is_before(&self, row: u64) -> bool {
        self.next <= row && self.file.group_of(row) == Some(self.group)
    }

    /// The file it is in.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// Bytes of pages that it holds.
    pub fn held(&self) -> usize {
        self.used.held()
    }

    /// The row that is read next.
    pub fn next_row(&self) -> u64 {
        self.next
    }

    /// Moves on to a row of the same row group without decoding what is between.
    pub fn skip_to(&mut self, row: u64) -> Result<()> {
        debug_assert!(self.is_before(row));
        let path = Arc::clone(self.file.path());
        while self.next < row {
            let by = usize::try_from(row - self.next).unwrap_or(usize::MAX);
            self.used.reset();
            let skipped = guarded(&path, || self.column()?.skip_records(by).in_parquet(&path))?;
            if skipped == 0 {
                return Err(self.cut(row));
            }
            self.next += skipped as u64;
        }
        Ok(())
    }

    /// Reads up to `max` rows; fewer only at the end of a row group or before damage, none only at the end of the file.
    ///
    /// # Errors
    /// Damage, also a row group with fewer rows than it should have; the rows before it have been given out.
    pub fn read(&mut self, max: usize) -> Result<Rows> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while self.group < self.file.groups() && self.next == self.file.start_of(self.group + 1) {
            self.group += 1;
            self.column = None;
        }
        let mut rows = Rows::default();
        if self.group == self.file.groups() {
            return Ok(rows);
        }
        let end = self.file.start_of(self.group + 1);
        let max = usize::try_from(end - self.next).unwrap_or(usize::MAX).min(max);
        let path = Arc::clone(self.file.path());
        while rows.len() < max {
            let step = STEP_ROWS.min(max - rows.len());
            let read = guarded(&path, || {
                self.column()?;
                self.read_step(step, &mut rows).in_parquet(&path)
            });
            let error = match read {
                Ok(0) => self.cut(end),
                Ok(read) => {
                    self.next += read as u64;
                    continue;
                }
                Err(error) => error,
            };
            if rows.len() == 0 {
                return Err(error);
            }
            self.failed = Some(error);
            break;
        }
        Ok(rows)
    }

    /// Appends rows; believes that what was decoded has as many as it says.
    fn read_step(&mut self, max: usize, rows: &mut Rows) -> parquet::errors::Result<usize> {
        let (max_defined, nested) = self.file.levels(self.leaf);
        let longest = self.longest;
        self.used.reset();
        let Some(column) = &mut self.column else { return Ok(0) };
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        let (records, _, levels) =
            column.read_records(max, Some(&mut defined), Some(&mut repeated), &mut values)?;
        // Levels say which rows have a value, and where a row of a list begins.
        let mut ends = Vec::with_capacity(records);
        let mut end = 0;
        if !nested && max_defined == 0 {
            end = values.len();
            ends.extend(1..=values.len());
        } else {
            for level in 0..levels {
                if level > 0 && (!nested || repeated.get(level) == Some(&0)) {
                    ends.push(end);
                }
                end += usize::from(defined.get(level) == Some(&max_defined));
            }
            if levels > 0 {
                ends.push(end);
            }
        }
        if ends.len() != records || end != values.len() {
            let (ends, values) = (ends.len(), values.len());
            let message = format!("{records} rows expected, {ends} with {end} of {values} values found");
            return Err(ParquetError::General(message));
        }
        let before = rows.values.len();
        values.iter().for_each(|value| rows.push(value, longest));
        rows.ends.extend(ends.into_iter().map(|end| before + end));
        Ok(records)
    }

    fn column(&mut self) -> Result<&mut ColumnReaderImpl<ByteArrayType>> {
        match &mut self.column {
            Some(column) => Ok(column),
            empty => Ok(empty.insert(self.file.column_reader(self.group, self.leaf, &self.used)?)),
        }
    }

    fn cut(&self, expected: u64) -> MemoryError {
        damaged(
            self.file.path(),
            format!("{expected} rows or more"),
            format!("data that end at row {}", self.next),
        )
    }
}
