//! Pictures, tables and a second model made by the tests, and the content of folders.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use serde_json::json;

use super::fixture;

/// A memory's lock file; it stays, and it is empty.
pub const LOCK: &str = ".xmore-lock";

/// Pseudorandom numbers (SplitMix64), the same for a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Writes a small picture; another seed gives another one.
pub fn picture(path: &Path, seed: u64) {
    let mut random = Random(seed);
    let [r, g, b] = [(); 3].map(|()| random.below(256));
    let (width, height) = (20 + random.below(13) as u32, 20 + random.below(13) as u32);
    RgbImage::from_fn(width, height, |x, y| {
        let ramp = u64::from(x * 7 + y * 5);
        Rgb([r + ramp, g + ramp * 3, b + u64::from(x) * 11].map(|v| (v % 256) as u8))
    })
    .save(path)
    .unwrap();
}

/// A JPEG file of noise, at least so large.
pub fn noise_jpeg(bytes: usize) -> Vec<u8> {
    let mut random = Random(bytes as u64);
    // Noise takes some 1.8 bytes a pixel.
    let side = (bytes as f64 / 1.7).sqrt() as u32;
    let noise =
        RgbImage::from_fn(side, side, |_, _| Rgb(random.next().to_le_bytes()[..3].try_into().unwrap()));
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 90).encode_image(&noise).unwrap();
    assert!(jpeg.len() >= bytes, "{} of {bytes} bytes", jpeg.len());
    jpeg
}

/// `count` pictures in `dir/photos` and a table of `dir/pairs.csv` with up to `captions` captions for each: some come again, some are
/// too long, every 17th picture is broken, one is missing, some rows are malformed. Returns the table's path.
pub fn source(dir: &Path, count: u64, captions: u64) -> PathBuf {
    let mut random = Random(count);
    fs::create_dir_all(dir.join("photos")).unwrap();
    let mut table = String::from("image_path,caption\n");
    for i in 0..count {
        let name = format!("photos/{i:04}.png");
        match i {
            5 => {}
            _ if i % 17 == 3 => fs::write(dir.join(&name), "no picture").unwrap(),
            _ => picture(&dir.join(&name), i),
        }
        for caption in 0..=random.below(captions) {
            let caption = match random.below(8) {
                0 => format!("a thing seen often {}", random.below(5)),
                1 => format!("\"number {i}, with a comma\""),
                2 if i % 40 == 0 => format!("so long {}", "word ".repeat(60)),
                _ => format!("picture {i} told for the {caption}. time"),
            };
            table += &format!("{name},{caption}\n");
        }
        match i % 50 {
            20 => table += "one field\n",
            30 => table += &format!("{name},\n"),
            40 => table += &format!("{name},too,many\n"),
            _ => {}
        }
    }
    let path = dir.join("pairs.csv");
    fs::write(&path, table).unwrap();
    path
}

/// A CLIP with 24 values an embedding, where the tiny model has 16: the fixture's weights with a tokenizer of their size.
/// Returns its name, `local-dir:…`.
pub fn second_model(dir: &Path) -> String {
    let folder = dir.join("second-model");
    copy_folder(&fixture("clip/vit_gelu/open_clip"), &folder);
    let text = fs::read_to_string(fixture("tiny/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut words: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into();
    for c in ('a'..='z').chain('0'..='9') {
        words.extend([c.to_string(), format!("##{c}")]);
    }
    tokenizer["model"]["vocab"] = words.into_iter().zip(0..).map(|(word, id)| (word, json!(id))).collect();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    format!("local-dir:{}", folder.display())
}

/// Copies a folder and those in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = { entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap() };
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// The bytes of every file below a folder but the lock, by its path there.
pub fn bytes_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, into);
            } else if path != root.join(LOCK) {
                into.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    files
}

/// Fails with the names of the files that two folders do not share byte for byte.
#[track_caller]
pub fn assert_same_files(found: &Path, expected: &Path) {
    let (found_files, expected_files) = (bytes_of(found), bytes_of(expected));
    let names = found_files.keys().chain(expected_files.keys());
    let different: Vec<_> =
        names.filter(|name| found_files.get(*name) != expected_files.get(*name)).collect();
    assert!(different.is_empty(), "{} differs from {} in {different:?}", found.display(), expected.display());
    // Empty folders are leftovers too.
    assert!(!found.join(".xmore-building").exists() && !found.join(".xmore-embedding").exists());
}
