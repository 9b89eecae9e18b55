//! PyTorch's files, old and new, and TorchScript: any bytes give tensors or an error. Bytes that are no file of their own are
//! also tried as the pickle inside one, so that inputs get past the frame.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use xmore_clip::Checkpoint;

mod tensors;

fuzz_target!(|bytes: &[u8]| {
    let file = if bytes.starts_with(b"PK\x03\x04") { bytes.to_vec() } else { archive(bytes) };
    for bytes in [bytes.to_vec(), file] {
        if let Ok(checkpoint) = Checkpoint::from_bytes(bytes, Path::new("fuzzed.pt")) {
            tensors::read(&checkpoint);
        }
    }
});

/// An archive of that pickle and four storages of 256 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let data = [0x3f; 256];
    let members = [
        ("x/data.pkl", pickle),
        ("x/data/0", &data),
        ("x/data/1", &data),
        ("x/data/2", &data),
        ("x/data/3", &data),
    ];
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let header = bytes.len() as u32;
        let sizes = [0, data.len() as u32, data.len() as u32].map(u32::to_le_bytes).concat();
        let lengths = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        let local = [b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0".as_slice(), &sizes, &lengths].concat();
        bytes.extend([local.as_slice(), name.as_bytes(), data].concat());
        let entry = [b"PK\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0".as_slice(), &sizes, &lengths, &[0; 10]].concat();
        directory.extend([entry.as_slice(), &header.to_le_bytes(), name.as_bytes()].concat());
    }
    let place = [directory.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
    let count = (members.len() as u16).to_le_bytes();
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &place, &[0; 2]].concat());
    bytes
}
