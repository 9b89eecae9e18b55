//! Files of every codec, files that claim more than they hold, and what is said of columns of no use.

use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::unpack::unpack;
use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sources").join(name)
}

fn read_one(path: &Path) -> Result<Ingested> {
    read(&[path.to_owned()], None, &ColumnNames::default())
}

/// A column's values, `None` for null.
enum Values<'a> {
    Bytes(Vec<Option<&'a [u8]>>),
    Numbers(Vec<i64>),
}

/// Writes a file of optional columns of bytes and required columns of numbers, one row group.
fn write(
    schema: &str,
    columns: &[Values<'_>],
    properties: WriterPropertiesBuilder,
) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(file.reopen().unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut open = group.next_column().unwrap().unwrap();
        match column {
            Values::Bytes(rows) => {
                let there: Vec<ByteArray> =
                    rows.iter().flatten().map(|value| ByteArray::from(value.to_vec())).collect();
                let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
                open.typed::<ByteArrayType>().write_batch(&there, Some(&levels), None).unwrap();
            }
            Values::Numbers(rows) => {
                open.typed::<Int64Type>().write_batch(rows, None, None).unwrap();
            }
        }
        open.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    file
}

const PAIRS: &str = "message m { optional binary file_name (UTF8); optional binary caption (UTF8); }";

#[cfg(unix)]
#[test]
fn a_path_of_any_bytes_is_a_name_as_it_is() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    for schema in [PAIRS, "message m { optional binary file_name; optional binary caption; }"] {
        let columns = [
            Values::Bytes(vec![Some(b"caf\xe9.jpg"), Some(b"b.jpg")]),
            Values::Bytes(vec![Some(b"one"), Some(b"two")]),
        ];
        let file = write(schema, &columns, WriterProperties::builder());
        let ingested = read_one(file.path()).unwrap();
        assert!(ingested.skipped.is_empty(), "{:?}", ingested.skipped);
        let name = file.path().parent().unwrap().join(OsStr::from_bytes(b"caf\xe9.jpg"));
        assert_eq!(ingested.pairs[0].image, ImageRef::File(name));
    }
}

#[test]
fn every_codec_is_read() {
    for codec in ["gzip", "brotli", "lz4", "zstd", "snappy", "delta"] {
        let path = fixture(&format!("codec_{codec}.parquet"));
        let ingested = read_one(&path).unwrap();
        assert!(ingested.skipped.is_empty() && ingested.notes.is_empty(), "{codec}: {:?}", ingested.skipped);
        assert_eq!(ingested.pairs.len(), 8, "{codec}");
        for (n, pair) in ingested.pairs.iter().enumerate() {
            assert_eq!(pair.image, ImageRef::File(fixture(&format!("photos/{n}.jpg"))));
            assert_eq!(pair.captions, [format!("caption {} – ein Hund", n % 3)]);
        }
    }
}

/// `bytes` as gzip, brotli and LZ4's three forms.
fn packed(bytes: &[u8]) -> Vec<(Compression, Vec<u8>)> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    let block = lz4_flex::block::compress(bytes);
    let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
    frame.write_all(bytes).unwrap();
    let (unpacked, stored) = ((bytes.len() as u32).to_be_bytes(), (block.len() as u32).to_be_bytes());
    vec![
        (Compression::GZIP(GzipLevel::default()), gzip.finish().unwrap()),
        (Compression::ZSTD(ZstdLevel::default()), zstd::bulk::compress(bytes, 1).unwrap()),
        (Compression::SNAPPY, snap::raw::Encoder::new().compress_vec(bytes).unwrap()),
        (Compression::LZ4, [&unpacked[..], &stored, &block].concat()),
        (Compression::LZ4, frame.finish().unwrap()),
        (Compression::LZ4, block.clone()),
        (Compression::LZ4_RAW, block),
        (Compression::UNCOMPRESSED, bytes.to_vec()),
    ]
}

#[test]
fn nothing_unpacks_to_more_than_its_limit() {
    let bytes = vec![b'x'; 1 << 20];
    for (codec, packed) in packed(&bytes) {
        let mut out = b"levels".to_vec();
        unpack(codec, &packed, &mut out, bytes.len()).unwrap();
        assert!(out[6..] == bytes[..], "{codec}");
        let mut out = Vec::new();
        let error = unpack(codec, &packed, &mut out, bytes.len() - 1);
        assert!(error.is_err() && out.len() <= bytes.len(), "{codec}");
    }
    // A brotli stream of a fixture, since there is no encoder here.
    let brotli = [0x1b, 0x0b, 0x00, 0x00, 0xe4, 0xdb];
    let _ = unpack(Compression::BROTLI(BrotliLevel::default()), &brotli, &mut Vec::new(), 4);
}

#[test]
fn what_a_small_file_says_millions_of_times_is_listed_up_to_a_limit() {
    let caption = "x".repeat(MAX_CAPTION_BYTES);
    let rows = 20_000;
    let schema = "message m { optional binary image; optional binary caption (UTF8); }";
    let columns =
        [Values::Bytes(vec![Some(b"bytes"); rows]), Values::Bytes(vec![Some(caption.as_bytes()); rows])];
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    let file = write(schema, &columns, properties);
    let ingested = read_one(file.path()).unwrap();
    let stored = file.as_file().metadata().unwrap().len();
    assert!(stored < 100_000);
    let kept = ingested.pairs.len();
    assert_eq!(kept as u64, MAX_LISTED_BYTES / (MAX_CAPTION_BYTES as u64 + PAIR_BYTES));
    let reason = &ingested.skipped[0].reason;
    assert_eq!(*reason, SkipReason::TooMuchListed { row: kept as u64, limit: MAX_LISTED_BYTES, stored });
}

#[test]
fn a_file_of_nulls_is_not_listed_row_by_row() {
    let rows = 50_000;
    let mut captions = vec![None; rows];
    captions[rows - 1] = Some(&b"x"[..]);
    let columns = [Values::Bytes(vec![Some(b"a.jpg"); rows]), Values::Bytes(captions)];
    let file = write(PAIRS, &columns, WriterProperties::builder());
    let ingested = read_one(file.path()).unwrap();
    assert_eq!((ingested.pairs.len(), ingested.skipped.len()), (1, 10_001));
    assert!(
        ingested.skipped[0].to_string().ends_with("row 0: the caption is null"),
        "{}",
        ingested.skipped[0]
    );
    assert!(ingested.skipped[10_000].to_string().ends_with("39999 more, which are not listed"));
}

/// Found by the fuzz target: the parquet crate panics on them.
#[test]
fn what_the_crate_takes_for_granted_is_damage_where_it_is_missing() {
    for (name, expected) in [
        ("no_dictionary.parquet", "a dictionary that is not there"),
        ("negative_place.parquet", "expected a place and a length of each column"),
        ("field_of_another_type.parquet", "header is malformed"),
    ] {
        let said = match read_one(&fixture("../damaged").join(name)) {
            Ok(ingested) => ingested.skipped.iter().map(ToString::to_string).collect(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{name}: {said}");
    }
}

#[test]
fn the_reason_why_a_column_is_of_no_use_is_told() {
    let message = |schema: &str, columns: &[Values<'_>]| {
        let file = write(schema, columns, WriterProperties::builder());
        read_one(file.path()).unwrap_err().to_string()
    };
    let images = || Values::Bytes(vec![Some(b"a.jpg"), Some(b"b.jpg")]);
    let null = || Values::Bytes(vec![None, None]);
    let said = message(PAIRS, &[images(), null()]);
    assert!(said.contains("no usable caption column: \"caption\" holds nothing but nulls"), "{said}");
    let schema = "message m { optional binary file_name (UTF8); required int64 caption; }";
    let said = message(schema, &[images(), Values::Numbers(vec![1, 2])]);
    assert!(said.contains("\"caption\" holds INT64 values"), "{said}");
    let said = message(PAIRS, &[null(), images()]);
    assert!(said.contains("no usable image column: \"file_name\" holds nothing but nulls"), "{said}");
    let schema =
        "message m { optional group image { optional binary bytes; } optional binary caption (UTF8); }";
    let columns = [null(), Values::Bytes(vec![Some(b"x"), Some(b"y")])];
    let file = write(schema, &columns, WriterProperties::builder());
    let said = read_one(file.path()).unwrap_err().to_string();
    assert!(said.contains("\"image\" holds nothing but nulls"), "{said}");
    let said =
        message("message m { optional binary x (UTF8); optional binary y (UTF8); }", &[images(), images()]);
    assert!(said.contains("no image column") && said.contains("found \"x\", \"y\""), "{said}");
}

#[test]
fn columns_can_be_named_and_text_of_other_encodings_is_counted() {
    let schema =
        "message m { optional binary bild (UTF8); optional binary caption (UTF8); optional binary alt; }";
    let one = |text: &'static [u8]| Values::Bytes(vec![Some(text)]);
    let file =
        write(schema, &[one(b"a.jpg"), one(b"english"), one(b"fran\xe7ais")], WriterProperties::builder());
    let names = ColumnNames { image: Some("bild".to_owned()), caption: Some("Alt".to_owned()) };
    let ingested = read(&[file.path().to_owned()], None, &names).unwrap();
    assert_eq!(ingested.pairs[0].captions, ["français"]);
    assert!(ingested.notes[0].to_string().ends_with("1 byte not UTF-8, read as Windows-1252"));
    let names = ColumnNames { image: Some("1".to_owned()), caption: None };
    let ingested = read(&[file.path().to_owned()], None, &names).unwrap();
    assert_eq!(ingested.pairs[0].captions, ["english"]);
    let said = ingested.notes[0].to_string();
    assert!(said.ends_with("column \"caption\" is taken for the caption, not \"alt\""), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damage to files of every codec neither panics nor takes memory without bound.
    #[test]
    fn no_damage_is_believed(
        codec in prop::sample::select(vec!["gzip", "brotli", "lz4", "zstd", "snappy", "delta"]),
        flips in prop::collection::vec((0.0f64..1.0, any::<u8>()), 1..6),
    ) {
        let mut bytes = std::fs::read(fixture(&format!("codec_{codec}.parquet"))).unwrap();
        for (at, value) in flips {
            let at = (at * bytes.len() as f64) as usize;
            bytes[at] = value;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        if let Ok(ingested) = read_one(file.path()) {
            prop_assert!(ingested.pairs.iter().all(|pair| !pair.captions.is_empty()));
        }
    }

    #[test]
    fn any_bytes_unpack_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 0usize..5000) {
        let codecs = [
            Compression::GZIP(GzipLevel::default()), Compression::BROTLI(BrotliLevel::default()),
            Compression::ZSTD(ZstdLevel::default()), Compression::SNAPPY, Compression::LZ4, Compression::LZ4_RAW,
        ];
        for codec in codecs {
            let mut out = Vec::new();
            let unpacked = unpack(codec, &bytes, &mut out, limit);
            prop_assert!(unpacked.is_err() || out.len() <= limit);
        }
        for (codec, packed) in packed(&bytes) {
            let mut out = Vec::new();
            prop_assert_eq!(unpack(codec, &packed, &mut out, limit).is_ok(), bytes.len() <= limit, "{}", codec);
        }
    }
}
