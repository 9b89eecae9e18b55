//! Tables as people have them, read row by row in bounded memory: separated text (csv, tsv, what Excel writes) and JSON objects.
//!
//! The separator is found out, text may be in any of the encodings of [`crate::text`], columns go by their usual names ([`Role`]), and a
//! row that is broken costs no other: it is given as a [`BadRow`].

mod columns;
mod objects;
mod separated;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use columns::{Found, MissingColumn, Role, find, same_name};

use crate::json::{self, Value};
use crate::names::{path_from_bytes, path_from_text};
use crate::text::{Conversion, to_windows_1252};
use objects::{Object, Objects};
use separated::Separated;

/// Longest record of separated text.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// Columns of JSON objects that are known: those of the first objects.
const MAX_KEYS: usize = 1000;
/// Objects whose keys are looked at to find the columns.
const PROBED_OBJECTS: usize = 64;

/// How the rows of a table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Fields between separators.
    Separated {
        /// The separator where nothing else decides.
        preferred: u8,
    },
    /// JSON objects, each in a line or all in a list.
    Objects,
}

impl TableKind {
    /// Extensions of tables' names.
    pub const EXTENSIONS: &[&str] = &["csv", "tsv", "tab", "jsonl", "ndjson"];

    /// The kind that a file's extension says, in any case.
    pub fn of_name(path: &Path) -> Option<TableKind> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(TableKind::Separated { preferred: b',' }),
            "tsv" | "tab" => Some(TableKind::Separated { preferred: b'\t' }),
            "jsonl" | "ndjson" => Some(TableKind::Objects),
            _ => None,
        }
    }
}

/// A table that is being read.
pub struct Table<R> {
    rows: Rows<R>,
    columns: Vec<String>,
    has_header: bool,
}

enum Rows<R> {
    Separated {
        // Its parser has tables of its own size.
        text: Box<Separated<R>>,
        /// The first row of a table without a header.
        first: Option<(u64, Vec<String>)>,
    },
    Objects {
        objects: Objects<R>,
        /// Those whose keys were looked at.
        first: VecDeque<Object>,
    },
}

/// Some fields of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Line on which the row begins, counted from 1.
    pub line: u64,
    /// One for each column that was asked for.
    pub fields: Vec<Field>,
}

/// A field of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// Blank, null, or not there.
    Empty,
    /// Text, also a number as text; without spaces around it and not blank.
    Text(String),
    /// A JSON list's texts, without spaces around them; none is blank.
    List(Vec<String>),
    /// A JSON value that is no text.
    NotText,
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Line on which it begins, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: RowError,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowError {
    /// It has another number of fields than the header.
    FieldCount {
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        found: usize,
    },
    /// A quote begins in it that is never closed.
    OpenQuote,
    /// So many quotes were never closed that the rest of the table was not read.
    TooManyOpenQuotes {
        /// Most of them that are passed over.
        limit: u32,
    },
    /// It is longer than what is read.
    TooLong {
        /// Most bytes that are read.
        limit: usize,
    },
    /// It is no JSON.
    NotJson {
        /// What the parser says.
        message: String,
    },
    /// It is JSON, but no object.
    NotAnObject,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowError::FieldCount { expected, found } => {
                write!(f, "expected {expected} fields, found {found} (a separator without quotes?)")
            }
            RowError::OpenQuote => f.write_str("a quote is not closed"),
            RowError::TooManyOpenQuotes { limit } => {
                write!(f, "more than {limit} quotes are not closed; the rest was not read")
            }
            RowError::TooLong { limit } => write!(f, "it is longer than {limit} bytes"),
            RowError::NotJson { message } => write!(f, "it is no JSON: {message}"),
            RowError::NotAnObject => f.write_str("it is no JSON object"),
        }
    }
}

impl<R: Read> Table<R> {
    /// Begins to read a table; `None` if it is empty. Columns that the caller asks for by name are `wanted`: they help to find the
    /// separator.
    ///
    /// # Errors
    /// Those of the input.
    pub fn open(input: R, kind: TableKind, wanted: &[&str]) -> io::Result<Option<Table<R>>> {
        match kind {
            TableKind::Separated { preferred } => {
                Table::open_separated(Separated::open(input, preferred, wanted)?)
            }
            TableKind::Objects => Table::open_objects(Objects::open(input)?),
        }
    }

    fn open_separated(mut text: Separated<R>) -> io::Result<Option<Table<R>>> {
        let (line, columns) = loop {
            match text.next()? {
                None => return Ok(None),
                Some(Ok(row)) => break row,
                // A header that cannot be read leaves the first row that can.
                Some(Err(_)) => {}
            }
        };
        // No column is named as an image file is.
        let has_header = !columns.iter().any(|field| columns::is_image(field));
        let first = (!has_header).then(|| (line, columns.clone()));
        Ok(Some(Table { rows: Rows::Separated { text: Box::new(text), first }, columns, has_header }))
    }

    fn open_objects(mut objects: Objects<R>) -> io::Result<Option<Table<R>>> {
        let (mut first, mut columns) = (VecDeque::new(), Vec::new());
        let mut bytes = 0;
        while first.len() < PROBED_OBJECTS && bytes < objects::MAX_OBJECT_BYTES {
            let Some(object) = objects.next()? else { break };
            if let Ok((_, text)) = &object {
                bytes += text.len();
                json::add_keys(text, MAX_KEYS, &mut columns);
            }
            first.push_back(object);
        }
        let table = Table { rows: Rows::Objects { objects, first }, columns, has_header: true };
        Ok((!matches!(&table.rows, Rows::Objects { first, .. } if first.is_empty())).then_some(table))
    }

    /// Names of the columns; of a table without a header the fields of its first row.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether the columns have names.
    pub fn has_header(&self) -> bool {
        self.has_header
    }

    /// The column of a role: that which the caller `wanted`, by name or by number from 1, else the first with a usual name.
    ///
    /// Of a table without a header the image's is that with an image's name. Where there are two columns the other one has the caption or
    /// the label; of three, the first of the others has the label and the second the split.
    ///
    /// # Errors
    /// [`MissingColumn`], with the columns that there are.
    pub fn find(&self, role: Role, wanted: Option<&str>) -> Result<Found, MissingColumn> {
        if self.has_header || wanted.is_some() {
            return find(&self.columns, role, wanted)
                .map_err(|missing| MissingColumn { has_header: self.has_header, ..missing });
        }
        let image = self.columns.iter().position(|field| columns::is_image(field));
        let mut others = (0..self.columns.len()).filter(|&index| Some(index) != image);
        let index = match (role, self.columns.len()) {
            (Role::Image, _) => image,
            (Role::Caption, 2) | (Role::Label, 2 | 3) => others.next(),
            (Role::Split, 3) => others.nth(1),
            _ => None,
        };
        index.map(|index| Found { index, others: Vec::new() }).ok_or_else(|| MissingColumn {
            role,
            expected: role.column_names(),
            wanted: None,
            columns: self.columns.clone(),
            has_header: false,
        })
    }

    /// The next row's fields in these columns; `None` at the end. Rows whose fields are all blank are passed over.
    ///
    /// # Errors
    /// Those of the input.
    pub fn next(&mut self, wanted: &[usize]) -> io::Result<Option<Result<Row, BadRow>>> {
        match &mut self.rows {
            Rows::Separated { text, first } => loop {
                let record = match first.take() {
                    Some(row) => Some(Ok(row)),
                    None => text.next()?,
                };
                let (line, mut fields) = match record {
                    None => return Ok(None),
                    Some(Err(bad)) => return Ok(Some(Err(bad))),
                    Some(Ok(row)) => row,
                };
                if fields.iter().all(String::is_empty) {
                    continue;
                }
                let (expected, found) = (self.columns.len(), fields.len());
                // Excel ends the rows of a sheet with as many separators as its longest row needs.
                if found < expected || fields[expected..].iter().any(|field| !field.is_empty()) {
                    let error = RowError::FieldCount { expected, found };
                    return Ok(Some(Err(BadRow { line, error })));
                }
                let mut take = |&index: &usize| match std::mem::take(&mut fields[index]) {
                    text if text.is_empty() => Field::Empty,
                    text => Field::Text(text),
                };
                return Ok(Some(Ok(Row { line, fields: wanted.iter().map(&mut take).collect() })));
            },
            Rows::Objects { objects, first } => {
                let object = match first.pop_front() {
                    Some(object) => Some(object),
                    None => objects.next()?,
                };
                let names: Vec<&str> = wanted.iter().map(|&index| self.columns[index].as_str()).collect();
                Ok(object.map(|object| object.and_then(|(line, text)| row_of(line, &text, &names))))
            }
        }
    }

    /// How the text was stored, and what had to be guessed so far; complete at the end.
    pub fn conversion(&self) -> Conversion {
        match &self.rows {
            Rows::Separated { text, .. } => text.conversion(),
            Rows::Objects { objects, .. } => objects.conversion(),
        }
    }

    /// What stands between the fields, `None` for JSON.
    pub fn separator(&self) -> Option<char> {
        match &self.rows {
            Rows::Separated { text, .. } => Some(text.separator().into()),
            Rows::Objects { .. } => None,
        }
    }
}

impl<R> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// The fields of these names of an object.
fn row_of(line: u64, text: &[u8], names: &[&str]) -> Result<Row, BadRow> {
    let error = match json::fields(text, names) {
        Ok(Some(values)) => {
            return Ok(Row { line, fields: values.into_iter().map(field_of).collect() });
        }
        Ok(None) => RowError::NotAnObject,
        Err(error) => RowError::NotJson { message: error.to_string() },
    };
    Err(BadRow { line, error })
}

fn field_of(value: Value) -> Field {
    let text = |text: String| match text.trim() {
        "" => Field::Empty,
        trimmed if trimmed.len() == text.len() => Field::Text(text),
        trimmed => Field::Text(trimmed.to_owned()),
    };
    match value {
        Value::Null => Field::Empty,
        Value::Text(value) => text(value),
        Value::Integer(number) => Field::Text(number.to_string()),
        Value::Texts(values) => {
            let texts: Vec<String> = values
                .iter()
                .map(|text| text.trim())
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .collect();
            if texts.is_empty() { Field::Empty } else { Field::List(texts) }
        }
        Value::Other => Field::NotText,
    }
}

/// The file that a table names: relative to a folder; with quotes or Windows' backslashes, where that is what exists; without the number
/// of the caption that Flickr8k's list has behind it; with the bytes that a `file:` text of [`path_to_text`](crate::path_to_text) stands
/// for.
pub fn image_path(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join(text);
    let [plain, numberless, slashed] = spellings(text);
    if plain == text && slashed == text && !text.starts_with("file:") {
        return path;
    }
    // A name is taken as it is where there is such a file.
    let spelled = [plain, numberless].into_iter().map(|text| folder.join(text));
    let found = std::iter::once(path).chain(spelled).find(|path| exists(path));
    found.unwrap_or_else(|| folder.join(path_from_text(&slashed)))
}

/// The same for a table whose text was converted as `conversion` says. Where Windows-1252 was taken for it and there is no file of the
/// name as it was decoded, but one of the bytes that the name has in Windows-1252, which are those in the table, that file is meant.
pub fn converted_image_path(folder: &Path, text: &str, conversion: Conversion) -> PathBuf {
    let path = image_path(folder, text);
    if conversion.converted == 0 || text.is_ascii() || exists(&path) {
        return path;
    }
    let stored = spellings(text).into_iter().filter_map(|text| to_windows_1252(&text));
    let mut stored = stored.map(|name| folder.join(path_from_bytes(&name)));
    stored.find(|path| exists(path)).unwrap_or(path)
}

/// How the name of an image may be meant: without quotes around it, without a caption's number, with slashes for backslashes.
fn spellings(text: &str) -> [String; 3] {
    let plain = text.trim_matches(['"', '\'']).trim();
    let numberless = columns::without_caption_number(plain);
    [plain.to_owned(), numberless.to_owned(), numberless.replace('\\', "/")]
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
