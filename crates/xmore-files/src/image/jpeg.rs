//! JPEG to RGB through libjpeg-turbo's C (MozJPEG's copy), as Pillow does: the `image` crate's decoder rounds otherwise, so that up to
//! a fifth of a photo's bytes would not be those that CLIP was trained and published with.

use std::any::Any;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation as Turn;
use mozjpeg::decompress::DecompressStarted;
use mozjpeg::{ColorSpace, Decompress};

use super::canvas::Canvas;
use super::input::{Input, Picture};
use super::{ImageError, exif};

/// Scans of a file: libjpeg-turbo's own fuzzers stop there. Encoders write about ten.
const MAX_SCANS: u64 = 500;
/// Coefficients to look at for each pixel that is allowed, in all scans together: each scan of a progressive file goes over the whole image,
/// even if it says nothing.
const MAX_VISITS: u64 = 60;
/// Allowed pixels for which visits are counted at most.
const MAX_VISITED: u64 = (512 << 20) / 3;
/// What the decoder takes besides coefficients: rows, tables, and its copy of the file's end.
const DECODER_BYTES: u64 = 1 << 20;

/// Decodes a JPEG file's bytes.
pub(super) fn decode(input: &Input) -> Result<Picture, ImageError> {
    // The C code reports errors by unwinding, past the panic hook: nothing is printed.
    catch_unwind(AssertUnwindSafe(|| decode_unwinding(input)))
        .unwrap_or_else(|payload| Err(input.broken(message(payload.as_ref()))))
}

fn decode_unwinding(input: &Input) -> Result<Picture, ImageError> {
    let said = |e: io::Error| input.broken(e);
    let jpeg = Decompress::new_reader(Strict(input.bytes)).map_err(said)?;
    let (width, height) = jpeg.size();
    let components: Vec<(u64, u64)> = jpeg
        .components()
        .iter()
        .map(|component| (component.h_samp_factor as u64, component.v_samp_factor as u64))
        .collect();
    let scans = Scans::of(input.bytes);
    // Rows before upsampling and after, of up to 4 components, for the largest block of rows.
    let rows = 4 * 4 * 16 * width as u64;
    let coefficients =
        if scans.several { coefficient_bytes(width as u64, height as u64, &components) } else { 0 };
    let reservation = input.admit(width as u32, height as u32, coefficients + rows + DECODER_BYTES)?;
    check_work(input, width as u64, height as u64, components.len() as u64, &scans)?;
    let turn = turn(input);
    let mut canvas = Canvas::new(width as u32, height as u32, turn);
    match components.len() {
        1 | 3 => {
            let mut jpeg = jpeg.rgb().map_err(said)?;
            match canvas.whole() {
                Some(whole) => {
                    jpeg.read_scanlines_into::<u8>(whole).map_err(said)?;
                }
                None => by_rows(&mut jpeg, 3, width, height, |y, rows| canvas.put(y, rows)).map_err(said)?,
            }
            jpeg.finish().map_err(said)?;
        }
        4 => {
            let mut jpeg = jpeg.to_colorspace(ColorSpace::JCS_CMYK).map_err(said)?;
            by_rows(&mut jpeg, 4, width, height, |y, rows| {
                let rgb: Vec<u8> =
                    rows.as_chunks::<4>().0.iter().flat_map(|&pixel| from_cmyk(pixel)).collect();
                canvas.put(y, &rgb);
            })
            .map_err(said)?;
            jpeg.finish().map_err(said)?;
        }
        n => return Err(input.broken(format_args!("{n} color components; 1, 3 and 4 are known"))),
    }
    Ok(Picture { image: canvas.finish(), several: false, reservation })
}

/// The turn that the file's Exif data asks for, where it is wanted.
fn turn(input: &Input) -> Turn {
    input.turn(|| exif::in_jpeg(input.bytes).map_or(Turn::NoTransforms, exif::turn_of))
}

/// What a JPEG file's markers say, for a decoder other than this crate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JpegHeader {
    /// Width of the stored image.
    pub width: u32,
    /// Height of the stored image.
    pub height: u32,
    /// What makes the stored image upright.
    pub turn: Turn,
}

/// Reads a file's markers and checks what they say against the limits, but that of memory.
pub(super) fn header(input: &Input) -> Result<JpegHeader, ImageError> {
    let scans = Scans::of(input.bytes);
    let Frame { width, height, components } = scans.frame;
    input.check_size(width, height)?;
    check_work(input, width, height, components, &scans)?;
    Ok(JpegHeader { width: width as u32, height: height as u32, turn: turn(input) })
}

/// Reads some rows at a time and hands them on with the index of the first.
fn by_rows<R: BufRead>(
    jpeg: &mut DecompressStarted<R>,
    channels: usize,
    width: usize,
    height: usize,
    mut take: impl FnMut(usize, &[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; Canvas::ROWS * width * channels];
    for y in (0..height).step_by(Canvas::ROWS) {
        let rows = &mut buffer[..Canvas::ROWS.min(height - y) * width * channels];
        take(y, jpeg.read_scanlines_into::<u8>(rows)?);
    }
    Ok(())
}

/// Pillow's arithmetic, which takes inks for inverted, as Adobe writes them.
fn from_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(k) + 128;
        k.saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}

/// Bytes of all coefficients, which are kept where several scans add to them: two each, in whole blocks of the largest sampling.
fn coefficient_bytes(width: u64, height: u64, components: &[(u64, u64)]) -> u64 {
    let most = |of: fn(&(u64, u64)) -> u64| components.iter().map(of).max().unwrap_or(1).max(1);
    let blocks = width.div_ceil(8 * most(|c| c.0)) * height.div_ceil(8 * most(|c| c.1));
    components.iter().map(|(h, v)| blocks * h * v * 64 * 2).sum()
}

/// Refuses files whose scans ask for too much time.
fn check_work(
    input: &Input,
    width: u64,
    height: u64,
    components: u64,
    scans: &Scans,
) -> Result<(), ImageError> {
    let allowed = MAX_VISITS * input.options.max_pixels.min(MAX_VISITED);
    if scans.count > MAX_SCANS || scans.count * width * height * components > allowed {
        let message = format!("{} scans over {width}x{height} pixels, more than is decoded", scans.count);
        return Err(input.broken(message));
    }
    Ok(())
}

/// The scans that the markers announce.
#[derive(Debug, Default, PartialEq)]
struct Scans {
    count: u64,
    /// Progressive, or a component at a time.
    several: bool,
    /// What the last frame header says; zeros without one.
    frame: Frame,
}

/// A frame header.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Frame {
    width: u64,
    height: u64,
    components: u64,
}

impl Frame {
    /// Reads a segment, its length included.
    fn of(segment: &[u8]) -> Option<Self> {
        let &[_, _, _, y1, y0, x1, x0, components] = segment.first_chunk()?;
        let number = |bytes| u64::from(u16::from_be_bytes(bytes));
        Some(Self { width: number([x1, x0]), height: number([y1, y0]), components: components.into() })
    }
}

impl Scans {
    /// Goes from marker to marker, as libjpeg does.
    fn of(bytes: &[u8]) -> Self {
        let mut scans = Self::default();
        let mut at = 0;
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
                    scans.frame = Frame::of(segment).unwrap_or_default();
                    scans.several |= marker == 0xc2;
                }
                0xda => {
                    scans.count += 1;
                    scans.several |= segment.get(2).is_some_and(|&n| u64::from(n) < scans.frame.components);
                }
                _ => {}
            }
            let length = segment.first_chunk().map_or(0, |&bytes| usize::from(u16::from_be_bytes(bytes)));
            at = (at + 1 + length).min(bytes.len());
        }
        scans
    }
}

/// A file that ends too early is an error; the decoder would supply an end.
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
        // libjpeg's message for the error of `Strict`.
        Some(said) if said.contains("Input file read error") => "the file ends too early".into(),
        Some(said) => said.trim_start_matches("libjpeg fatal error: ").into(),
        None => "the decoder failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Alpha, DecodeOptions, Orientation, decode_bytes, inspect_jpeg};
    use super::*;

    /// As `rgb_420.jpg` and `progressive_420.jpg` of xmore-clip's preprocessing tests.
    const BASELINE: &[u8] = include_bytes!("../../tests/fixtures/jpeg/rgb_420.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/fixtures/jpeg/progressive_420.jpg");
    const END: [u8; 2] = [0xff, 0xd9];

    fn decode(bytes: &[u8]) -> Result<image::RgbImage, String> {
        decode_bytes(bytes, Path::new("a.jpg"), Alpha::Drop, &DecodeOptions::default())
            .map(|decoded| decoded.into_image())
            .map_err(|error| error.to_string())
    }

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
        let frame = Frame { width: 61, height: 45, components: 3 };
        assert_eq!(Scans::of(BASELINE), Scans { count: 1, several: false, frame });
        // libjpeg's script for color photos.
        assert_eq!(Scans::of(PROGRESSIVE), Scans { count: 10, several: true, frame });
        assert_eq!(Scans::of(&[0xff]), Scans::default());
        assert_eq!(Scans::of(&[0xff, 0xd8, 0xff, 0xda]), Scans { count: 1, ..Scans::default() });
    }

    #[test]
    fn headers_are_read_for_other_decoders_within_the_limits() {
        let read = |bytes: &[u8]| inspect_jpeg(bytes, &DecodeOptions::default());
        let plain = JpegHeader { width: 61, height: 45, turn: Turn::NoTransforms };
        assert_eq!(read(BASELINE), Some(plain));
        assert_eq!(read(PROGRESSIVE), Some(plain));
        let body = PROGRESSIVE.strip_suffix(&END).unwrap();
        let scans = body[find(body, 0xda)..].repeat(5000);
        assert_eq!(read(&[body, &scans, &END].concat()), None);
        assert_eq!(read(&claiming(BASELINE, 0xc0, 60_000, 60_000)), None);
        assert_eq!(read(&claiming(BASELINE, 0xc0, 60_000, 0)), None);
        assert_eq!(read(b"no JPEG"), None);
    }

    #[test]
    fn a_header_has_the_turn_that_is_wanted() {
        let exif =
            [&b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"[..], &[0; 4]].concat();
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let turned = [&BASELINE[..2], &[0xff, 0xe1], &length, &exif, &BASELINE[2..]].concat();
        for (orientation, turn) in
            [(Orientation::Exif, Turn::Rotate90), (Orientation::Stored, Turn::NoTransforms)]
        {
            let options = DecodeOptions::with_orientation(orientation);
            assert_eq!(inspect_jpeg(&turned, &options), Some(JpegHeader { width: 61, height: 45, turn }));
        }
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
            (PROGRESSIVE, 0xc2, 30_000, 30_000),
        ] {
            let message = decode(&claiming(bytes, frame, width, height)).unwrap_err();
            assert!(
                message.contains(&format!("{width}x{height} pixels")) || message.contains("65500"),
                "{message}"
            );
        }
    }

    #[test]
    fn coefficients_are_counted_in_whole_blocks_of_the_largest_sampling() {
        let full = |width, height| coefficient_bytes(width, height, &[(1, 1), (1, 1), (1, 1)]);
        assert_eq!(full(8, 8), 8 * 8 * 3 * 2);
        assert_eq!(full(9, 8), 2 * 8 * 8 * 3 * 2);
        assert_eq!(coefficient_bytes(17, 16, &[(2, 2), (1, 1), (1, 1)]), 2 * (16 * 16 + 2 * 8 * 8) * 2);
        assert_eq!(coefficient_bytes(8, 8, &[]), 0);
    }

    #[test]
    fn errors_are_libjpegs_words() {
        let mut bytes = BASELINE.to_vec();
        let at = find(&bytes, 0xc0);
        bytes[at + 4] = 12;
        assert_eq!(
            decode(&bytes).unwrap_err(),
            "cannot decode the image: JPEG: Unsupported JPEG data precision 12"
        );
        assert_eq!(
            decode(&BASELINE[..500]).unwrap_err(),
            "cannot decode the image: JPEG: the file ends too early"
        );
        assert!(decode(&[0xff, 0xd8, 0xff, 0xd9]).is_err());
    }
}
