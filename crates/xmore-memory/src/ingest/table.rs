//! Pairs from a `.csv` or `.tsv` table; rows that name one image are grouped, so that it is encoded once.

use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use xmore_files::open_regular;

use super::caption::MAX_CAPTION_BYTES;
use super::group::Grouping;
use super::{Ingested, Skip, SkipReason, extension};
use crate::error::{AtPath, MemoryError, Result};

/// Names of the image column, most specific first: ours and clip-retrieval's, open_clip's, Flickr8k's, Hugging Face's.
pub(super) const IMAGE_COLUMNS: &[&str] = &["image_path", "filepath", "image", "file_name"];
/// Names of the caption column: ours, open_clip's, Hugging Face's.
const CAPTION_COLUMNS: &[&str] = &["caption", "title", "text"];

/// Longest field taken for a path or a caption. A longer one nearly always comes from a quote that is never closed.
const MAX_FIELD_BYTES: usize = MAX_CAPTION_BYTES;

/// Reads a table. Relative image paths are relative to `image_root`, else to the table's folder.
pub(super) fn read(path: &Path, image_root: Option<&Path>) -> Result<Ingested> {
    let delimiter = if extension(path) == "tsv" { b'\t' } else { b',' };
    let file = open_regular(path).at("open", path)?;
    read_from(file, path, image_root, delimiter)
}

/// Reads a table from `input`; `path` is its name for messages.
fn read_from(input: impl Read, path: &Path, image_root: Option<&Path>, delimiter: u8) -> Result<Ingested> {
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter).flexible(true).trim(Trim::All).from_reader(input);
    let header: Vec<String> = reader
        .byte_headers()
        .map_err(|e| csv_error(e, path))?
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned())
        .collect();
    let image_column = find(&header, "image", IMAGE_COLUMNS, path)?;
    let caption_column = find(&header, "caption", CAPTION_COLUMNS, path)?;

    let folder = image_root.or(path.parent()).unwrap_or(Path::new(""));
    let mut grouping = Grouping::default();
    let mut skipped = Vec::new();
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(|e| csv_error(e, path))? {
        let line = record.position().map_or(0, |p| p.line());
        match row(&record, header.len(), image_column, caption_column) {
            Ok((image, caption)) => grouping.add(folder.join(image), [caption]),
            Err(what) => skipped.push(Skip { path: path.to_owned(), reason: SkipReason::Row { line, what } }),
        }
    }
    Ok(Ingested { pairs: grouping.pairs, skipped, ..Ingested::default() })
}

/// Image path and caption of one row, or what is wrong with it.
fn row(
    record: &ByteRecord,
    columns: usize,
    image_column: usize,
    caption_column: usize,
) -> Result<(String, String), String> {
    // A caption with an unquoted delimiter makes a longer row; taking its first piece would cut it silently.
    if record.len() != columns {
        return Err(format!(
            "expected {columns} fields, found {} (a delimiter without quotes?)",
            record.len()
        ));
    }
    let (image, caption) = (&record[image_column], &record[caption_column]);
    if image.len().max(caption.len()) > MAX_FIELD_BYTES {
        return Err(format!("a field is longer than {MAX_FIELD_BYTES} bytes (a quote that is not closed?)"));
    }
    let image = std::str::from_utf8(image).map_err(|_| "the image path is not UTF-8".to_owned())?;
    if image.is_empty() {
        return Err("the image path is empty".to_owned());
    }
    let caption = String::from_utf8_lossy(caption).trim().to_owned();
    if caption.is_empty() {
        return Err("the caption is empty".to_owned());
    }
    Ok((image.to_owned(), caption))
}

/// Index of the first of `accepted` that is in the header, upper and lower case alike.
fn find(
    header: &[String],
    wanted: &'static str,
    accepted: &'static [&'static str],
    path: &Path,
) -> Result<usize> {
    accepted.iter().find_map(|name| header.iter().position(|h| h.eq_ignore_ascii_case(name))).ok_or_else(
        || {
            let hint = match header {
                [only] if only.contains('\t') => "; it looks tab-separated: rename it to .tsv",
                [only] if only.contains(';') => "; it looks separated by semicolons: use commas or tabs",
                [only] if only.contains(',') => "; it looks comma-separated: rename it to .csv",
                _ if wanted == "image" => &no_images_hint(header),
                _ => "",
            };
            MemoryError::MissingColumn {
                path: path.to_owned(),
                wanted,
                expected: accepted,
                found: header.to_vec(),
                hint: hint.to_owned(),
            }
        },
    )
}

/// What to do about a table that names images by their urls only; empty if it does not.
pub(super) fn no_images_hint(columns: &[String]) -> String {
    let has = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    let images = ["image", "jpg", "jpeg", "png", "webp"];
    if let Some(name) = images.into_iter().find(|name| has(name)) {
        format!("; its column {name} holds neither bytes nor paths")
    } else if !has("url") {
        String::new()
    } else if has("key") && has("status") {
        "; it is img2dataset's record of a shard: give the folder or the tars that lie beside it".to_owned()
    } else {
        "; images are not downloaded: fetch them with img2dataset and give its output".to_owned()
    }
}

/// With byte records and flexible rows the csv reader can only fail on I/O.
fn csv_error(error: csv::Error, path: &Path) -> MemoryError {
    MemoryError::Io { action: "read", path: path.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::super::{ImageRef, Pair};
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8], delimiter: u8) -> Result<Ingested> {
        read_from(text, Path::new("/data/pairs.csv"), None, delimiter)
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
        let ingested = parse(text, b',').unwrap();
        assert_eq!(
            ingested.pairs,
            [
                pair("/data/b.jpg", &["a dog, running", "a brown dog"]),
                pair("/data/a.jpg", &["a cat"]),
                pair("/abs/c.jpg", &["far"]),
            ]
        );
        assert!(ingested.skipped.is_empty());
    }

    #[test]
    fn the_column_names_of_other_tools_are_known() {
        for header in ["filepath\ttitle", "image\tcaption", "file_name\ttext"] {
            let ingested = parse(format!("{header}\nx.png\ta thing\n").as_bytes(), b'\t').unwrap();
            assert_eq!(ingested.pairs, [pair("/data/x.png", &["a thing"])], "{header}");
        }
    }

    #[test]
    fn relative_paths_are_relative_to_the_image_root() {
        let text = b"image_path,caption\na.jpg,one\n/b.jpg,two\n";
        let ingested =
            read_from(&text[..], Path::new("/data/pairs.csv"), Some(Path::new("/root")), b',').unwrap();
        assert_eq!(ingested.pairs, [pair("/root/a.jpg", &["one"]), pair("/b.jpg", &["two"])]);
    }

    #[test]
    fn a_table_of_urls_is_refused_with_the_way_out() {
        let message = parse(b"url,caption\nhttp://x/a.jpg,a\n", b',').unwrap_err().to_string();
        assert!(message.contains("fetch them with img2dataset"), "{message}");
        let message = parse(b"url,caption,key,status\nu,a,0,success\n", b',').unwrap_err().to_string();
        assert!(message.contains("record of a shard"), "{message}");
    }

    #[test]
    fn malformed_rows_are_skipped_with_their_line() {
        let text = b"image_path,caption\na.jpg,one\nb.jpg\nc.jpg,x,y\n,no path\nd.jpg,  \n\
            \xff.jpg,not utf-8\ne.jpg,\"two\nlines\"\nf.jpg,caf\xe9\ng.jpg\n";
        let ingested = parse(text, b',').unwrap();
        assert_eq!(
            ingested.pairs,
            [
                pair("/data/a.jpg", &["one"]),
                pair("/data/e.jpg", &["two\nlines"]),
                pair("/data/f.jpg", &["caf\u{fffd}"])
            ]
        );
        let lines: Vec<u64> = ingested
            .skipped
            .iter()
            .map(|s| match s.reason {
                SkipReason::Row { line, .. } => line,
                _ => panic!("{s}"),
            })
            .collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 11]);
    }

    #[test]
    fn an_open_quote_is_skipped_not_taken_for_a_caption() {
        let text = format!("image_path,caption\na.jpg,\"open\n{}", "b.jpg,fine\n".repeat(10_000));
        let ingested = parse(text.as_bytes(), b',').unwrap();
        assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (0, 1));
        assert!(ingested.skipped[0].to_string().contains("line 2"), "{}", ingested.skipped[0]);
    }

    #[test]
    fn a_missing_column_is_an_error_that_names_those_found() {
        let message = parse(b"image_path,words\na,b\n", b',').unwrap_err().to_string();
        assert!(message.contains("caption") && message.contains("\"words\""), "{message}");
        let message = parse(b"filepath\ttitle\na\tb\n", b',').unwrap_err().to_string();
        assert!(message.contains(".tsv"), "{message}");
        let message = parse(b"", b',').unwrap_err().to_string();
        assert!(message.contains("found none"), "{message}");
    }

    proptest! {
        #[test]
        fn grouping_keeps_every_caption_once_and_in_order(
            rows in prop::collection::vec((0u8..6, "[a-z,\" ]{0,8}[a-z]"), 0..60)
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["caption", "image_path"]).unwrap();
            for (image, caption) in &rows {
                writer.write_record([caption.as_str(), &format!("{image}.jpg")]).unwrap();
            }
            let ingested = parse(&writer.into_inner().unwrap(), b',').unwrap();
            prop_assert!(ingested.skipped.is_empty());
            let mut first_seen = Vec::new();
            for (image, _) in &rows {
                if !first_seen.contains(image) {
                    first_seen.push(*image);
                }
            }
            let expected: Vec<Pair> = first_seen
                .iter()
                .map(|image| Pair {
                    image: ImageRef::File(format!("/data/{image}.jpg").into()),
                    captions: rows.iter().filter(|r| r.0 == *image).map(|r| r.1.trim().to_owned()).collect(),
                })
                .collect();
            prop_assert_eq!(ingested.pairs, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut text = b"image_path,caption\n".to_vec();
            text.extend(bytes);
            let ingested = parse(&text, b',').unwrap();
            for pair in &ingested.pairs {
                prop_assert!(!pair.captions.is_empty());
            }
        }
    }
}
