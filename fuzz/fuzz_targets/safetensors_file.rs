//! safetensors: the header's bytes are the fuzzer's, its length and the data are made to fit, so that inputs get past the frame.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use xmore_clip::Checkpoint;

mod tensors;

fuzz_target!(|bytes: &[u8]| {
    // As it is, and as a header before 256 bytes of data.
    let framed = [&(bytes.len() as u64).to_le_bytes(), bytes, &[0x3f; 256]].concat();
    for bytes in [bytes.to_vec(), framed] {
        if let Ok(checkpoint) = Checkpoint::from_bytes(bytes, Path::new("fuzzed.safetensors")) {
            tensors::read(&checkpoint);
        }
    }
});
