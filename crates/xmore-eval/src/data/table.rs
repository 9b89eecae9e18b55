//! A table with an image path and a label in each row.

use std::io::Read;
use std::path::Path;

use xmore_files::table::{Field, Role, Row as TableRow, Table, TableKind, converted_image_path};
use xmore_files::text::Conversion;
use xmore_files::{LeftOut, open_regular};
use xmore_memory::ingest::ImageRef;

use super::{Dataset, DatasetOption, DatasetOptions, choose_split, name_of};
use crate::error::{EvalError, Result};
use xmore::{LabelFile, Labels, normalized};

/// Longest path or label.
const MAX_FIELD_BYTES: usize = 4096;
/// Rows without an image or a label that are listed; the rest are counted.
const MAX_LISTED: usize = 1000;

/// Columns that are not to be found by their usual names: their names, or their numbers from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelColumns {
    /// The column of image paths.
    pub image: Option<String>,
    /// The column of labels.
    pub label: Option<String>,
}

/// One row that names an image and its label.
struct Row {
    image: String,
    label: String,
    split: Option<String>,
}

/// Reads a table. Relative paths are relative to the image root, else to the table's folder.
pub(super) fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let file = open_regular(path).map_err(|e| EvalError::io("open", path, e))?;
    let kind = TableKind::of_name(path).unwrap_or(TableKind::Separated { preferred: b',' });
    let Rows { rows, skipped, notes, conversion } = read_rows(file, path, kind, &options.columns)?;
    let rows = of_split(path, rows, options.split.as_deref())?;
    let folder = options.image_root.as_deref().or(path.parent()).unwrap_or(Path::new(""));
    let labels = match &options.class_names {
        Some(file) => LabelFile::read(file, None)?.repeatable()?,
        None => {
            let mut names: Vec<String> = rows.iter().map(|row| normalized(&row.label)).collect();
            names.sort_unstable();
            names.dedup();
            Labels::new(names)?
        }
    };
    let (mut images, mut truth) = (Vec::new(), Vec::new());
    for row in rows {
        let number = row.label.parse::<usize>().ok().filter(|_| options.class_names.is_some());
        let named = || {
            let label = normalized(&row.label);
            labels.names().iter().position(|name| *name == label)
        };
        let Some(label) = number.filter(|&n| n < labels.names().len()).or_else(named) else {
            let message = format!(
                "label {:?} of {} is neither a name nor a number of the {} class names",
                row.label,
                row.image,
                labels.names().len()
            );
            return Err(EvalError::dataset(path, message));
        };
        images.push(match ImageRef::parse(&row.image) {
            ImageRef::File(_) => ImageRef::File(converted_image_path(folder, &row.image, conversion)),
            inside => inside.below(folder),
        });
        truth.push(label);
    }
    Ok(Dataset {
        name: name_of(path),
        root: folder.to_owned(),
        labels,
        images,
        truth,
        prompts: Vec::new(),
        skipped,
        notes,
        left_out: LeftOut::default(),
        empty_classes: Vec::new(),
    })
}

/// The rows of the split, where there is a column of splits.
fn of_split(path: &Path, rows: Vec<Row>, wanted: Option<&str>) -> Result<Vec<Row>> {
    let mut splits: Vec<&str> = rows.iter().filter_map(|row| row.split.as_deref()).collect();
    splits.sort_unstable();
    splits.dedup();
    if splits.is_empty() {
        return match wanted {
            Some(_) => Err(EvalError::unused(path, DatasetOption::Split, "it has no column `split`")),
            None => Ok(rows),
        };
    }
    let split = choose_split(path, wanted, &splits)?.to_owned();
    Ok(rows.into_iter().filter(|row| row.split.as_deref() == Some(&split)).collect())
}

/// What a table gives.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    skipped: Vec<String>,
    notes: Vec<String>,
    conversion: Conversion,
}

fn read_rows(input: impl Read, path: &Path, kind: TableKind, names: &LabelColumns) -> Result<Rows> {
    let io = |e| EvalError::io("read", path, e);
    let wanted: Vec<&str> = [&names.image, &names.label].into_iter().flatten().map(String::as_str).collect();
    let Some(mut table) = Table::open(input, kind, &wanted).map_err(io)? else {
        let message = "expected a table with columns for images and labels, found an empty file";
        return Err(EvalError::dataset(path, message));
    };
    let mut found = Rows::default();
    let mut columns = Vec::new();
    for (role, wanted) in [(Role::Image, &names.image), (Role::Label, &names.label), (Role::Split, &None)] {
        match table.find(role, wanted.as_deref()) {
            Ok(column) => {
                columns.push(column.index);
                if !column.others.is_empty() {
                    let names = |index: &usize| format!("{:?}", table.columns()[*index]);
                    let others: Vec<String> = column.others.iter().map(names).collect();
                    let (taken, others) = (names(&column.index), others.join(", "));
                    found.notes.push(format!("column {taken} is taken for the {role}, not {others}"));
                }
            }
            Err(_) if role == Role::Split => {}
            Err(missing) => {
                return Err(EvalError::MissingColumn { path: path.to_owned(), missing: missing.into() });
            }
        }
    }
    let mut more = 0u64;
    while let Some(row) = table.next(&columns).map_err(io)? {
        let (line, row) = match row {
            Ok(row) => (row.line, take(row)),
            Err(bad) => (bad.line, Err(bad.error.to_string())),
        };
        match row {
            Ok(row) => found.rows.push(row),
            Err(what) if found.skipped.len() < MAX_LISTED => {
                found.skipped.push(format!("line {line}: {what}"))
            }
            Err(_) => more += 1,
        }
    }
    if more > 0 {
        found.skipped.push(format!("{more} more rows, which are not listed"));
    }
    found.conversion = table.conversion();
    if !found.conversion.is_certain() {
        found.notes.push(found.conversion.to_string());
    }
    Ok(found)
}

/// Image, label and split of a row, or what is wrong with it.
fn take(row: TableRow) -> Result<Row, String> {
    let mut fields = row.fields.into_iter();
    let mut text = |what: &str| match fields.next() {
        Some(Field::Text(text)) if text.len() <= MAX_FIELD_BYTES => Ok(text),
        Some(Field::Text(_)) => Err(format!("the {what} is longer than {MAX_FIELD_BYTES} bytes")),
        Some(Field::Empty) | None => Err(format!("no {what}")),
        Some(Field::List(_) | Field::NotText) => Err(format!("the {what} is no text")),
    };
    Ok(Row { image: text("image path")?, label: text("label")?, split: text("split").ok() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: TableKind = TableKind::Separated { preferred: b',' };

    fn rows(text: &[u8], kind: TableKind) -> Result<Rows> {
        read_rows(text, Path::new("t.csv"), kind, &LabelColumns::default())
    }

    #[test]
    fn tables_are_read_as_excel_and_hugging_face_write_them() {
        let utf16: Vec<u8> =
            "Filename\tLabel\r\n0.jpg\tchurch\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (text, kind) in [
            (&b"filename;label\n0.jpg;church\n"[..], CSV),
            (b"sep=;\r\nimage;class\r\n0.jpg;church\r\n", CSV),
            (&[&b"\xff\xfe"[..], &utf16].concat(), CSV),
            (b"0.jpg,church\n", CSV),
            (b"church|0.jpg\n", CSV),
            (b"{\"file_name\": \"0.jpg\", \"label\": \"church\"}\n", TableKind::Objects),
        ] {
            let found = rows(text, kind).unwrap();
            let (row, rest) = found.rows.split_first().unwrap();
            assert_eq!((row.image.as_str(), row.label.as_str(), rest.len()), ("0.jpg", "church", 0));
        }
        let found = rows(b"image,label,class\n0.jpg,\xe9glise,\n,x,\n1.jpg\n", CSV).unwrap();
        assert_eq!(found.rows[0].label, "église");
        assert_eq!(found.skipped.len(), 2);
        assert_eq!(found.notes[0], "column \"label\" is taken for the label, not \"class\"");
        assert_eq!(found.notes[1], "1 byte not UTF-8, read as Windows-1252");
        let names = LabelColumns { image: Some("bild".to_owned()), label: Some("2".to_owned()) };
        let found = read_rows(&b"bild,art\n0.jpg,x\n"[..], Path::new("t.csv"), CSV, &names).unwrap();
        assert_eq!(found.rows[0].label, "x");
        let error = rows(b"bild;art\n0.jpg;x\n", CSV).err().unwrap().to_string();
        assert!(error.contains("no image column") && error.contains("\"bild\", \"art\""), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = [b"image_path,label\n".to_vec(), bytes.clone()].concat();
            let found = rows(&text, CSV).unwrap();
            prop_assert!(found.rows.iter().all(|row| !row.image.is_empty() && !row.label.is_empty()));
            let _ = rows(&bytes, CSV);
            let _ = rows(&bytes, TableKind::Objects);
        }
    }
}
