//! JPEG to RGB through libjpeg-turbo's C (MozJPEG's copy), as Pillow does: the `image` crate's decoder rounds otherwise, so that up to
//! a fifth of a photo's bytes would not be those that CLIP was trained and published with.

use std::any::Any;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use mozjpeg::{ColorSpace, Decompress};

use super::decode::{MAX_BYTES, MAX_SIDE, Refusal};

/// Scans of a file: libjpeg-turbo's own fuzzers stop there. Encoders write about ten.
const MAX_SCANS: u64 = 500;
/// Coefficients to look at for each pixel that is allowed, in all scans together: each scan of a progressive file goes over the whole image,
/// even if it says nothing.
const MAX_VISITS: u64 = 60;

/// Decodes a JPEG file's bytes; the error says what is wrong with them.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, Refusal> {
    // The C code reports errors by unwinding, past the panic hook: nothing is printed.
    catch_unwind(AssertUnwindSafe(|| decode_unwinding(bytes, max_pixels)))
        .unwrap_or_else(|payload| Err(message(payload.as_ref()).into()))
}

fn decode_unwinding(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, Refusal> {
    let said = |e: io::Error| format!("JPEG: {e}");
    let jpeg = Decompress::new_reader(Strict(bytes)).map_err(said)?;
    let (width, height) = jpeg.size();
    let components = jpeg.components().len();
    check(width as u64, height as u64, components as u64, &Scans::of(bytes), max_pixels)?;
    let data = match components {
        1 | 3 => jpeg.rgb().map_err(said).and_then(|mut jpeg| {
            let data = jpeg.read_scanlines::<u8>().map_err(said)?;
            jpeg.finish().map_err(said)?;
            Ok(data)
        })?,
        4 => {
            let mut jpeg = jpeg.to_colorspace(ColorSpace::JCS_CMYK).map_err(said)?;
            let data = jpeg.read_scanlines::<[u8; 4]>().map_err(said)?;
            jpeg.finish().map_err(said)?;
            data.iter().flat_map(|&pixel| from_cmyk(pixel)).collect()
        }
        n => return Err(format!("JPEG of {n} colour components; 1, 3 and 4 are known").into()),
    };
    let (width, height) = (width as u32, height as u32);
    RgbImage::from_raw(width, height, data)
        .ok_or_else(|| "JPEG: fewer pixels than its header says".to_owned().into())
}

/// Pillow's arithmetic, which takes inks for inverted, as Adobe writes them.
fn from_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(k) + 128;
        k.saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}

/// Refuses what would take too much memory or time, before the decoder allocates for it.
fn check(width: u64, height: u64, components: u64, scans: &Scans, max_pixels: u64) -> Result<(), Refusal> {
    let side = u64::from(MAX_SIDE);
    let pixels = width * height;
    if width > side || height > side || pixels > max_pixels {
        return Err(Refusal::Pixels { width, height });
    }
    // Besides the pixels: CMYK before it is RGB, and with several scans all coefficients, two bytes each.
    let cmyk = if components == 4 { 4 } else { 0 };
    let coefficients = if scans.several { 2 * components } else { 0 };
    let limit = 2 * MAX_BYTES / (3 + cmyk + coefficients);
    if pixels > limit {
        return Err(
            format!("{width}x{height} pixels in {} scans; at most {limit} are read", scans.count).into()
        );
    }
    if scans.count > MAX_SCANS || scans.count * pixels * components > MAX_VISITS * max_pixels {
        return Err(format!(
            "JPEG of {} scans over {width}x{height} pixels, more than is decoded",
            scans.count
        )
        .into());
    }
    Ok(())
}

/// What the markers say about scans.
#[derive(Debug, Default, PartialEq)]
struct Scans {
    count: u64,
    /// Progressive, or a component at a time.
    several: bool,
}

impl Scans {
    /// Goes from marker to marker, as libjpeg does.
    fn of(bytes: &[u8]) -> Self {
        let mut scans = Self::default();
        let (mut at, mut components) = (0, 0);
        while let Some(next) = bytes[at..].iter().position(|&b| b == 0xff) {
            at += next + 1;
            let Some(&marker) = bytes.get(at) else { break };
            // Stuffed bytes, fill bytes, restarts and whatever else has no length.
            if matches!(marker, 0x00..=0xbf | 0xd0..=0xd8 | 0xff) {
                continue;
            }
            let segment = &bytes[at + 1..];
            match marker {
                0xd9 => break,
                0xc0..=0xc3 => {
                    components = segment.get(7).copied().unwrap_or_default();
                    scans.several |= marker == 0xc2;
                }
                0xda => {
                    scans.count += 1;
                    scans.several |= segment.get(2).is_some_and(|&n| n < components);
                }
                _ => {}
            }
            let length = segment.first_chunk().map_or(0, |&bytes| usize::from(u16::from_be_bytes(bytes)));
            at = (at + 1 + length).min(bytes.len());
        }
        scans
    }
}

/// A file that ends too early is an error; the decoder would make up an end.
struct Strict<'a>(&'a [u8]);

impl Read for Strict<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Strict<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() { Err(io::Error::other("the file ends too early")) } else { Ok(self.0) }
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let said = payload.downcast_ref::<String>().map(String::as_str);
    match said.or(payload.downcast_ref::<&str>().copied()) {
        // libjpeg's words for what `Strict` says.
        Some(said) if said.contains("Input file read error") => "JPEG: the file ends too early".into(),
        Some(said) => format!("JPEG: {}", said.trim_start_matches("libjpeg fatal error: ")),
        None => "JPEG: the decoder gave up".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the largest limit, errors as they are shown.
    fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
        super::decode(bytes, MAX_BYTES / 3).map_err(|refusal| match refusal {
            Refusal::Pixels { width, height } => format!("{width}x{height} pixels"),
            Refusal::Other(message) => message,
        })
    }

    const BASELINE: &[u8] = include_bytes!("../../tests/fixtures/preprocess/rgb_420.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/fixtures/preprocess/progressive_420.jpg");
    const END: [u8; 2] = [0xff, 0xd9];

    fn find(bytes: &[u8], marker: u8) -> usize {
        bytes.windows(2).rposition(|pair| pair == [0xff, marker]).unwrap()
    }

    /// With the size in its header changed.
    fn claiming(bytes: &[u8], frame: u8, width: u16, height: u16) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let at = find(&bytes, frame);
        bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
        bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
        bytes
    }

    #[test]
    fn scans_are_counted() {
        assert_eq!(Scans::of(BASELINE), Scans { count: 1, several: false });
        // libjpeg's script for colour photos.
        assert_eq!(Scans::of(PROGRESSIVE), Scans { count: 10, several: true });
        assert_eq!(Scans::of(&[0xff]), Scans::default());
        assert_eq!(Scans::of(&[0xff, 0xd8, 0xff, 0xda]), Scans { count: 1, several: false });
    }

    #[test]
    fn thousands_of_scans_are_refused() {
        let body = PROGRESSIVE.strip_suffix(&END).unwrap();
        let last = &body[find(body, 0xda)..];
        let with = |scans: usize| decode(&[body, &last.repeat(scans), &END].concat());
        assert_eq!(with(0).unwrap().dimensions(), (61, 45));
        let message = with(5000).unwrap_err();
        assert!(message.contains("5010 scans"), "{message}");
    }

    #[test]
    fn what_would_take_too_much_memory_is_refused() {
        for (bytes, frame, width, height) in [
            (BASELINE, 0xc0, 60_000, 60_000),
            (BASELINE, 0xc0, 65_535, 3),
            (PROGRESSIVE, 0xc2, 12_000, 12_000),
        ] {
            let message = decode(&claiming(bytes, frame, width, height)).unwrap_err();
            assert!(
                message.contains(&format!("{width}x{height} pixels")) || message.contains("65500"),
                "{message}"
            );
        }
        assert!(check(12_000, 12_000, 3, &Scans { count: 1, several: false }, MAX_BYTES / 3).is_ok());
    }

    #[test]
    fn errors_are_libjpegs_words() {
        let mut bytes = BASELINE.to_vec();
        let at = find(&bytes, 0xc0);
        bytes[at + 4] = 12;
        assert_eq!(decode(&bytes).unwrap_err(), "JPEG: Unsupported JPEG data precision 12");
        assert_eq!(decode(&BASELINE[..500]).unwrap_err(), "JPEG: the file ends too early");
        assert!(decode(&[0xff, 0xd8, 0xff, 0xd9]).is_err());
    }
}
