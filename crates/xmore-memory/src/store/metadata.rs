//! Metadata parts: image paths and captions in parquet, without arrow.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use xmore_files::open_regular;

use crate::error::{AtPath, InParquet, MemoryError, Result};
use crate::store::StoreError;

/// Column of image paths.
const IMAGE_PATH: &str = "image_path";
/// Column of captions.
const CAPTION: &str = "caption";

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;

/// Strings of one column, back to back.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    text: String,
    /// End of each string in `text`.
    ends: Vec<usize>,
}

impl Strings {
    /// Appends a string.
    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all strings together.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// String `row`, `None` past the end.
    pub fn get(&self, row: usize) -> Option<&str> {
        let end = *self.ends.get(row)?;
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        Some(&self.text[start..end])
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|row| self.get(row))
    }
}

/// Metadata of one part.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// Image path of each row.
    pub image_paths: Strings,
    /// Caption of each row.
    pub captions: Strings,
}

impl Metadata {
    /// The first rows.
    pub fn first(&self, rows: usize) -> Metadata {
        let mut first = Metadata::default();
        for (image_path, caption) in self.image_paths.iter().zip(self.captions.iter()).take(rows) {
            first.image_paths.push(image_path);
            first.captions.push(caption);
        }
        first
    }

    /// Writes a parquet file (snappy, one row group) under a temporary name, makes it durable, renames it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let temporary = path.with_extension("parquet.tmp");
        let file = File::create(&temporary).at("create", &temporary)?;
        self.write_to(&file).in_parquet(&temporary)?;
        file.sync_all().at("write", &temporary)?;
        std::fs::rename(&temporary, path).at("rename to", path)
    }

    fn write_to(&self, file: &File) -> parquet::errors::Result<()> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema()?), Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        for strings in [&self.image_paths, &self.captions] {
            let values: Vec<ByteArray> = strings.iter().map(ByteArray::from).collect();
            if let Some(mut column) = group.next_column()? {
                column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                column.close()?;
            }
        }
        group.close()?;
        writer.close()?;
        Ok(())
    }

    /// Reads the two columns of a parquet file of `rows` rows, written by any program: dictionary or plain encoding,
    /// required or optional (a null is read as an empty string), among any other columns.
    pub fn read(path: &Path, rows: u64) -> Result<Metadata> {
        // The parquet crate panics on some damaged pages (version 60: "Decoder for dict should have been set"). Nothing
        // outlives the closure but its result, so there is no half-changed state to see.
        std::panic::catch_unwind(|| Self::read_trusting(path, rows)).unwrap_or_else(|_| {
            Err(damaged(path, "a parquet file".to_owned(), "pages that cannot be decoded".to_owned()))
        })
    }

    fn read_trusting(path: &Path, rows: u64) -> Result<Metadata> {
        let reader = SerializedFileReader::new(open_regular(path).at("open", path)?).in_parquet(path)?;
        let found = reader.metadata().file_metadata().num_rows();
        if u64::try_from(found) != Ok(rows) {
            return Err(damaged(path, format!("{rows} rows"), format!("{found}")));
        }
        Ok(Metadata {
            image_paths: read_column(&reader, IMAGE_PATH, rows, path)?,
            captions: read_column(&reader, CAPTION, rows, path)?,
        })
    }
}

/// Two required UTF-8 columns.
fn schema() -> parquet::errors::Result<Type> {
    let string = |name| {
        let column = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::String))
            .build()?;
        Ok::<_, parquet::errors::ParquetError>(Arc::new(column))
    };
    Type::group_type_builder("schema").with_fields(vec![string(IMAGE_PATH)?, string(CAPTION)?]).build()
}

/// Reads one string column of all row groups.
fn read_column(reader: &SerializedFileReader<File>, name: &str, rows: u64, path: &Path) -> Result<Strings> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let top_level = |i: usize| schema.column(i).path().parts() == [name];
    let Some(column) = (0..schema.num_columns()).find(|&i| top_level(i)) else {
        let found: Vec<&str> = schema.root_schema().get_fields().iter().map(|f| f.name()).collect();
        return Err(damaged(path, format!("a column {name}"), format!("columns {}", found.join(", "))));
    };
    let descriptor = schema.column(column);
    if descriptor.max_rep_level() > 0 || descriptor.physical_type() != PhysicalType::BYTE_ARRAY {
        let found = format!("{} of rank {}", descriptor.physical_type(), descriptor.max_rep_level());
        return Err(damaged(path, format!("strings in column {name}"), found));
    }
    let optional = descriptor.max_def_level();

    let mut strings = Strings::default();
    for group in 0..reader.num_row_groups() {
        let column_reader =
            reader.get_row_group(group).and_then(|g| g.get_column_reader(column)).in_parquet(path)?;
        let ColumnReader::ByteArrayColumnReader(mut column_reader) = column_reader else {
            return Err(damaged(path, format!("strings in column {name}"), "another type".to_owned()));
        };
        read_group(&mut column_reader, optional, &mut strings, rows).in_parquet(path)?;
    }
    if strings.len() as u64 != rows {
        return Err(damaged(path, format!("{rows} values in column {name}"), format!("{}", strings.len())));
    }
    Ok(strings)
}

/// Appends the values of one row group, stopping after `rows` in all.
fn read_group(
    reader: &mut ColumnReaderImpl<ByteArrayType>,
    defined: i16,
    strings: &mut Strings,
    rows: u64,
) -> parquet::errors::Result<()> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    while (strings.len() as u64) < rows {
        values.clear();
        levels.clear();
        let (records, _, _) = reader.read_records(BATCH_ROWS, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        let mut present = values.iter();
        for row in 0..records {
            // Levels say which rows have a value; a required column has none.
            let value = if defined == 0 || levels.get(row) == Some(&defined) { present.next() } else { None };
            strings.push(&String::from_utf8_lossy(value.map_or(&[][..], |v| v.data())));
        }
    }
    Ok(())
}

fn damaged(path: &Path, expected: String, found: String) -> MemoryError {
    StoreError::Damaged { path: path.to_owned(), expected, found }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(rows: usize) -> Metadata {
        let mut metadata = Metadata::default();
        for i in 0..rows {
            metadata.image_paths.push(&format!("photos/{}.jpg", i / 5));
            metadata.captions.push(if i % 7 == 3 { "" } else { "a dog – ein Hund 🐕" });
        }
        metadata
    }

    fn all(strings: &Strings) -> Vec<String> {
        strings.iter().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [0, 1, 10_000] {
            let path = dir.path().join(format!("metadata_{rows}.parquet"));
            let written = sample(rows);
            written.write(&path).unwrap();
            let read = Metadata::read(&path, rows as u64).unwrap();
            assert_eq!(all(&read.captions), all(&written.captions));
            assert_eq!(all(&read.image_paths), all(&written.image_paths));
            assert_eq!(read.captions.get(rows), None);
        }
    }

    #[test]
    fn another_number_of_rows_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata_0000.parquet");
        sample(10).write(&path).unwrap();
        let message = Metadata::read(&path, 11).unwrap_err().to_string();
        assert!(message.contains("11 rows") && message.contains("metadata_0000.parquet"), "{message}");
    }

    #[test]
    fn optional_columns_among_others_are_read_and_nulls_are_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("foreign.parquet");
        let schema = "message schema { required int64 width; optional binary caption (UTF8);
                      optional binary image_path (UTF8); }";
        let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
        let mut writer =
            SerializedFileWriter::new(File::create(&path).unwrap(), schema, Default::default()).unwrap();
        for _ in 0..2 {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<parquet::data_type::Int64Type>().write_batch(&[1, 2, 3], None, None).unwrap();
            column.close().unwrap();
            for name in ["caption", "path"] {
                let mut column = group.next_column().unwrap().unwrap();
                let values = [ByteArray::from(name), ByteArray::from("last")];
                column.typed::<ByteArrayType>().write_batch(&values, Some(&[1, 0, 1]), None).unwrap();
                column.close().unwrap();
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
        let metadata = Metadata::read(&path, 6).unwrap();
        assert_eq!(all(&metadata.captions), ["caption", "", "last", "caption", "", "last"]);
        assert_eq!(all(&metadata.image_paths), ["path", "", "last", "path", "", "last"]);
    }

    /// The files are made by `fixtures/make_metadata.py` beside them.
    #[test]
    fn files_of_pyarrow_are_read() {
        for name in ["plain", "dictionary", "large_zstd"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/pyarrow_{name}.parquet"));
            let metadata = Metadata::read(&path, 300).unwrap();
            for row in 0..300 {
                let caption =
                    if row % 7 == 3 { String::new() } else { format!("a dog – ein Hund {}", row % 11) };
                assert_eq!(metadata.captions.get(row), Some(caption.as_str()), "{name}");
                assert_eq!(
                    metadata.image_paths.get(row),
                    Some(format!("photos/{}.jpg", row / 5).as_str()),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_missing_column_is_named_with_those_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.parquet");
        let schema = Arc::new(
            parquet::schema::parser::parse_message_type("message s { required binary url; }").unwrap(),
        );
        SerializedFileWriter::new(File::create(&path).unwrap(), schema, Default::default())
            .unwrap()
            .close()
            .unwrap();
        let message = Metadata::read(&path, 0).unwrap_err().to_string();
        assert!(message.contains("image_path") && message.contains("url"), "{message}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn damaged_files_are_refused_or_read_but_never_panic(
            cut in prop::option::of(0.0f64..1.0),
            flips in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..8)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("metadata_0000.parquet");
            sample(40).write(&path).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let length = bytes.len();
            for (at, value) in flips {
                bytes[(at * length as f64) as usize] = value;
            }
            bytes.truncate(cut.map_or(length, |c| (c * length as f64) as usize));
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(metadata) = Metadata::read(&path, 40) {
                prop_assert_eq!(bytes.len(), length);
                prop_assert_eq!(metadata.captions.len(), 40);
            }
        }
    }
}
