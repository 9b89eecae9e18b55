//! Any bytes as a `tokenizer.json`: an error or ids, never a panic past our guard.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xmore_clip::encode_with_json;

fuzz_target!(|json: &[u8]| {
    // libFuzzer aborts in the panic hook, so panics that the guard turns into errors must not reach it
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result =
        std::panic::catch_unwind(|| encode_with_json(json, "a dog's Café 42 日本 <s>", 16).map(|_| ()));
    std::panic::set_hook(hook);
    assert!(result.is_ok(), "a panic got past the guard");
});
