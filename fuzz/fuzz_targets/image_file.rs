//! Any bytes as an image file of any format: an error, or pixels of the size that its header says, both as stored and upright.
//!
//! The first byte chooses a name, since one format is told by its name alone, and what becomes of transparency.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use xmore_files::image::{Alpha, DecodeOptions, Orientation, decode_bytes};

/// Small, so that a file's claim alone takes no memory worth speaking of.
const MAX_PIXELS: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let name = Path::new(if choice & 1 == 0 { "a" } else { "a.tga" });
    let alpha = if choice & 2 == 0 { Alpha::Drop } else { Alpha::White };
    let decode = |orientation| {
        decode_bytes(bytes, name, alpha, &DecodeOptions { orientation, max_pixels: MAX_PIXELS })
    };
    let (Ok(stored), Ok(upright)) = (decode(Orientation::Stored), decode(Orientation::Exif)) else { return };
    let (width, height) = stored.image().dimensions();
    assert!(width > 0 && height > 0 && u64::from(width) * u64::from(height) <= MAX_PIXELS);
    let turned = upright.image().dimensions();
    assert!(turned == (width, height) || turned == (height, width));
    // A turn moves pixels and changes none.
    let sum = |image: &image::RgbImage| image.as_raw().iter().map(|&v| u64::from(v)).sum::<u64>();
    assert_eq!(sum(stored.image()), sum(upright.image()));
});
