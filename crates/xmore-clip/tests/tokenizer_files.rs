//! Tokenizer files of every kind give the ids that open_clip and transformers give.
//!
//! The vocabularies here are small; `XMORE_TOKENIZERS` names a folder that `make_tokenizers.py --large` wrote, which is checked as well.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xmore_clip::{Cleaning, Padding, TokenizerOptions, Tokens, encode_with_folder};

/// An entry of `cases.json`.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    folder: String,
    context_length: usize,
    cleaning: String,
    padding: Option<u32>,
    strip_sep_token: bool,
    captions: usize,
    sha256: String,
}

impl Case {
    fn options(&self) -> TokenizerOptions {
        TokenizerOptions {
            context_length: self.context_length,
            cleaning: match self.cleaning.as_str() {
                "none" => Cleaning::None,
                "lower_case" => Cleaning::LowerCase,
                "whitespace" => Cleaning::Whitespace,
                "canonicalize" => Cleaning::Canonical,
                "siglip" => Cleaning::Siglip,
                other => panic!("{other}"),
            },
            padding: self.padding.map(Padding::Id),
            strip_sep_token: self.strip_sep_token,
        }
    }

    fn encode(&self, root: &Path, texts: &[String]) -> Vec<Tokens> {
        encode_with_folder(&root.join(&self.folder), &self.options(), texts).unwrap()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer")
}

/// The folders with tokenizers: the small ones, and the large ones where the environment names them.
fn roots() -> Vec<PathBuf> {
    let large = std::env::var_os("XMORE_TOKENIZERS").map(PathBuf::from);
    [fixtures().join("files")].into_iter().chain(large).collect()
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

fn hard_texts() -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Row {
        text: String,
    }
    json::<Vec<Row>>(&fixtures().join("nasty.json")).into_iter().map(|row| row.text).collect()
}

#[test]
fn hard_texts_as_in_the_references() {
    let texts = hard_texts();
    let mut wrong = Vec::new();
    for root in roots() {
        for case in json::<Vec<Case>>(&root.join("cases.json")) {
            let expected: Vec<Vec<u32>> = json(&root.join(format!("{}.ids.json", case.name)));
            assert_eq!(expected.len(), texts.len());
            let mut count = 0;
            for ((text, mut expected), found) in texts.iter().zip(expected).zip(case.encode(&root, &texts)) {
                if let Some(padding) = case.padding {
                    expected.resize(case.context_length, padding);
                }
                if found.ids != expected {
                    count += 1;
                    let start: String = text.chars().take(60).collect();
                    eprintln!(
                        "{}: {start:?}\n  expected {expected:?}\n  found    {:?}",
                        case.name, found.ids
                    );
                }
            }
            if count > 0 {
                wrong.push(format!("{}/{}: {count}", root.display(), case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "of {} texts each: {wrong:#?}", texts.len());
}

/// As for CLIP's own tokenizer: the captions are not ours to copy, the hash of their ids is compared.
#[test]
fn captions_as_in_the_references() {
    let root = std::env::var_os("XMORE_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join("flickr8k/captions.csv");
    let Ok(mut file) = csv::Reader::from_path(&path) else {
        // past the capture of tests that pass
        writeln!(std::io::stderr(), "skipped: no {}; name the folder in XMORE_TEST_DATA", path.display())
            .unwrap();
        return;
    };
    let captions: Vec<String> = file.records().map(|row| row.unwrap()[1].to_owned()).collect();
    let mut wrong = Vec::new();
    for root in roots() {
        for case in json::<Vec<Case>>(&root.join("cases.json")) {
            assert_eq!(captions.len(), case.captions);
            let mut digest = Sha256::new();
            for Tokens { ids, .. } in case.encode(&root, &captions) {
                digest.update((ids.len() as u32).to_le_bytes());
                ids.iter().for_each(|id| digest.update(id.to_le_bytes()));
            }
            if xmore_files::hex(digest.finalize()) != case.sha256 {
                wrong.push(format!("{}/{}", root.display(), case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
