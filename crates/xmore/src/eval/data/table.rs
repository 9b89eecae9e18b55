//! A table with an image path and a label in each row.

use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use xmore_files::{LeftOut, open_regular};
use xmore_memory::ingest::{ImageRef, is_image_name};

use super::{Dataset, DatasetOptions, choose_split, name_of, read_lines};
use crate::error::{Result, XmoreError};
use crate::labels::Labels;

const IMAGE_COLUMNS: &[&str] =
    &["image_path", "filepath", "file_path", "image", "file_name", "filename", "path", "img"];
const LABEL_COLUMNS: &[&str] =
    &["label", "class", "class_name", "classname", "label_name", "category", "target"];
const SPLIT_COLUMNS: &[&str] = &["split", "subset", "partition"];
/// Longest path or label. A longer one nearly always comes from a quote that is never closed.
const MAX_FIELD_BYTES: usize = 4096;

/// One row that names an image and its label.
struct Row {
    image: String,
    label: String,
    split: Option<String>,
}

/// Reads a table. Relative paths are relative to the image root, else to the table's folder.
pub(super) fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let file = open_regular(path).map_err(|e| XmoreError::io("open", path, e))?;
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let (rows, skipped) = read_rows(file, path, if tabs { b'\t' } else { b',' })?;
    let rows = of_split(path, rows, options.split.as_deref())?;
    let folder = options.image_root.as_deref().or(path.parent()).unwrap_or(Path::new(""));
    let labels = match &options.class_names {
        Some(file) => Labels::repeatable(read_lines(file)?)?,
        None => {
            let mut names: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            Labels::new(names)?
        }
    };
    let (mut images, mut truth) = (Vec::new(), Vec::new());
    for row in rows {
        let number = row.label.parse::<usize>().ok().filter(|_| options.class_names.is_some());
        let named = || labels.names().iter().position(|name| *name == row.label);
        let Some(label) = number.filter(|&n| n < labels.names().len()).or_else(named) else {
            let message = format!(
                "label {:?} of {} is neither a name nor a number of the {} class names",
                row.label,
                row.image,
                labels.names().len()
            );
            return Err(XmoreError::dataset(path, message));
        };
        images.push(ImageRef::parse(&folder.join(&row.image).to_string_lossy()));
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
            Some(wanted) => Err(XmoreError::dataset(
                path,
                format!("expected a column `split` to choose {wanted} by, found none"),
            )),
            None => Ok(rows),
        };
    }
    let split = choose_split(path, wanted, &splits)?.to_owned();
    Ok(rows.into_iter().filter(|row| row.split.as_deref() == Some(&split)).collect())
}

fn read_rows(input: impl Read, path: &Path, delimiter: u8) -> Result<(Vec<Row>, Vec<String>)> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .has_headers(false)
        .trim(Trim::All)
        .from_reader(input);
    let mut record = ByteRecord::new();
    let fail = |e: csv::Error| XmoreError::dataset(path, format!("expected a table: {e}"));
    if !reader.read_byte_record(&mut record).map_err(fail)? {
        return Err(XmoreError::dataset(
            path,
            "expected a table with columns image_path and label, found an empty file",
        ));
    }
    let header: Vec<String> = record
        .iter()
        .map(|field| String::from_utf8_lossy(field).trim_start_matches('\u{feff}').trim().to_lowercase())
        .collect();
    let find = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|column| column == name));
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    let columns = match (find(IMAGE_COLUMNS), find(LABEL_COLUMNS)) {
        (Some(image), Some(label)) => (image, label, find(SPLIT_COLUMNS)),
        // A table without a header begins with an image.
        (None, None) if (2..=3).contains(&header.len()) && is_image_name(Path::new(&header[0])) => {
            let columns = (0, 1, (header.len() == 3).then_some(2));
            take(&record, columns, 1, &mut rows, &mut skipped);
            columns
        }
        _ => {
            let names = |names: &[&str]| names.join(", ");
            let message = format!(
                "expected a column for the image ({}) and one for the label ({}), found {}",
                names(IMAGE_COLUMNS),
                names(LABEL_COLUMNS),
                header.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            );
            return Err(XmoreError::dataset(path, message));
        }
    };
    while reader.read_byte_record(&mut record).map_err(fail)? {
        let line = record.position().map_or(0, csv::Position::line);
        take(&record, columns, line, &mut rows, &mut skipped);
    }
    Ok((rows, skipped))
}

fn take(
    record: &ByteRecord,
    (image, label, split): (usize, usize, Option<usize>),
    line: u64,
    rows: &mut Vec<Row>,
    skipped: &mut Vec<String>,
) {
    let field = |column: usize| {
        let bytes = record.get(column).filter(|bytes| (1..=MAX_FIELD_BYTES).contains(&bytes.len()))?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    match (field(image), field(label)) {
        (Some(image), Some(label)) => rows.push(Row { image, label, split: split.and_then(field) }),
        (None, _) => skipped.push(format!("line {line}: no image path")),
        (_, None) => skipped.push(format!("line {line}: no label")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = [b"image_path,label\n".to_vec(), bytes.clone()].concat();
            let (rows, _) = read_rows(text.as_slice(), Path::new("t.csv"), b',').unwrap();
            prop_assert!(rows.iter().all(|row| !row.image.is_empty() && !row.label.is_empty()));
            let _ = read_rows(bytes.as_slice(), Path::new("t.csv"), b',');
        }

        #[test]
        fn every_row_is_read_whatever_its_quotes(rows in proptest::collection::vec(("[a-z,\" ]{0,8}[a-z]", "[a-z,\"é ]{0,8}[a-z]"), 1..30)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["Label", "Image"]).unwrap();
            for (image, label) in &rows {
                writer.write_record([label, image]).unwrap();
            }
            let (found, skipped) = read_rows(writer.into_inner().unwrap().as_slice(), Path::new("t.csv"), b',').unwrap();
            prop_assert!(skipped.is_empty());
            for (row, (image, label)) in found.iter().zip(&rows) {
                prop_assert_eq!((row.image.as_str(), row.label.as_str()), (image.trim(), label.trim()));
            }
            prop_assert_eq!(found.len(), rows.len());
        }
    }
}
