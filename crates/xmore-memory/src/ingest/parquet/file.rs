//! An open parquet file and its columns of strings and bytes; without arrow.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::ByteArrayType;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::damage::damaged;
use super::footer::read_footer;
use super::guarded::guarded;
use super::pages::{Pages, Stored, Used};
use super::unpack::unread;
use crate::error::{AtPath, InParquet, Result};
use crate::ingest::SourceError;

/// An open parquet file: its footer is read, its data are not.
pub(in crate::ingest) struct ParquetFile {
    path: Arc<Path>,
    stored: Arc<Stored>,
    metadata: ParquetMetaData,
    /// First row of each row group, then the number of rows; what the footer says.
    starts: Vec<u64>,
    bytes: u64,
}

/// A column of byte arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) struct Leaf {
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
        let file = xmore_files::open_regular(path).at("open", path)?;
        let bytes = file.metadata().at("open", path)?.len();
        let footer = read_footer(&file, bytes)
            .map_err(|found| damaged(path, "a parquet file's footer".to_owned(), found))?;
        let stored = Arc::new(Stored::new(file).at("open", path)?);
        let metadata = guarded(path, || ParquetMetaDataReader::decode_metadata(&footer).in_parquet(path))?;
        let mut starts = vec![0u64];
        for group in metadata.row_groups() {
            for column in group.columns() {
                let places = [column.dictionary_page_offset().unwrap_or(0), column.data_page_offset()];
                let [first, data, length] = [places[0], places[1], column.compressed_size()];
                if first < 0 || data < 0 || length < 0 {
                    let expected = "a place and a length of each column".to_owned();
                    return Err(damaged(path, expected, format!("{length} bytes from {}", first.min(data))));
                }
            }
            let rows = u64::try_from(group.num_rows()).ok();
            let end = rows.and_then(|rows| starts[starts.len() - 1].checked_add(rows));
            starts.push(end.ok_or_else(|| {
                damaged(path, "a number of rows".to_owned(), format!("{}", group.num_rows()))
            })?);
        }
        Ok(Arc::new(ParquetFile { path: path.into(), stored, metadata, starts, bytes }))
    }

    /// Where it is.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Number of rows by the footer, which may lie.
    pub fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names of its top-level columns.
    pub fn names(&self) -> Vec<String> {
        let schema = self.metadata.file_metadata().schema_descr();
        schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect()
    }

    /// The byte-array column at this path below the root (`["image", "bytes"]`), upper and lower case alike. A list is found by the
    /// name of its column alone. `None` if there is none, or it is of another type, or nested more deeply.
    pub fn leaf(&self, path: &[&str]) -> Option<Leaf> {
        let schema = self.metadata.file_metadata().schema_descr();
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

    /// Whether the column holds nothing but nulls, `None` where the file's statistics do not say.
    pub fn is_all_null(&self, leaf: Leaf) -> Option<bool> {
        let groups = self.metadata.row_groups();
        let mut all = !groups.is_empty();
        for group in groups {
            let column = group.column(leaf.index);
            let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt())?;
            all &= u64::try_from(column.num_values()).ok() == Some(nulls);
        }
        Some(all)
    }

    /// The type of a top-level column in words.
    pub fn type_of(&self, name: &str) -> String {
        let schema = self.metadata.file_metadata().schema_descr();
        let field = schema.root_schema().get_fields().iter().find(|field| field.name() == name);
        let Some(field) = field else { return "no column".to_owned() };
        if field.is_primitive() {
            return match field.get_physical_type() {
                PhysicalType::BYTE_ARRAY => "text or bytes of another kind".to_owned(),
                kind => format!("{kind} values"),
            };
        }
        let inner: Vec<&str> = field.get_fields().iter().map(|field| field.name()).collect();
        let list = field.get_basic_info().converted_type() == ConvertedType::LIST;
        let what = if list { "lists that are not of texts" } else { "structs" };
        if list { what.to_owned() } else { format!("{what} of {}", inner.join(", ")) }
    }

    /// The row group that holds a row.
    pub fn group_of(&self, row: u64) -> Option<usize> {
        let group = self.starts.partition_point(|&start| start <= row).checked_sub(1)?;
        (group + 1 < self.starts.len()).then_some(group)
    }

    /// Number of row groups.
    pub fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// First row of a row group, or the end of the last.
    pub fn start_of(&self, group: usize) -> u64 {
        self.starts[group]
    }

    /// Greatest level of definition of a column, and whether it has lists.
    pub fn levels(&self, leaf: Leaf) -> (i16, bool) {
        let column = self.metadata.file_metadata().schema_descr().column(leaf.index);
        (column.max_def_level(), column.max_rep_level() > 0)
    }

    /// Refuses a column that is compressed in a way that is not read.
    pub fn check_codec(&self, leaf: Leaf) -> Result<()> {
        let groups = self.metadata.row_groups().iter();
        match groups.filter_map(|group| unread(group.column(leaf.index).compression())).next() {
            Some(codec) => Err(SourceError::Codec { path: self.path.to_path_buf(), codec }.into()),
            None => Ok(()),
        }
    }

    /// A reader of a column in a row group; what it reads is counted in `used`.
    pub fn column_reader(
        &self,
        group: usize,
        leaf: Leaf,
        used: &Arc<Used>,
    ) -> Result<ColumnReaderImpl<ByteArrayType>> {
        let group = self.metadata.row_group(group);
        let chunk = group.column(leaf.index);
        let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        let pages = Pages::new(&self.stored, chunk, rows, Arc::clone(used)).in_parquet(&self.path)?;
        Ok(ColumnReaderImpl::new(chunk.column_descr_ptr(), Box::new(pages)))
    }
}
