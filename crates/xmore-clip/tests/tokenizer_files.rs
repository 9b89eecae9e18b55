//! Tokenizer files of every kind give the ids that open_clip and transformers give.
//!
//! The vocabularies here are small; `XMORE_TOKENIZERS` names a folder that `make_tokenizers.py --large` wrote, which is checked as well.

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use xmore_clip::{
    Cleaning, ClipTokenizer, Padding, TokenizerOptions, Tokens, encode_with_file, encode_with_folder,
};

/// An entry of `cases.json`.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    folder: String,
    context_length: usize,
    cleaning: String,
    /// The id that the reference pads with, by the tokenizer's own padding token.
    padding: Option<u32>,
    strip_sep_token: bool,
    /// Every how many captions the hash is of.
    step: usize,
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
            padding: self.padding.map(|_| Padding::Token),
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

/// CLIP's hard texts, and those with special tokens.
fn hard_texts(root: &Path) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Row {
        text: String,
    }
    let hard = json::<Vec<Row>>(&fixtures().join("nasty.json")).into_iter().map(|row| row.text);
    hard.chain(json::<Vec<String>>(&root.join("special.json"))).collect()
}

#[test]
fn hard_texts_as_in_the_references() {
    let mut wrong = Vec::new();
    for root in roots() {
        let texts = hard_texts(&root);
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
                wrong.push(format!("{}/{}: {count} of {}", root.display(), case.name, texts.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
            let captions: Vec<String> = captions.iter().step_by(case.step).cloned().collect();
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

fn small(folder: &str, file: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("files").join(folder).join(file)).unwrap()
}

fn encode(folder: &str, options: &TokenizerOptions, text: &str) -> Tokens {
    let dir = fixtures().join("files").join(folder);
    encode_with_folder(&dir, options, &[text.to_owned()]).unwrap().remove(0)
}

/// SigLIP's text tower has no mask: without its padding a text gives other embeddings.
#[test]
fn siglip_texts_are_padded_to_the_context_length() {
    let cut = TokenizerOptions { cleaning: Cleaning::Canonical, ..TokenizerOptions::new(64) };
    let whole = TokenizerOptions { padding: Some(Padding::Id(1)), ..cut.clone() };
    for (folder, cut, whole) in [
        ("siglip-open-clip", &cut, &whole),
        ("siglip", &cut, &whole),
        ("gemma-json", &cut, &TokenizerOptions { padding: Some(Padding::Id(0)), ..cut.clone() }),
    ] {
        let text = "A photo of a dog.";
        let (short, padded) = (encode(folder, cut, text), encode(folder, whole, text));
        assert!(short.ids.len() < 20, "{folder}: {:?}", short.ids);
        assert_eq!(padded.ids.len(), 64);
        assert_eq!(padded.ids[..short.ids.len()], short.ids);
        assert!(padded.ids[short.ids.len()..].iter().all(|&id| Some(Padding::Id(id)) == whole.padding));
        let long = encode(folder, whole, &"dog ".repeat(100));
        assert_eq!((long.ids.len(), long.ids[63], long.truncated), (64, 1, true), "{folder}");
        // padding is no part of a text
        assert!(encode(folder, whole, "").is_unknown() && !padded.is_unknown());
    }
    for folder in ["siglip", "siglip-open-clip"] {
        assert!(encode(folder, &whole, "\u{10ffff}").is_unknown());
    }
}

/// open_clip removes punctuation, transformers' class for SigLIP 2 only lowers the case, its class for SigLIP joins at underscores.
#[test]
fn the_forms_of_a_text_differ() {
    let with = |folder, cleaning, text| {
        encode(folder, &TokenizerOptions { cleaning, ..TokenizerOptions::new(64) }, text).ids
    };
    let (canonical, lower) = (Cleaning::Canonical, Cleaning::LowerCase);
    let text = "Hello, World!";
    assert_eq!(with("siglip2", canonical, text), with("siglip2", Cleaning::None, "hello world"));
    assert_eq!(with("siglip2", lower, text), with("siglip2", Cleaning::None, "hello, world!"));
    assert_ne!(with("siglip2", lower, text), with("siglip2", canonical, text));
    assert_eq!(with("siglip", canonical, "a dog_house"), with("siglip", Cleaning::None, "a dog house"));
    assert_eq!(with("siglip", Cleaning::Siglip, "a dog_house"), with("siglip", Cleaning::None, "a doghouse"));
}

/// MobileCLIP's text towers without causal mask read all 77 positions.
#[test]
fn clip_texts_are_padded_on_demand() {
    let (cut, whole) = (ClipTokenizer::new(77), ClipTokenizer::new(77).padded());
    for text in ["", "a dog!", &"dog ".repeat(100)] {
        let (mut ids, truncated) = cut.encode(text);
        ids.resize(77, 0);
        assert_eq!(whole.encode(text), (ids, truncated));
    }
}

#[test]
fn malformed_files_are_refused() {
    let field = |number: u8, bytes: &[u8]| {
        let length = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
        [&[number << 3 | 2], length.as_slice(), bytes].concat()
    };
    let piece = |text: &str| field(1, &field(1, text.as_bytes()));
    let vocabulary = ["<pad>", "</s>", "<unk>", "a"].map(piece).concat();
    let trainer = |spec: &[u8]| [vocabulary.as_slice(), &field(2, spec)].concat();
    let normalizer = |spec: &[u8]| [trainer(&[0xC0, 2, 2]).as_slice(), &field(3, spec)].concat();
    let nan = [piece("a").as_slice(), &field(1, &[10, 1, b'b', 21, 0, 0, 0xC0, 0x7F])].concat();
    let (siglip, gemma) =
        (r#"{"tokenizer_class":"SiglipTokenizer"}"#, r#"{"tokenizer_class":"GemmaTokenizer"}"#);
    for (name, file, config, expected) in [
        ("spiece.model", vec![], "{}", "expected `pieces`, found none"),
        ("spiece.model", vec![10, 200], "{}", "not a sentencepiece model: 1 bytes expected, 0 left"),
        ("spiece.model", vec![10, 99, 1], "{}", "not a sentencepiece model: 99 bytes expected, 1 left"),
        (
            "spiece.model",
            b"version https://git-lfs".to_vec(),
            "{}",
            "not a sentencepiece model: unknown wire type",
        ),
        ("spiece.model", vec![8, 1], "{}", "`pieces`: expected bytes, found another type"),
        ("spiece.model", nan, "{}", "piece 1: `score`: expected a finite number, found NaN"),
        ("spiece.model", field(1, &[]), "{}", "piece 0: expected a `piece` that is not empty"),
        ("spiece.model", field(1, &[10, 1, 0xFF]), "{}", "piece 0: `piece`: invalid utf-8"),
        (
            "spiece.model",
            trainer(&[24, 3]),
            "{}",
            "trainer_spec.model_type: expected 1 (unigram) or 2 (BPE), found 3",
        ),
        (
            "spiece.model",
            trainer(&[24, 2]),
            "{}",
            "trainer_spec.model_type: expected 1 (unigram), found 2 (BPE)",
        ),
        (
            "spiece.model",
            trainer(&[0xC0, 2, 9]),
            "{}",
            "trainer_spec.unk_id: expected less than the 4 pieces, found 9",
        ),
        (
            "tokenizer.model",
            vocabulary.clone(),
            gemma,
            "trainer_spec.model_type: expected 2 (BPE), found 1 (unigram)",
        ),
        ("spiece.model", normalizer(&[18, 2, 1, 1]), "{}", "normalizer_spec.precompiled_charsmap"),
        ("spiece.model", normalizer(&[18, 2, 1, 1]), siglip, "normalizer_spec.precompiled_charsmap"),
        (
            "spiece.model",
            normalizer(&[&[18, 0x84, 16, 0, 0, 0, 0], [b'x'; 2048].as_slice()].concat()),
            "{}",
            "normalizer_spec.precompiled_charsmap: expected replacements of at most 1024 bytes, found 2048",
        ),
        ("spiece.model", normalizer(&[40, 0]), siglip, "expected whitespace written as a prefix"),
        ("spiece.model", piece("<unk>"), siglip, "expected a piece \"</s>\", found none"),
        (
            "spiece.model",
            vocabulary.clone(),
            r#"{"tokenizer_class":"X"}"#,
            "tokenizer_class: expected SiglipTokenizer",
        ),
        (
            "spiece.model",
            vocabulary.clone(),
            r#"{"extra_ids":1000000000}"#,
            "extra_ids: expected at most 10000, found",
        ),
        (
            "spiece.model",
            vocabulary.clone(),
            r#"{"extra_ids":"x"}"#,
            "tokenizer_config.json: extra_ids: invalid type",
        ),
        ("vocab.txt", b"[CLS]\n[SEP]\na".to_vec(), "{}", "expected a token \"[UNK]\", found none"),
        ("vocab.txt", b"[UNK]\n[SEP]\na".to_vec(), "{}", "expected a token \"[CLS]\", found none"),
        ("vocab.txt", vec![0xFF], "{}", "not UTF-8"),
    ] {
        let options = TokenizerOptions::new(16);
        let error = encode_with_file(name, &file, config.as_bytes(), "a", &options).unwrap_err().to_string();
        assert!(
            error.contains(expected) && (error.contains(name) || error.contains("_config.json")),
            "{error}"
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let error = encode_with_folder(empty.path(), &TokenizerOptions::new(16), &[]).unwrap_err().to_string();
    assert!(error.contains("expected a tokenizer (tokenizer.json, spiece.model"), "{error}");
    let sep = TokenizerOptions { strip_sep_token: true, ..TokenizerOptions::new(16) };
    for folder in ["siglip", "xlm-json"] {
        let error =
            encode_with_folder(&fixtures().join("files").join(folder), &sep, &[]).unwrap_err().to_string();
        assert!(error.contains("expected a token \"[SEP]\", found none"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn damaged_models_never_panic(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        share in 0.0f64..2.0,
        text in "\\PC{0,40}|[ a-z</>▁]{0,30}",
    ) {
        for (folder, name, class) in [
            ("siglip", "spiece.model", "SiglipTokenizer"),
            ("mt5", "spiece.model", "T5Tokenizer"),
            ("xlm-model", "sentencepiece.bpe.model", "XLMRobertaTokenizer"),
            ("gemma-model", "tokenizer.model", "GemmaTokenizer"),
            ("bert-vocab", "vocab.txt", "BertTokenizer"),
        ] {
            let mut file = small(folder, name);
            let length = file.len();
            for &(at, value) in &changes {
                file[at % length] = value;
            }
            file.truncate((length as f64 * share) as usize);
            let config = format!(r#"{{"tokenizer_class":"{class}"}}"#);
            if let Ok(tokens) = encode_with_file(name, &file, config.as_bytes(), &text, &TokenizerOptions::new(16)) {
                prop_assert!(tokens.ids.len() <= 16);
            }
        }
    }
}
