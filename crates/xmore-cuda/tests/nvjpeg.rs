//! JPEG files decoded on a card are near what libjpeg gives; what is not a proper file is an error of its own. Without a card these tests are
//! skipped.

mod common;

use mozjpeg::{ColorSpace, Compress, Decompress};
use xmore_cuda::{
    Buffer, CudaError, Decoded, Device, JpegDecoder, JpegError, Limits, Pixels, ResizeImage, Resizer, Stream,
    Taps,
};

/// Differences from the processor's pixels at most, on average, of 255.
const TOLERANCE: f64 = 2.0;
const LIMITS: Limits = Limits { image_pixels: 4 << 20, batch_pixels: 64 << 20 };

/// How a file is written.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Rgb { chroma: (u8, u8), progressive: bool },
    Gray,
    Cmyk,
}

const PLAIN: Kind = Kind::Rgb { chroma: (2, 2), progressive: false };

/// A smooth picture with edges, in so many channels.
fn picture(width: usize, height: usize, channels: usize) -> Vec<u8> {
    let value = |i: usize| {
        let (x, y, c) = (i / channels % width, i / channels / width, i % channels);
        let wave = ((x as f64 / 19.0 + c as f64).sin() + (y as f64 / 23.0).cos()) * 50.0 + 128.0;
        let edge = if (x / 32 + y / 24) % 2 == c % 2 { 25.0 } else { -25.0 };
        (wave + edge) as u8
    };
    (0..width * height * channels).map(value).collect()
}

fn encode(width: usize, height: usize, kind: Kind) -> Vec<u8> {
    let (space, channels) = match kind {
        Kind::Rgb { .. } => (ColorSpace::JCS_RGB, 3),
        Kind::Gray => (ColorSpace::JCS_GRAYSCALE, 1),
        Kind::Cmyk => (ColorSpace::JCS_CMYK, 4),
    };
    let mut jpeg = Compress::new(space);
    jpeg.set_fastest_defaults();
    jpeg.set_size(width, height);
    jpeg.set_quality(90.0);
    if let Kind::Rgb { chroma, progressive } = kind {
        jpeg.set_chroma_sampling_pixel_sizes(chroma, chroma);
        if progressive {
            jpeg.set_progressive_mode();
        }
    }
    let mut jpeg = jpeg.start_compress(Vec::new()).expect("an encoder");
    jpeg.write_scanlines(&picture(width, height, channels)).expect("rows");
    jpeg.finish().expect("a file")
}

fn by_libjpeg(file: &[u8]) -> Vec<u8> {
    let mut jpeg = Decompress::new_mem(file).and_then(Decompress::rgb).expect("a JPEG file");
    let pixels = jpeg.read_scanlines::<u8>().expect("pixels");
    jpeg.finish().expect("the end");
    pixels
}

/// A decoder with four threads; none where nvJPEG is not installed.
fn decoder(device: &Device) -> Option<JpegDecoder> {
    match JpegDecoder::new(device, 4, LIMITS) {
        Ok(decoder) => {
            println!("JPEG engines: {}", decoder.engines());
            Some(decoder)
        }
        Err(error @ CudaError::NoLibrary { .. }) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn read(decoder: &JpegDecoder, stream: &Stream, image: &Decoded) -> Vec<u8> {
    let mut pixels = vec![0u8; image.width * image.height * 3];
    decoder.pixels().read(stream, image.offset, &mut pixels).expect("pixels");
    pixels
}

/// The mean difference of bytes.
fn difference(found: &[u8], expected: &[u8]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let sum: u64 = found.iter().zip(expected).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / found.len() as f64
}

/// Decodes whole files and compares each with the processor's pixels.
fn check(decoder: &mut JpegDecoder, stream: &Stream, files: &[(String, Vec<u8>)]) {
    let bytes: Vec<&[u8]> = files.iter().map(|(_, file)| file.as_slice()).collect();
    let results = decoder.decode(stream, &bytes).expect("a batch");
    for ((name, file), result) in files.iter().zip(&results) {
        let image = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mean = difference(&read(decoder, stream, &image), &by_libjpeg(file));
        println!("{name}: mean difference {mean:.3}");
        assert!(mean < TOLERANCE, "{name}: mean difference {mean}");
    }
}

/// What the other tests need of their files: without a card, too.
#[test]
fn files_are_of_their_kinds() {
    let kinds = [
        (PLAIN, 0xc0, vec![0x22, 0x11, 0x11]),
        (Kind::Rgb { chroma: (1, 1), progressive: false }, 0xc0, vec![0x11, 0x11, 0x11]),
        (Kind::Rgb { chroma: (2, 1), progressive: false }, 0xc0, vec![0x21, 0x11, 0x11]),
        (Kind::Rgb { chroma: (2, 2), progressive: true }, 0xc2, vec![0x22, 0x11, 0x11]),
        (Kind::Gray, 0xc0, vec![0x11]),
        (Kind::Cmyk, 0xc0, vec![0x11; 4]),
    ];
    for (kind, marker, sampling) in kinds {
        let file = encode(50, 40, kind);
        let frame = file.windows(2).position(|pair| pair == [0xff, marker]).expect("a frame header");
        let components = file[frame + 10..].chunks_exact(3).take(usize::from(file[frame + 9]));
        assert_eq!(components.map(|component| component[1]).collect::<Vec<_>>(), sampling, "{kind:?}");
        if !matches!(kind, Kind::Cmyk) {
            assert_eq!(by_libjpeg(&file).len(), 50 * 40 * 3, "{kind:?}");
        }
    }
}

#[test]
fn every_kind_and_size_is_near_libjpegs_pixels() {
    let Some(device) = common::device() else { return };
    let Some(mut decoder) = decoder(&device) else { return };
    let stream = Stream::new(&device).expect("a stream");
    let sizes = [(640, 480), (333, 257), (16, 16), (1, 1), (17, 3), (8, 500), (1921, 1081)];
    let kinds = [
        PLAIN,
        Kind::Rgb { chroma: (1, 1), progressive: false },
        Kind::Rgb { chroma: (2, 1), progressive: false },
        Kind::Rgb { chroma: (2, 2), progressive: true },
        Kind::Gray,
    ];
    for kind in kinds {
        let files: Vec<_> = sizes
            .iter()
            .map(|&(width, height)| (format!("{width} x {height}, {kind:?}"), encode(width, height, kind)))
            .collect();
        check(&mut decoder, &stream, &files[..1]);
        check(&mut decoder, &stream, &files);
    }
    let mixed: Vec<_> = (0..100)
        .map(|i| {
            let (width, height, kind) = (50 + 7 * i, 400 - 3 * i, kinds[i % kinds.len()]);
            (format!("{width} x {height}, {kind:?}"), encode(width, height, kind))
        })
        .collect();
    check(&mut decoder, &stream, &mixed);
}

/// The file with another size in its frame header.
fn resized(file: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut file = file.to_vec();
    let frame = file.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a frame header");
    file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    file
}

#[test]
fn files_that_are_not_decoded_are_errors_of_their_own() {
    let Some(device) = common::device() else { return };
    let Some(mut decoder) = decoder(&device) else { return };
    let stream = Stream::new(&device).expect("a stream");
    let good = encode(320, 240, PLAIN);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no JPEG", b"a text that is no picture".to_vec()),
        ("cut in the header", good[..100].to_vec()),
        ("cut in the scan", good[..good.len() / 2].to_vec()),
        ("without its end", good[..good.len() - 2].to_vec()),
        ("CMYK", encode(64, 64, Kind::Cmyk)),
        ("of a huge size", resized(&good, u16::MAX, u16::MAX)),
        ("without a height", resized(&good, 320, 0)),
    ];
    let files: Vec<&[u8]> = bad.iter().flat_map(|(_, file)| [file.as_slice(), &good]).collect();
    let results = decoder.decode(&stream, &files).expect("a batch");
    let expected = by_libjpeg(&good);
    for ((name, _), pair) in bad.iter().zip(results.chunks_exact(2)) {
        println!("{name}: {:?}", pair[0]);
        assert!(pair[0].is_err(), "a file {name}");
        let image = pair[1].expect("a good file beside a bad one");
        let mean = difference(&read(&decoder, &stream, &image), &expected);
        assert!(mean < TOLERANCE, "beside a file {name}: mean difference {mean}");
    }
    let huge = JpegError::TooLarge { width: 65_535, height: 65_535, limit: LIMITS.image_pixels };
    assert_eq!(results[12], Err(huge));
}

#[test]
fn a_batch_has_no_more_pixels_than_allowed() {
    let Some(device) = common::device() else { return };
    let limits = Limits { image_pixels: 100 * 100, batch_pixels: 2 * 100 * 100 };
    let Ok(mut decoder) = JpegDecoder::new(&device, 1, limits) else { return };
    let stream = Stream::new(&device).expect("a stream");
    let file = encode(100, 100, PLAIN);
    let results = decoder.decode(&stream, &[file.as_slice(); 3]).expect("a batch");
    assert!(results[..2].iter().all(Result::is_ok), "{results:?}");
    assert_eq!(results[2], Err(JpegError::BatchFull { limit: limits.batch_pixels }));
}

/// Bytes of the scan are changed, headers of other sizes put before it: whatever becomes of these files, the card goes on.
#[test]
fn changed_files_do_not_stop_the_card() {
    let Some(device) = common::device() else { return };
    let Some(mut decoder) = decoder(&device) else { return };
    let stream = Stream::new(&device).expect("a stream");
    let kinds = [PLAIN, Kind::Rgb { chroma: (1, 1), progressive: true }, Kind::Gray];
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for kind in kinds {
        let good = encode(160, 120, kind);
        let mut files: Vec<Vec<u8>> = (0..60)
            .map(|_| {
                let mut file = good.clone();
                for _ in 0..1 + random(8) {
                    let at = 2 + random(file.len() - 4);
                    file[at] = random(256) as u8;
                }
                file
            })
            .collect();
        if !matches!(kind, Kind::Rgb { progressive: true, .. }) {
            files.extend(
                [(1, 1), (161, 121), (2000, 2000)].map(|(width, height)| resized(&good, width, height)),
            );
        }
        let bytes: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let results = decoder.decode(&stream, &bytes).expect("a batch");
        let decoded = results.iter().filter(|result| result.is_ok()).count();
        println!("{kind:?}: {decoded} of {} changed files were decoded", files.len());
        check(&mut decoder, &stream, &[("a good file behind them".to_owned(), good)]);
    }
}

#[test]
fn decoded_images_are_read_by_the_resize() {
    let Some(device) = common::device() else { return };
    let Some(mut decoder) = decoder(&device) else { return };
    let stream = Stream::new(&device).expect("a stream");
    let (side, left, top) = (24, 5, 7);
    let mut resizer = Resizer::new(&device, side, 0).expect("kernels");
    // A crop: each position is one pixel.
    let crop = |begin: usize| Taps::new(&(begin..begin + side).map(|at| (at, [1 << 22])).collect::<Vec<_>>());
    let (columns, rows) = (crop(left), crop(top));
    for round in 1..4 {
        let sizes: Vec<_> = (0..20 * round).map(|i| (40 + 13 * i, 50 + 3 * i)).collect();
        let files: Vec<_> = sizes.iter().map(|&(width, height)| encode(width, height, PLAIN)).collect();
        let bytes: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let decoded = decoder.decode(&stream, &bytes).expect("a batch");
        let decoded: Vec<Decoded> = decoded.into_iter().map(|image| image.expect("an image")).collect();
        let images: Vec<_> = decoded
            .iter()
            .map(|image| ResizeImage {
                pixels: Pixels::Device {
                    buffer: decoder.pixels(),
                    offset: image.offset,
                    x_step: 3,
                    y_step: image.width as isize * 3,
                },
                width: image.width,
                height: image.height,
                columns: &columns,
                rows: &rows,
                x: 0,
                y: 0,
            })
            .collect();
        let out = Buffer::new(&device, images.len() * resizer.square_bytes()).expect("memory");
        resizer.resize(&stream, &images, &out).expect("a batch");
        let mut squares = vec![0u8; images.len() * resizer.square_bytes()];
        out.read(&stream, 0, &mut squares).expect("squares");
        for (image, square) in decoded.iter().zip(squares.chunks_exact(resizer.square_bytes())) {
            let pixels = read(&decoder, &stream, image);
            for (y, row) in square.chunks_exact(side * 3).enumerate() {
                let at = ((top + y) * image.width + left) * 3;
                assert_eq!(row, &pixels[at..][..side * 3], "row {y} of {image:?}");
            }
        }
    }
}
