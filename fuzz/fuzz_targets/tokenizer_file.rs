//! Any bytes, behind a byte that says which, as a sentencepiece model of each class, as `vocab.txt`, and as `tokenizer_config.json`
//! beside a whole vocabulary: an error or ids, never a panic past our guard.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xmore_clip::{Cleaning, Padding, TokenizerOptions, encode_with_file};

const TEXT: &str = "a dog's Café 42 日本 <s>▁</s> ＡＢ\u{301}";
const VOCABULARY: &[u8] = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ndog\n";

fuzz_target!(|data: &[u8]| {
    let Some((&which, bytes)) = data.split_first() else { return };
    let (name, file, config): (_, _, &[u8]) = match which % 6 {
        0 => ("spiece.model", bytes, br#"{"tokenizer_class":"SiglipTokenizer"}"#),
        1 => ("spiece.model", bytes, br#"{"tokenizer_class":"T5Tokenizer"}"#),
        2 => ("sentencepiece.bpe.model", bytes, b"{}"),
        3 => ("tokenizer.model", bytes, br#"{"tokenizer_class":"GemmaTokenizer","add_eos_token":true}"#),
        4 => ("vocab.txt", bytes, b"{}"),
        _ => ("vocab.txt", VOCABULARY, bytes),
    };
    // libFuzzer aborts in the panic hook, so panics that the guard turns into errors must not reach it
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(|| {
        let options = TokenizerOptions {
            cleaning: Cleaning::Siglip,
            padding: Some(Padding::Id(1)),
            ..TokenizerOptions::new(16)
        };
        encode_with_file(name, file, config, TEXT, &options).map(|tokens| tokens.ids.len())
    });
    std::panic::set_hook(hook);
    match result {
        Ok(Ok(length)) => assert_eq!(length, 16),
        Ok(Err(_)) => {}
        Err(_) => panic!("a panic got past the guard"),
    }
});
