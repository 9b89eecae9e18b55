//! Pairs from a table: separated text or JSON objects; rows that name one image are grouped, so that it is encoded once.

use std::io::Read;
use std::path::{Path, PathBuf};

use xmore_files::open_regular;
use xmore_files::table::{Field, MissingColumn, Role, Table, TableKind, converted_image_path, same_name};
use xmore_files::text::Conversion;

use super::caption::MAX_CAPTION_BYTES;
use super::column_names::ColumnNames;
use super::group::Grouping;
use super::note::{self, Conversions};
use super::skips::Skips;
use super::{Ingested, Note, Skip, SkipReason};
use crate::error::{AtPath, MemoryError, Result};
use crate::ingest::SourceError;

/// Longest path that is taken.
const MAX_PATH_BYTES: usize = 4096;

/// Reads a table. Relative image paths are relative to `image_root`, else to the table's folder.
pub(super) fn read(
    path: &Path,
    kind: TableKind,
    image_root: Option<&Path>,
    names: &ColumnNames,
) -> Result<Ingested> {
    let mut grouping = Grouping::default();
    let folder = image_root.or(path.parent()).unwrap_or(Path::new(""));
    let mut add = |image: PathBuf, captions: Vec<String>| grouping.add(image, captions);
    let (skipped, notes) = read_rows(path, kind, folder, names, &mut add)?;
    Ok(Ingested { pairs: grouping.pairs, skipped, notes, ..Ingested::default() })
}

/// Calls `add` with the image and the captions of each row, and tells of the others.
pub(super) fn read_rows(
    path: &Path,
    kind: TableKind,
    folder: &Path,
    names: &ColumnNames,
    add: &mut dyn FnMut(PathBuf, Vec<String>),
) -> Result<(Vec<Skip>, Vec<Note>)> {
    let file = open_regular(path).at("open", path)?;
    read_from(file, path, kind, folder, names, add)
}

fn read_from(
    input: impl Read,
    path: &Path,
    kind: TableKind,
    folder: &Path,
    names: &ColumnNames,
    add: &mut dyn FnMut(PathBuf, Vec<String>),
) -> Result<(Vec<Skip>, Vec<Note>)> {
    let wanted: Vec<&str> =
        [&names.image, &names.caption].into_iter().flatten().map(String::as_str).collect();
    let table = Table::open(input, kind, &wanted).at("read", path)?;
    let Some(mut table) = table else {
        return Err(SourceError::WrongKind {
            path: path.to_owned(),
            expected: "a table with columns for images and captions",
            found: "no row".to_owned(),
            hint: "fetch or write it again".to_owned(),
        }
        .into());
    };
    let image = table.find(Role::Image, names.image.as_deref());
    let image = image.map_err(|missing| {
        let hint = no_images_hint(&missing.columns);
        missing_column(path, missing, hint)
    })?;
    let caption = table.find(Role::Caption, names.caption.as_deref());
    let caption = caption.map_err(|missing| missing_column(path, missing, String::new()))?;
    let noted = |role, found| note::of_columns(path, role, found, table.columns());
    let mut notes: Vec<Note> =
        [noted(Role::Image, &image), noted(Role::Caption, &caption)].into_iter().flatten().collect();

    let mut skips = Skips::of(path);
    while let Some(row) = table.next(&[image.index, caption.index]).at("read", path)? {
        match row {
            Err(bad) => skips.add(SkipReason::Row { line: bad.line, what: bad.error.to_string() }),
            Ok(row) => {
                let line = row.line;
                match pair_of(row.fields, folder, table.conversion()) {
                    Ok((image, captions)) => add(image, captions),
                    Err(what) => skips.add(SkipReason::Row { line, what }),
                }
            }
        }
    }
    let mut conversions = Conversions::default();
    conversions.add(table.conversion());
    notes.extend(conversions.note(path));
    Ok((skips.finish(), notes))
}

/// Image and captions of a row, or what is wrong with it.
fn pair_of(
    fields: Vec<Field>,
    folder: &Path,
    conversion: Conversion,
) -> Result<(PathBuf, Vec<String>), String> {
    let mut fields = fields.into_iter();
    let (image, caption) = (fields.next().unwrap_or(Field::Empty), fields.next().unwrap_or(Field::Empty));
    let image = match image {
        Field::Text(image) if image.len() <= MAX_PATH_BYTES => image,
        Field::Text(_) => return Err(format!("the image path is longer than {MAX_PATH_BYTES} bytes")),
        Field::Empty => return Err("the image path is empty".to_owned()),
        Field::List(_) | Field::NotText => return Err("the image path is no text".to_owned()),
    };
    let captions = match caption {
        Field::Text(caption) => vec![caption],
        Field::List(captions) => captions,
        Field::Empty => return Err("the caption is empty".to_owned()),
        Field::NotText => return Err("the caption is no text".to_owned()),
    };
    if captions.iter().any(|caption| caption.len() > MAX_CAPTION_BYTES) {
        return Err(format!(
            "the caption is longer than {MAX_CAPTION_BYTES} bytes (a quote that is not closed?)"
        ));
    }
    Ok((converted_image_path(folder, &image, conversion), captions))
}

/// A table lacks a column.
pub(super) fn missing_column(path: &Path, missing: MissingColumn, hint: String) -> MemoryError {
    SourceError::MissingColumn { path: path.to_owned(), missing: missing.into(), hint }.into()
}

/// What to do about a table that names images by their urls only; empty if it does not.
pub(super) fn no_images_hint(columns: &[String]) -> String {
    let has = |name: &str| columns.iter().any(|column| same_name(column, name));
    if !has("url") && !has("image_url") {
        String::new()
    } else if has("key") && has("status") {
        "it is img2dataset's record of a shard: give the folder or the tars that lie beside it".to_owned()
    } else {
        "images are not downloaded: fetch them with img2dataset and give its output".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ImageRef, NoteKind, Pair};
    use super::*;

    const CSV: TableKind = TableKind::Separated { preferred: b',' };

    fn parse(text: &[u8]) -> Result<Ingested> {
        parse_with(text, CSV, &ColumnNames::default())
    }

    fn parse_with(text: &[u8], kind: TableKind, names: &ColumnNames) -> Result<Ingested> {
        let mut grouping = Grouping::default();
        let mut add = |image: PathBuf, captions: Vec<String>| grouping.add(image, captions);
        let path = Path::new("/data/pairs.csv");
        let (skipped, notes) = read_from(text, path, kind, Path::new("/data"), names, &mut add)?;
        Ok(Ingested { pairs: grouping.pairs, skipped, notes, ..Ingested::default() })
    }

    fn pair(path: &str, captions: &[&str]) -> Pair {
        Pair {
            image: ImageRef::File(path.into()),
            captions: captions.iter().map(|&c| c.to_owned()).collect(),
        }
    }

    #[test]
    fn rows_of_one_image_are_grouped_in_order_of_appearance() {
        let text = b"\xef\xbb\xbfid,Caption,image_path\n\
            1,\"a dog, running\",b.jpg\n2,a cat,a.jpg\n3, a brown dog ,b.jpg\n4,far,/abs/c.jpg\n";
        let ingested = parse(text).unwrap();
        assert_eq!(
            ingested.pairs,
            [
                pair("/data/b.jpg", &["a dog, running", "a brown dog"]),
                pair("/data/a.jpg", &["a cat"]),
                pair("/abs/c.jpg", &["far"]),
            ]
        );
        assert!(ingested.skipped.is_empty() && ingested.notes.is_empty());
    }

    #[test]
    fn the_column_names_of_other_tools_are_known() {
        for header in
            ["filepath\ttitle", "image\tcaption", "file_name\ttext", "filename;description", "File Name|Alt"]
        {
            let separator = header.chars().find(|c| ['\t', ';', '|'].contains(c)).unwrap();
            let ingested = parse(format!("{header}\nx.png{separator}a thing\n").as_bytes()).unwrap();
            assert_eq!(ingested.pairs, [pair("/data/x.png", &["a thing"])], "{header}");
        }
        let json = br#"{"file_name": "x.png", "text": ["a thing", "one more"], "caption_id": 3}"#;
        let ingested = parse_with(json, TableKind::Objects, &ColumnNames::default()).unwrap();
        assert_eq!(ingested.pairs, [pair("/data/x.png", &["a thing", "one more"])]);
    }

    #[test]
    fn columns_can_be_named_and_a_choice_among_usual_ones_is_told() {
        let text = b"bild;wort;text;caption\na.jpg;eins;zwei;drei\n";
        let names = |image: &str, caption: &str| ColumnNames {
            image: Some(image.to_owned()),
            caption: (!caption.is_empty()).then(|| caption.to_owned()),
        };
        let ingested = parse_with(text, CSV, &names("bild", "Wort")).unwrap();
        assert_eq!(ingested.pairs, [pair("/data/a.jpg", &["eins"])]);
        assert!(ingested.notes.is_empty());
        let ingested = parse_with(text, CSV, &names("1", "")).unwrap();
        assert_eq!(ingested.pairs, [pair("/data/a.jpg", &["drei"])]);
        let said = ingested.notes[0].to_string();
        assert_eq!(said, "/data/pairs.csv: column \"caption\" is taken for the caption, not \"text\"");
        let error = parse_with(text, CSV, &names("foto", "")).unwrap_err().to_string();
        assert!(error.contains("no column \"foto\"") && error.contains("\"bild\""), "{error}");
    }

    #[test]
    fn a_table_of_urls_is_refused_with_the_way_out() {
        let message = parse(b"url,caption\nhttp://x/a.jpg,a\n").unwrap_err().to_string();
        assert!(message.contains("fetch them with img2dataset"), "{message}");
        let message = parse(b"url,caption,key,status\nu,a,0,success\n").unwrap_err().to_string();
        assert!(message.contains("record of a shard"), "{message}");
    }

    #[test]
    fn malformed_rows_are_skipped_with_their_line_and_guesses_are_told() {
        let text = b"image_path,caption\na.jpg,one\nb.jpg\nc.jpg,x,y\n,no path\nd.jpg,  \n\
            e.jpg,\"two\nlines\"\nf.jpg,caf\xe9\ng.jpg\n";
        let ingested = parse(text).unwrap();
        assert_eq!(
            ingested.pairs,
            [
                pair("/data/a.jpg", &["one"]),
                pair("/data/e.jpg", &["two\nlines"]),
                pair("/data/f.jpg", &["café"])
            ]
        );
        let line = |skip: &Skip| match skip.reason {
            SkipReason::Row { line, .. } => line,
            _ => panic!("{skip}"),
        };
        assert_eq!(ingested.skipped.iter().map(line).collect::<Vec<_>>(), [3, 4, 5, 6, 10]);
        let [Note { kind: NoteKind::Converted { files: 1, conversion }, .. }] = &ingested.notes[..] else {
            panic!("{:?}", ingested.notes)
        };
        assert_eq!(conversion.converted, 1);
    }

    #[test]
    fn a_missing_column_is_an_error_that_names_those_found() {
        let message = parse(b"image_path,words\na,b\n").unwrap_err().to_string();
        assert!(message.contains("no caption column") && message.contains("\"words\""), "{message}");
        let message = parse(b"0.jpg,a dog,7\n").unwrap_err().to_string();
        assert!(message.contains("no header") && message.contains("\"a dog\""), "{message}");
        assert!(parse(b"").unwrap_err().to_string().contains("no row"));
        let long = format!("image,caption\na.jpg,{}\n", "x".repeat(MAX_CAPTION_BYTES + 1));
        assert!(parse(long.as_bytes()).unwrap().skipped[0].to_string().contains("longer than 65536"));
    }
}
