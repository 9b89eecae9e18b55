//! Any bytes as a file of labels, a list of them typed or sent: an error, or labels that are different
//! and not empty.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmore::{LabelFile, LabelList, Labels};

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    let labels = match kind % 5 {
        0 => LabelFile::parse(bytes, "labels.txt", None).and_then(|file| file.labels()),
        1 => LabelFile::parse(bytes, "labels.csv", None).and_then(|file| file.labels()),
        2 => LabelFile::parse(bytes, "labels.tsv", Some("name")).and_then(|file| file.labels()),
        3 => Labels::parse(&text),
        _ => match serde_json::from_str::<LabelList>(&text) {
            Ok(list) => Labels::with_prompts(list.0),
            Err(_) => return,
        },
    };
    let Ok(labels) = labels else { return };
    let names: std::collections::HashSet<&String> = labels.names().iter().collect();
    assert_eq!(names.len(), labels.names().len(), "a label twice");
    assert!(names.len() >= 2 && names.iter().all(|name| !name.trim().is_empty()));
    for label in 0..labels.names().len() {
        assert!(labels.prompts(label, &[]).all(|prompt| !prompt.is_empty()));
    }
});
