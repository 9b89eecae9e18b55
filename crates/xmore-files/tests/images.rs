//! Decoding against Pillow: files of every format, every orientation, damage, and the largest sizes (see `fixtures/make_images.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use xmore_files::image::{Alpha, DecodeOptions, Decoded, ImageError, Orientation, decode_bytes, decode_file};

#[derive(Deserialize)]
struct Expected {
    files: BTreeMap<String, File>,
    /// Hash of each file's upright pixels.
    upright: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    mode: String,
    size: (u32, u32),
    /// Hash of what `convert("RGB")` gives.
    decoded: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn expected() -> Expected {
    serde_json::from_slice(&fs::read(fixtures().join("expected.json")).unwrap()).unwrap()
}

fn decode(name: &str, orientation: Orientation) -> Result<Decoded, ImageError> {
    decode_file(&fixtures().join(name), Alpha::Drop, &DecodeOptions::with_orientation(orientation))
}

fn sha(decoded: &Decoded) -> String {
    xmore_files::hex(Sha256::digest(decoded.image().as_raw()))
}

#[test]
fn files_decode_to_pillows_bytes() {
    let (mut refused, mut others) = (Vec::new(), Vec::new());
    let files = expected().files;
    for (name, file) in &files {
        let decoded = match decode(name, Orientation::Exif) {
            Ok(decoded) => decoded,
            Err(error) => {
                refused.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert_eq!(decoded.image().dimensions(), file.size, "{name}");
        assert_eq!(decoded.is_first_of_several(), name.starts_with("several"), "{name}");
        if sha(&decoded) != file.decoded {
            others.push(format!("{name}, {}", file.mode));
        }
    }
    assert!(files.len() > 30);
    // Palettes are what the `image` crate does not read of TIFF.
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("palette.tiff: cannot decode the image: TIFF: "), "{refused:?}");
    // Inks are multiplied in another precision; of 16 bits Pillow takes the high byte in PNG and TIFF, but rounds in PNM.
    assert_eq!(others, ["cmyk.tiff, CMYK", "deep.ppm, RGB"]);
}

#[test]
fn every_orientation_of_every_format_comes_out_upright() {
    let expected = expected();
    assert_eq!(expected.upright.len(), 4 * 8);
    for (name, hash) in &expected.upright {
        let upright = decode(name, Orientation::Exif).unwrap();
        assert_eq!(upright.image().dimensions(), (16, 8), "{name}");
        assert_eq!(&sha(&upright), hash, "{name}");
        let stored = decode(name, Orientation::Stored).unwrap();
        let turned = matches!(name.as_bytes()[1], b'5'..=b'8');
        assert_eq!(stored.image().dimensions(), if turned { (8, 16) } else { (16, 8) }, "{name}");
        assert_eq!(sha(&stored) == *hash, name.starts_with("o1."), "{name}");
    }
}

#[test]
fn a_name_tells_tga_and_only_tga() {
    let bytes = fs::read(fixtures().join("rgb.tga")).unwrap();
    let by = |name: &str, bytes: &[u8]| {
        decode_bytes(bytes, Path::new(name), Alpha::Drop, &DecodeOptions::default())
    };
    // Pillow writes the footer of version 2.
    assert!(by("a.bin", &bytes).is_ok());
    let without = &bytes[..bytes.len() - 26];
    assert!(matches!(by("a.bin", without), Err(ImageError::UnknownFormat { .. })));
    assert!(by("a.TGA", without).is_ok());
    assert!(matches!(by("a.png", b"hello"), Err(ImageError::UnknownFormat { .. })));
}

#[test]
fn formats_that_are_not_read_are_named() {
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    let avif = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf";
    for (name, bytes, format) in [
        ("a.heic", &heic[..], "HEIC"),
        ("a.jpg", heic, "HEIC"),
        ("a.avif", avif, "AVIF"),
        ("a", b"\xff\x0a\0\0", "JPEG XL"),
        ("a.dng", b"II*\0\x08\0\0\0", "camera raw"),
    ] {
        let refused = decode_bytes(bytes, Path::new(name), Alpha::Drop, &DecodeOptions::default());
        match refused {
            Err(ImageError::NotRead { format: found }) => assert_eq!(found, format, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn more_pixels_than_allowed_are_refused_by_their_header() {
    let options = |max_pixels| DecodeOptions { max_pixels, ..DecodeOptions::default() };
    for (name, file) in expected().files {
        let pixels = u64::from(file.size.0) * u64::from(file.size.1);
        let path = fixtures().join(&name);
        if name == "palette.tiff" {
            continue;
        }
        assert!(decode_file(&path, Alpha::Drop, &options(pixels)).is_ok(), "{name}");
        match decode_file(&path, Alpha::Drop, &options(pixels - 1)) {
            Err(ImageError::TooManyPixels { width, height, limit }) => {
                assert_eq!((width * height, limit), (pixels, pixels - 1), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn claims_that_never_fit_are_refused_with_what_they_take() {
    // A PNG of 16-bit RGBA that claims 32,768 × 32,768: 3 GiB of RGB.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x80\0\0\0\x80\0\x10\x06\0\0\0".to_vec();
    png.extend(crc32(&png[12..]).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    match decode_bytes(&png, Path::new("a.png"), Alpha::Drop, &DecodeOptions::default()) {
        Err(ImageError::TooMuchMemory { needed, budget, .. }) => assert!(needed > 3 << 30 && needed > budget),
        other => panic!("{other:?}"),
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    })
}

thread_local! {
    static FILES: Vec<(String, Vec<u8>)> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e != "json"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// An image or an error, within the test's memory and time.
    #[test]
    fn damaged_files_do_not_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let files = FILES.with(Clone::clone);
        let (name, bytes) = which.get(&files);
        let mut bytes = bytes.clone();
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let options = DecodeOptions { max_pixels: 1 << 20, ..DecodeOptions::default() };
        if let Ok(decoded) = decode_bytes(&bytes, Path::new(name), Alpha::White, &options) {
            prop_assert!(decoded.image().width() > 0 && decoded.image().height() > 0);
        }
    }
}
