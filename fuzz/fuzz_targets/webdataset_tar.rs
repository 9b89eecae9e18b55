//! Any bytes as a webdataset tar: an error, or pairs whose images are read alike by their place and by their name.
//!
//! Headers with a wrong checksum are also tried with the right one, so that inputs get past it.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xmore_memory::ingest::{ImageReader, ImageRef, InputFormat, Source, SourceOptions};

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

fuzz_target!(|bytes: &[u8]| {
    let mut summed = bytes.to_vec();
    for block in summed.as_chunks_mut::<512>().0 {
        // A block with a name and a digit in its size is taken for a header.
        if block[0] != 0 && block[124..136].iter().any(u8::is_ascii_digit) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    for bytes in [bytes, &summed] {
        let path = FOLDER.path().join("fuzzed.tar");
        std::fs::write(&path, bytes).expect("the temporary folder is writable");
        read(path);
    }
});

fn read(path: PathBuf) {
    let Ok(source) = Source::detect(path, InputFormat::Webdataset, &SourceOptions::default()) else { return };
    let Ok(ingested) = source.read() else { return };
    let reader = ImageReader::new();
    for pair in &ingested.pairs {
        assert!(!pair.captions.is_empty());
        let ImageRef::TarMember { name, span: Some(span), .. } = &pair.image else {
            panic!("not in the tar")
        };
        let bytes = reader.read(&pair.image).expect("all of it is there");
        assert_eq!(bytes.len() as u64, span.len);
        // By its name the first member that bears it is found: another, if keys are spelled alike with another extension only.
        let parsed = ImageRef::parse(&pair.image.to_string());
        assert!(matches!(&parsed, ImageRef::TarMember { name: parsed, .. } if parsed == name));
        assert!(reader.read(&parsed).is_ok());
    }
}
