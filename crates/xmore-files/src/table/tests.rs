//! Tables as Excel, pandas and people write them, and any bytes at all.

use proptest::prelude::*;

use super::*;

fn csv(text: &[u8]) -> Table<&[u8]> {
    open(text, b',')
}

fn open(text: &[u8], preferred: u8) -> Table<&[u8]> {
    Table::open(text, TableKind::Separated { preferred }, &[]).unwrap().unwrap()
}

fn jsonl(text: &[u8]) -> Table<&[u8]> {
    Table::open(text, TableKind::Objects, &[]).unwrap().unwrap()
}

/// Image and caption of the rows, "line: error" of bad ones.
fn pairs<R: Read>(mut table: Table<R>) -> Vec<String> {
    let columns = [Role::Image, Role::Caption].map(|role| table.find(role, None).unwrap().index);
    let mut out = Vec::new();
    while let Some(row) = table.next(&columns).unwrap() {
        out.push(match row {
            Ok(Row { fields, .. }) => fields.iter().map(shown).collect::<Vec<_>>().join("|"),
            Err(BadRow { line, error }) => format!("{line}: {error}"),
        });
    }
    out
}

fn shown(field: &Field) -> String {
    match field {
        Field::Empty => "-".to_owned(),
        Field::Text(text) => text.clone(),
        Field::List(texts) => format!("{texts:?}"),
        Field::NotText => "?".to_owned(),
    }
}

#[test]
fn the_separator_is_found_out_from_the_header_and_the_first_records() {
    for (text, separator) in [
        ("image_path;caption\n0.jpg;a, b, c\n", ';'),
        ("image_path,caption\n0.jpg,\"a; b\"\n", ','),
        ("filename|description\n0.jpg|a, b\n", '|'),
        ("image_name| comment_number| comment\n0.jpg| 0| a dog , running .\n", '|'),
        ("image_path\tcaption\n0.jpg\ta, b; c\n", '\t'),
        ("sep=;\r\nimage_path;caption\r\n0.jpg;x\r\n", ';'),
        ("\"sep=|\"\nimage_path|caption\n0.jpg|x\n", '|'),
        ("sep=\t\nimage_path\tcaption\n", '\t'),
        // No name is known.
        ("foo;bar\na,b;c\nd;e\n", ';'),
        ("foo,bar\na,b;c\n", ','),
        // No header.
        ("0.jpg;a dog, running\n1.jpg;a cat\n", ';'),
    ] {
        assert_eq!(csv(text.as_bytes()).separator(), Some(separator), "{text:?}");
        assert_eq!(open(text.as_bytes(), b'\t').separator(), Some(separator), "{text:?}");
    }
    assert_eq!(csv(b"one\n1\n").separator(), Some(','));
    assert_eq!(open(b"one\n1\n", b'\t').separator(), Some('\t'));
    let wanted = Table::open(&b"bild,;wort;x\n"[..], TableKind::Separated { preferred: b',' }, &["wort"]);
    assert_eq!(wanted.unwrap().unwrap().separator(), Some(';'));
}

#[test]
fn lines_end_in_every_way_and_quotes_hold_line_breaks() {
    for end in ["\n", "\r\n", "\r"] {
        let lines = [
            "image,caption",
            "",
            "a.jpg,\"one",
            "two\"",
            "b.jpg",
            " c.jpg , three ",
            ",",
            "d.jpg, \"four\" ",
        ];
        let text = lines.join(end);
        let expected = [&format!("a.jpg|one{end}two"), "5: ", "c.jpg|three", "d.jpg|four"];
        let found = pairs(csv(text.as_bytes()));
        assert_eq!(found.len(), 4, "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found:?}, not {expected:?}");
        }
    }
}

#[test]
fn ragged_rows_are_bad_but_those_that_only_end_in_separators() {
    let found = pairs(csv(b"image,caption\na.jpg,x,y\nb.jpg,x,,\nc.jpg\n,,,,\nd.jpg,\n"));
    assert_eq!(found[1], "b.jpg|x");
    assert!(found[0].starts_with("2: expected 2 fields, found 3"), "{}", found[0]);
    assert!(found[2].starts_with("4: expected 2 fields, found 1"), "{}", found[2]);
    assert_eq!(found[3..], ["d.jpg|-"]);
}

#[test]
fn a_quote_that_is_never_closed_costs_its_line_alone() {
    let rows = |n: usize| (0..n).map(|i| format!("{i}.jpg,fine\n")).collect::<String>();
    for more in [0, 1, 20, 200_000] {
        let text = format!("image,caption\nx.jpg,\"open\n{}", rows(more));
        let found = pairs(csv(text.as_bytes()));
        let expected = if more == 0 { 1 } else { more + 1 };
        assert_eq!(found.len(), expected);
        if more > 0 {
            assert_eq!((found[0].as_str(), found[1].as_str()), ("2: a quote is not closed", "0.jpg|fine"));
        }
    }
    // One that is closed late is a field.
    let text = format!("image,caption\nx.jpg,\"open\n{}\"\ny.jpg,last\n", rows(3));
    assert_eq!(pairs(csv(text.as_bytes())).len(), 2);
}

#[test]
fn fields_without_end_are_read_in_bounded_memory() {
    let head = b"image,caption\na.jpg,\"";
    let endless = io::repeat(b'x').take(20 << 20);
    let text = head.chain(endless).chain(&b"\nb.jpg,fine\n"[..]);
    let mut table = Table::open(text, TableKind::Separated { preferred: b',' }, &[]).unwrap().unwrap();
    let mut found = Vec::new();
    while let Some(row) = table.next(&[0, 1]).unwrap() {
        found.push(row);
        let Rows::Separated { text, .. } = &table.rows else { unreachable!() };
        assert!(text.held() < 16 << 20);
    }
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], Err(BadRow { line: 2, error: RowError::TooLong { limit: MAX_RECORD_BYTES } }));
    assert!(found[1].is_ok());

    let blank = io::repeat(b'\n').take(5 << 20);
    let text = (&b"image,caption\n"[..]).chain(blank).chain(&b"a.jpg,fine"[..]);
    let table = Table::open(text, TableKind::Separated { preferred: b',' }, &[]).unwrap().unwrap();
    assert_eq!(pairs(table), ["a.jpg|fine"]);

    let text = format!(
        "{{\"image\": \"a.jpg\", \"text\": \"{}\"}}\n{{\"image\": \"b.jpg\", \"text\": \"x\"}}",
        "x".repeat(5 << 20)
    );
    assert_eq!(pairs(jsonl(text.as_bytes())), ["1: it is longer than 4194304 bytes", "b.jpg|x"]);
    let list = format!("[{}]", text.replace('\n', ","));
    assert_eq!(pairs(jsonl(list.as_bytes())), ["1: it is longer than 4194304 bytes", "b.jpg|x"]);
}

#[test]
fn a_table_without_a_header_is_known_by_its_images() {
    assert_eq!(pairs(csv(b"0.jpg,a dog\n1.jpg,a cat\n")), ["0.jpg|a dog", "1.jpg|a cat"]);
    assert_eq!(pairs(open(b"x/0.jpg#0\tA dog .\n", b'\t')), ["x/0.jpg#0|A dog ."]);
    assert_eq!(pairs(csv(b"a dog;0.PNG\n")), ["0.PNG|a dog"]);
    assert_eq!(pairs(csv(b"0.jpg,text\n")), ["0.jpg|text"]);
    let three = csv(b"0.jpg,dog,test\n");
    assert_eq!(three.find(Role::Label, None).unwrap().index, 1);
    assert_eq!(three.find(Role::Split, None).unwrap().index, 2);
    let missing = three.find(Role::Caption, None).unwrap_err();
    assert!(!missing.has_header && missing.to_string().contains("no header"), "{missing}");
    assert_eq!(three.find(Role::Caption, Some("2")).unwrap().index, 1);
    // A header without a usual name is one all the same.
    assert!(csv(b"foo,bar\n0.jpg,a dog\n").has_header());
}

#[test]
fn objects_come_in_lines_or_in_a_list_and_a_broken_one_costs_no_other() {
    let objects = [
        r#"{"file_name": "0.jpg", "text": "a dog"}"#,
        r#"{"file_name": "1.jpg", "text": ["one", " ", "two"], "other": {"deep": [1, "}"]}}"#,
        r#"{"file_name": 7, "text": null}"#,
        r#"{"text": {"a": 1}, "x": NaN}"#,
    ];
    let expected = ["0.jpg|a dog", "1.jpg|[\"one\", \"two\"]", "7|-", "-|?"];
    assert_eq!(pairs(jsonl(objects.join("\n").as_bytes())), expected);
    assert_eq!(pairs(jsonl(objects.join("\r\n\r\n").as_bytes())), expected);
    assert_eq!(pairs(jsonl(format!(" \n[{}]", objects.join(",\n")).as_bytes())), expected);
    let pretty = format!("[{}]", objects.join(",").replace(", ", ",\n  "));
    assert_eq!(pairs(jsonl(pretty.as_bytes())), expected);

    let good = objects[0];
    let found = pairs(jsonl(format!("{good}\n{{\"file_name\": \"open\n[1]\n{good}").as_bytes()));
    assert!(found[1].starts_with("2: it is no JSON"), "{found:?}");
    assert_eq!((found[2].as_str(), found[3].as_str()), ("3: it is no JSON object", "0.jpg|a dog"));
    let found = pairs(jsonl(format!("[{good},\n{{\"file_name\": \"open,\n{good}, {{\"a\"").as_bytes()));
    assert_eq!(found[1], "2: it is no JSON: a line ends within a string");
    assert_eq!((found[2].as_str(), found.len()), ("0.jpg|a dog", 4));
}

#[test]
fn nothing_is_no_table() {
    for text in [&b""[..], b"\n\n", b"\xef\xbb\xbf"] {
        assert!(Table::open(text, TableKind::Separated { preferred: b',' }, &[]).unwrap().is_none());
        assert!(Table::open(text, TableKind::Objects, &[]).unwrap().is_none());
    }
}

#[test]
fn text_of_other_encodings_is_decoded_and_counted() {
    let table = csv(b"image_path,caption\r\n0.jpg,\xe9glise pr\xe8s du ch\xe2teau\r\n");
    assert_eq!(pairs(table), ["0.jpg|église près du château"]);
    let mut table = csv(b"image_path,caption\r\n0.jpg,\xe9glise\r\n");
    while table.next(&[]).unwrap().is_some() {}
    assert_eq!(table.conversion().converted, 1);
}

#[test]
fn paths_are_tried_as_windows_programs_write_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("photos")).unwrap();
    for name in ["photos/0.jpg", "a.jpg", "b\\c.jpg", "d.jpg#1"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    for (text, path) in [
        ("photos\\0.jpg", "photos/0.jpg"),
        ("'a.jpg'", "a.jpg"),
        ("a.jpg#0", "a.jpg"),
        ("b\\c.jpg", "b\\c.jpg"),
        ("d.jpg#1", "d.jpg#1"),
        ("gone\\x.jpg", "gone/x.jpg"),
        ("gone.jpg", "gone.jpg"),
    ] {
        assert_eq!(image_path(dir.path(), text), dir.path().join(path), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_converted_name_is_that_of_its_bytes_where_such_a_file_is_there() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    for name in [&b"caf\xe9.jpg"[..], b"\x80 5.jpg", b"both \xe9.jpg", "both é.jpg".as_bytes()] {
        std::fs::write(path(name), "").unwrap();
    }
    let converted = Conversion { converted: 1, ..Conversion::default() };
    for (text, conversion, name) in [
        ("café.jpg", converted, &b"caf\xe9.jpg"[..]),
        ("'café.jpg#1'", converted, b"caf\xe9.jpg"),
        ("café.jpg", Conversion::default(), "café.jpg".as_bytes()),
        ("€ 5.jpg", converted, b"\x80 5.jpg"),
        ("both é.jpg", converted, "both é.jpg".as_bytes()),
        ("gone é.jpg", converted, "gone é.jpg".as_bytes()),
        ("犬.jpg", converted, "犬.jpg".as_bytes()),
        ("file:caf%E9.jpg", Conversion::default(), b"caf\xe9.jpg"),
        ("file:gone%E9.jpg", Conversion::default(), b"gone\xe9.jpg"),
    ] {
        assert_eq!(converted_image_path(dir.path(), text, conversion), path(name), "{text}");
    }
}

/// How a program may store text.
fn stored(text: &str, how: u8) -> Vec<u8> {
    let units = |to_bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
    match how {
        0 => text.as_bytes().to_vec(),
        1 => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        2 => [&b"\xff\xfe"[..], &units(u16::to_le_bytes)].concat(),
        3 => [&b"\xfe\xff"[..], &units(u16::to_be_bytes)].concat(),
        _ => encoding_rs::WINDOWS_1252.encode(text).0.into_owned(),
    }
}

proptest! {
    #[test]
    fn what_the_csv_crate_writes_is_read_back(
        rows in prop::collection::vec(("[a-z]{1,6}", "[a-zé,;|\t\" \n']{0,12}[a-z]"), 1..30),
        separator in prop::sample::select(vec![b',', b';', b'\t', b'|']),
        how in 0u8..5,
        crlf: bool,
    ) {
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer =
            csv::WriterBuilder::new().delimiter(separator).terminator(terminator).from_writer(Vec::new());
        writer.write_record(["Caption", "file name"]).unwrap();
        for (image, caption) in &rows {
            writer.write_record([caption.as_str(), &format!("{image}.jpg")]).unwrap();
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let bytes = stored(&text, how);
        let expected: Vec<String> =
            rows.iter().map(|(image, caption)| format!("{image}.jpg|{}", caption.trim())).collect();
        prop_assert_eq!(pairs(csv(&bytes)), expected);
    }

    #[test]
    fn any_bytes_are_a_table(bytes in prop::collection::vec(any::<u8>(), 0..600), like in "([a-z,;\"\t|\n\r{}\\[\\]:]|\"\"|jpg){0,60}") {
        for text in [&bytes[..], like.as_bytes()] {
            for kind in [TableKind::Separated { preferred: b',' }, TableKind::Objects] {
                let Some(mut table) = Table::open(text, kind, &[]).unwrap() else { continue };
                let wanted: Vec<usize> = (0..table.columns().len()).collect();
                let mut rows = 0;
                while table.next(&wanted).unwrap().is_some() {
                    rows += 1;
                    prop_assert!(rows <= text.len() + 1);
                }
            }
        }
    }
}
