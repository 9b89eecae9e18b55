//! Any text through CLIP's tokenizer: never a panic, always a bounded sequence between start and end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xmore_clip::ClipTokenizer;

fuzz_target!(|input: (&str, u8)| {
    let (text, context) = input;
    let (ids, _) = ClipTokenizer::new(usize::from(context)).encode(text);
    assert!(ids.len() >= 2 && ids.len() <= usize::from(context).max(2));
    assert!(ids[0] == 49406 && ids[ids.len() - 1] == 49407);
    assert!(ids.iter().all(|&id| (id as usize) < ClipTokenizer::VOCABULARY));
});
