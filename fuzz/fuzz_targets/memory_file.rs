//! Any bytes as one file of a memory whose other files are whole: an error, or a memory that is searched, verified and mended.
//!
//! A first byte says which file they are, or that they are written over it from some place on, and whether a JSON file gets the checksum of
//! its new content.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use xmore_memory::Memory;
use xmore_memory::store::{MemoryWriter, ModelIdentity, repair, verify};

/// Files of a memory of one part; the manifest first. The parquet file is not damaged: the parquet crate panics on some pages, which
/// the product catches, but which ends a fuzzer; a property test in `store/metadata.rs` damages it.
const FILES: [&str; 8] = [
    "xmore_memory.json",
    "img_emb/img_emb_0000.npy",
    "text_emb/text_emb_0000.npy",
    "metadata/metadata_0000.parquet",
    "lookup/lookup_0000.bin",
    "img_codes/img_codes_0000.bin",
    "text_codes/text_codes_0000.bin",
    ".xmore-building/checkpoint.json",
];

/// A whole memory of forty rows of eight values.
static WHOLE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = ModelIdentity::new("fuzz", "00", 8);
    let mut writer = MemoryWriter::create(dir.path(), model).expect("an empty folder");
    for i in 0..40 {
        let row: Vec<f32> = (0..8).map(|j| if j == i % 8 { 1.0 } else { 0.0 }).collect();
        writer.push(&format!("{}.jpg", i / 5), &format!("caption {i}"), &row, &row).expect("a unit row");
    }
    writer.finish().expect("the temporary folder is writable");
    dir
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let file = FILES[usize::from(which % 8)];
    if file.ends_with(".parquet") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    copy(WHOLE.path(), dir.path());
    let path: PathBuf = dir.path().join(file);
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("the temporary folder is writable");
    let content = match (which >= 128, std::fs::read(&path)) {
        // A place, and what is written over the file from there.
        (true, Ok(mut whole)) if bytes.len() > 2 && !whole.is_empty() => {
            let at = usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % whole.len();
            let end = (at + bytes.len() - 2).min(whole.len());
            whole[at..end].copy_from_slice(&bytes[2..2 + end - at]);
            whole
        }
        _ => bytes.to_vec(),
    };
    let content = if which & 64 != 0 && file.ends_with(".json") { sealed(content) } else { content };
    std::fs::write(&path, content).expect("the temporary folder is writable");
    read(dir.path());
    let _ = verify(dir.path(), &mut |_, _| {});
    if repair(dir.path()).is_ok() {
        read(dir.path());
    }
});

/// With the checksum of its content where its last field is one.
fn sealed(mut content: Vec<u8>) -> Vec<u8> {
    const AFTER: &[u8] = b"\"\n}\n";
    if let Some(start) = content.len().checked_sub(AFTER.len() + 64)
        && content.ends_with(AFTER)
    {
        let digest = xmore_files::hex(Sha256::digest(&content[..start]));
        content[start..start + 64].copy_from_slice(digest.as_bytes());
    }
    content
}

fn read(dir: &Path) {
    let Ok(memory) = Memory::open(dir) else { return };
    for id in 0..memory.len().min(50) {
        let _ = (memory.caption(id), memory.image_path(id));
    }
    let query = vec![0.5; memory.dim()];
    for found in [memory.search_images(&query, 3), memory.search_texts(&query, 3)].into_iter().flatten() {
        assert!(found[0].windows(2).all(|pair| pair[0].similarity >= pair[1].similarity));
    }
}

fn copy(from: &Path, to: &Path) {
    for file in &FILES[..7] {
        let target = to.join(file);
        std::fs::create_dir_all(target.parent().expect("it has one")).expect("the temporary folder is writable");
        std::fs::copy(from.join(file), target).expect("the temporary folder is writable");
    }
}
