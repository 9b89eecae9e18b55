//! Labels in the forms that people keep them in.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn file(text: &str) -> LabelFile {
    LabelFile::parse(text.as_bytes(), "labels.txt", None).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn names(text: &str) -> Vec<String> {
    file(text).entries.into_iter().map(|entry| entry.label.name).collect()
}

fn prompts(text: &str) -> Vec<(String, Vec<String>)> {
    file(text).entries.into_iter().map(|entry| (entry.label.name, entry.label.prompts)).collect()
}

fn refused(text: &str, name: &str) -> String {
    LabelFile::parse(text.as_bytes(), name, None).and_then(|file| file.labels()).unwrap_err().to_string()
}

fn utf16(text: &str, little: bool) -> Vec<u8> {
    text.encode_utf16()
        .flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() })
        .collect()
}

#[test]
fn every_encoding_and_end_of_line() {
    let want = ["English springer", "café", "golf ball"];
    let text = want.join("\n");
    let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
    for bytes in [
        text.clone().into_bytes(),
        format!("\u{feff}{}\r\n", text.replace('\n', "\r\n")).into_bytes(),
        text.replace('\n', "\r").into_bytes(),
        utf16(&format!("\u{feff}{text}"), true),
        utf16(&format!("\u{feff}{text}"), false),
        utf16(&text.replace('\n', "\r\n"), true),
        latin,
        utf16(&format!("\u{feff}[\"{}\"]", want.join("\",\"")), true),
        format!("\u{feff}\n [\"{}\"]", want.join("\", \"")).into_bytes(),
    ] {
        let found = LabelFile::parse(&bytes, "labels.txt", None).unwrap();
        assert_eq!(found.labels().unwrap().names(), want);
        let guessed = std::str::from_utf8(&bytes).is_err() && bytes[0] == b'E' && bytes[1] != 0;
        assert_eq!(!found.notes.is_empty(), guessed, "{:?}", found.notes);
    }
}

#[test]
fn comments_are_left_out_and_counted() {
    let found = file("# things to look for\n\nEnglish springer\n// fish\n#hashtag\n//nospace\n#\n");
    let names: Vec<&str> = found.entries.iter().map(|entry| entry.label.name.as_str()).collect();
    assert_eq!(names, ["English springer", "#hashtag", "//nospace"]);
    assert!(found.notes[0].contains("3 comments left out"), "{:?}", found.notes);
    assert!(found.notes[1].contains("1 label with #"), "{:?}", found.notes);
}

#[test]
fn numbers_bullets_and_quotes_are_no_part_of_labels() {
    let want = ["church", "golf ball"];
    for text in [
        "0,church\n1,golf ball",
        "1\tchurch\n2\tgolf ball",
        "church,0\ngolf ball,1",
        "1. church\n2. golf ball",
        "0: church\n1: golf ball",
        "0 church\n1 golf ball",
        "church 0\ngolf ball 1",
        "3,church\n90,golf ball",
        "1;golf ball\n0;church",
        "- church\n- golf ball",
        "\"church\"\n\"golf ball\"",
        "\"church\",\n\"golf ball\",",
        "n03028079 church\nn03445777 golf ball",
        "church, golf ball",
        "0|church\n1|golf ball",
    ] {
        assert_eq!(names(text), want, "{text}");
    }
    // What only looks like it.
    for lines in [
        ["7 segment display", "42 km sign"],
        ["route, 66", "area, 51"],
        ["cat, wild", "dog, tame"],
        ["-1", "- 2"],
        ["\"a\" b", "c"],
        ["1984", "2001"],
    ] {
        assert_eq!(names(&lines.join("\n")), lines);
    }
    assert_eq!(names("\"church, with a tower\"\ntench"), ["church, with a tower", "tench"]);
    assert_eq!(
        file("n03028079 church\nn03445777\tgolf ball, ball").entries[1].id.as_deref(),
        Some("n03445777")
    );
}

#[test]
fn columns_of_tables() {
    let want = ["church, old", "tench"];
    for text in [
        "id,label\n0,\"church, old\"\n1,tench\n",
        "label\tid\nchurch, old\t0\ntench\t1",
        "Class Name;n\nchurch, old;9\ntench;3",
        "sep=;\r\nid;label\r\n0;church, old\r\n1;tench",
        "label,name\n0,\"church, old\"\n1,tench",
        "label\n\"church, old\"\ntench",
        "LabelName,DisplayName\n/m/1,\"church, old\"\n/m/2,tench",
        "id|class\n0|church, old\n1|tench",
        "index,label\n1,tench\n0,\"church, old\"",
        "# made by hand\nlabel,n\n\"church, old\",1\n# more\ntench,2",
    ] {
        assert_eq!(names(text), want, "{text}");
    }
    let found = file("id,label\n0,cat\n1,\n2,dog\n3\n");
    assert_eq!(found.entries.len(), 2);
    assert!(
        found.notes.iter().any(|note| note.contains("2 rows without a label left out, the first on line 3")),
        "{:?}",
        found.notes
    );
    let found = LabelFile::parse(b"species,where\ncat,home\ndog,home\n", "t.csv", Some("Species")).unwrap();
    assert_eq!(found.labels().unwrap().names(), ["cat", "dog"]);
    assert_eq!(
        prompts("label,prompt\ncat,a cat.\ndog,a dog.\ncat,\"a cat, asleep.\"\n"),
        [
            ("cat".to_owned(), vec!["a cat.".to_owned(), "a cat, asleep.".to_owned()]),
            ("dog".to_owned(), vec!["a dog.".to_owned()]),
        ]
    );
    // A list of one column may begin with a word that is a header elsewhere.
    assert_eq!(names("class\nteacher\n"), ["class", "teacher"]);
    let missing = LabelFile::parse(b"a,b\n1,2\n", "t.csv", Some("label")).unwrap_err().to_string();
    assert!(missing.contains("expected a column \"label\", found the columns \"a\", \"b\""), "{missing}");
    assert!(
        refused("species,where\ncat,home\ndog,home\n", "t.csv")
            .contains("found the columns \"species\", \"where\"")
    );
}

#[test]
fn json_of_every_shape() {
    let want = ["tench", "church"];
    for text in [
        "[\n  \"tench\",\n  \"church\"\n]",
        r#"{"1": "church", "0": "tench"}"#,
        r#"{"0": ["n01440764", "tench"], "1": ["n03028079", "church"]}"#,
        r#"{"church": 1, "tench": 0}"#,
        r#"{"model_type": "clip", "id2label": {"0": "tench", "1": "church"}, "label2id": {"tench": 0, "church": 1}}"#,
        r#"[{"id": 1, "name": "tench"}, {"id": 2, "name": "church"}]"#,
        r#"{"categories": [{"name": "tench"}, {"name": "church"}], "info": {}}"#,
        r#"{"labels": ["tench", "church"]}"#,
        r#"{"classes": ["tench", "church"], "version": "1"}"#,
        "\"tench\"\n\"church\"\n",
        r#"{"n01440764": "tench", "n03028079": "church"}"#,
        r#"[["n01440764", "tench"], ["n03028079", "church"]]"#,
        r#"[[0, "tench"], [1, "church"]]"#,
        "{\"label\": \"tench\"}\n\n{\"label\": \"church\"}\n",
        "[\"tench\"]\n",
    ] {
        let found = names(text);
        assert_eq!(found, want[..found.len()], "{text}");
        assert!(found.len() == 2 || text == "[\"tench\"]\n", "{text}");
    }
    assert_eq!(names("[unknown]\ncat\n"), ["[unknown]", "cat"]);
}

#[test]
fn prompts_of_their_own() {
    let cupl =
        "{\"tower\": [\"a tower.\", \"a chapel with a steeple\"], \"church\": \"a church.\", \"cat\": []}";
    let found = prompts(cupl);
    assert_eq!(
        found[0],
        ("tower".to_owned(), vec!["a tower.".to_owned(), "a chapel with a steeple".to_owned()])
    );
    assert_eq!(found[1], ("church".to_owned(), vec!["a church.".to_owned()]));
    assert_eq!(found[2], ("cat".to_owned(), vec![]));
    let classes = prompts(r#"{"classes": ["pupils in classes"], "church": ["a church."]}"#);
    assert_eq!(classes.len(), 2);
    let lines = "{\"cat\": [\"a cat.\"]}\n{\"dog\": [\"a dog.\"]}\n";
    assert_eq!(prompts(lines)[1], ("dog".to_owned(), vec!["a dog.".to_owned()]));
    let tabs = "cat\ta cat.\ta {} asleep\ndog\tA Dog.\n";
    assert_eq!(prompts(tabs)[0].1, ["a cat.", "a {} asleep"]);
    assert!(refused("cat\tKatze\ndog\tHund\n", "l.txt").contains("line 1"));
    assert_eq!(prompts(r#"{"7": ["the number 7.", "a seven"], "1": ["a one"]}"#)[0].0, "7");
}

#[test]
fn synonyms_of_labels() {
    let cat =
        ("cat".to_owned(), vec!["a cat.".to_owned()], vec!["kitty".to_owned(), "feline, wild".to_owned()]);
    let dog = ("dog".to_owned(), vec![], vec![]);
    for text in [
        r#"[{"label": "cat", "prompts": ["a cat."], "synonyms": ["kitty", "feline, wild"]}, "dog"]"#,
        r#"{"cat": {"prompts": "a cat.", "synonyms": ["kitty", "feline, wild"]}, "dog": []}"#,
        "label,prompt,synonyms\ncat,a cat.,\"kitty | feline, wild\"\ndog\n",
        "label,prompt,synonym\ncat,,kitty\ndog\ncat,a cat.,\"feline, wild\"\n",
        "label|prompt|synonyms\ncat|a cat.|kitty;feline, wild\ndog||\n",
    ] {
        let labels = file(text).into_labels().into_iter();
        let found: Vec<_> = labels.map(|label| (label.name, label.prompts, label.synonyms)).collect();
        assert_eq!(found, [cat.clone(), dog.clone()], "{text}");
    }
    let only = file(r#"{"cat": {"synonyms": ["kitty"]}, "dog": []}"#).into_labels();
    assert_eq!((&only[0].prompts[..], &only[0].synonyms[..]), (&[][..], &["kitty".to_owned()][..]));
    let ordered = file("index,label,synonyms\n1,dog,hound|\n0,cat,\n");
    assert_eq!(ordered.entries[1].label.synonyms, ["hound"]);
    assert!(ordered.notes.iter().any(|note| note.contains("synonyms are those of the column \"synonyms\"")));
    assert!(refused(r#"{"cat": {"synonyms": 1}, "dog": []}"#, "l.json").contains("label \"cat\""));
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (text, expected) in [
        ("[\n  \"a\",\n  \"b\",\n]", "trailing comma at line 4 column 1"),
        ("[\"a\", \"b\"", "line 1 column 9"),
        ("['a', 'b']", "line 1 column 2"),
        ("[\"a\", 1]", "expected a label, found 1"),
        ("[\"a\", null]", "expected a label, found null"),
        ("{\"a\": \"x\", \"b\": 2}", "prompts for label \"b\", found 2"),
        ("{\"label\": \"a\"}\n{\"label\": \n", "line 2"),
        ("a\nb\na\n", "label \"a\" is given twice, on lines 1 and 3"),
        ("caf\u{e9}\ncafe\u{301}\nchurch\n", "on lines 1 and 2"),
        ("", "0 label(s)"),
        ("# nothing\n", "0 label(s)"),
        ("cat\n", "1 label(s)"),
        ("cat\n\"\"\n", "is empty"),
        ("a\0b\n", "zero byte"),
    ] {
        let found = refused(text, "l.txt");
        assert!(found.contains(expected), "{text:?}: {found}");
    }
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(refused(&nested, "l.json").contains("recursion limit"));
    let many = (0..100_000).map(|i| format!("label {i} of many\n")).collect::<String>();
    assert_eq!(file(&many).labels().unwrap().names().len(), 100_000);
}

#[test]
fn a_file_beyond_the_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.txt");
    let huge = std::fs::File::create(&path).unwrap();
    huge.set_len(MAX_LABEL_BYTES + 1).unwrap();
    let error = LabelFile::read(&path, None).unwrap_err().to_string();
    assert!(error.contains("huge.txt"), "{error}");
    assert!(LabelFile::read(Path::new("/nowhere/labels.txt"), None).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), column in proptest::option::of("[a-z]{0,3}")) {
        for name in ["l.txt", "l.csv"] {
            let _ = LabelFile::parse(&bytes, name, column.as_deref()).map(|file| file.labels());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "([\\[\\]{}\",:;|#/\t\n 0-2a-c]|label|sep=|n01440764){0,40}") {
        for name in ["l.txt", "l.tsv"] {
            let _ = LabelFile::parse(text.as_bytes(), name, None).map(|file| file.labels());
        }
    }

    #[test]
    fn plain_labels_are_read_as_they_are(labels in proptest::collection::vec("[a-zé]{1,8}( [a-z]{1,8}){0,2}", 2..12)) {
        prop_assert_eq!(names(&labels.join("\n")), labels.clone());
        prop_assert_eq!(names(&serde_json::to_string(&labels).unwrap()), labels);
    }
}
