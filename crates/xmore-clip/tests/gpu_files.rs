//! Image files decoded on a GPU have nearly the embeddings that they have when the processor decodes them. Needs an NVIDIA GPU: elsewhere the tests say that
//! they are skipped, or fail where `XMORE_REQUIRE_GPU` is set.

use std::path::{Path, PathBuf};

use mozjpeg::{ColorSpace, Compress};
use xmore_clip::{ClipError, Decoding, DeviceChoice, Embeddings, LoadOptions, Model, Precision, ResizeMode};
use xmore_files::image::Orientation;

/// Towers of patches and of convolutions.
const MODELS: [&str; 2] = ["clip/vit_gelu/open_clip", "clip/rn/openai.pt"];
const BOUND: f32 = 0.999;

fn fixture(name: &str) -> PathBuf {
    std::env::var_os("XMORE_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from)
        .join(name)
}

/// A model on the GPU that decodes there; `None`, said aloud, without a GPU or without nvJPEG.
fn on_gpu(name: &str, precision: Precision) -> Option<Model> {
    let mut options = LoadOptions::default();
    (options.device, options.decoding, options.precision) = (DeviceChoice::Cuda(0), Decoding::Gpu, precision);
    let model = Model::load_with(fixture(name), &options);
    let tried = model.and_then(|model| model.decode_files(&[]).map(|_| ()).map(|()| model));
    match tried {
        Ok(model) => Some(model),
        Err(error @ ClipError::Device(_)) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            println!("SKIPPED: no NVIDIA GPU: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
struct Kind {
    space: ColorSpace,
    chroma: (u8, u8),
    progressive: bool,
}

const PLAIN: Kind = Kind { space: ColorSpace::JCS_RGB, chroma: (2, 2), progressive: false };
const KINDS: [Kind; 4] = [
    PLAIN,
    Kind { chroma: (1, 1), ..PLAIN },
    Kind { progressive: true, ..PLAIN },
    Kind { space: ColorSpace::JCS_GRAYSCALE, chroma: (1, 1), progressive: false },
];

/// A picture that is another one when it is turned or mirrored.
fn jpeg(width: usize, height: usize, kind: Kind) -> Vec<u8> {
    let channels = match kind.space {
        ColorSpace::JCS_GRAYSCALE => 1,
        ColorSpace::JCS_CMYK => 4,
        _ => 3,
    };
    let value = |i: usize| {
        let (x, y, c) = (i / channels % width, i / channels / width, i % channels);
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let light = 200.0 * x * x + 55.0 * y;
        let stripe = if (y * 5.0) as usize == 1 && x < 0.6 { -120.0 } else { 0.0 };
        let spot = if (x - 0.75).powi(2) + (y - 0.8).powi(2) < 0.02 { 90.0 } else { 0.0 };
        (light + stripe + spot + 25.0 * c as f32).clamp(0.0, 255.0) as u8
    };
    let pixels: Vec<u8> = (0..width * height * channels).map(value).collect();
    let mut jpeg = Compress::new(kind.space);
    jpeg.set_fastest_defaults();
    jpeg.set_size(width, height);
    jpeg.set_quality(92.0);
    if channels == 3 {
        jpeg.set_chroma_sampling_pixel_sizes(kind.chroma, kind.chroma);
    }
    if kind.progressive {
        jpeg.set_progressive_mode();
    }
    let mut jpeg = jpeg.start_compress(Vec::new()).unwrap();
    jpeg.write_scanlines(&pixels).unwrap();
    jpeg.finish().unwrap()
}

/// The file with an Exif block that tells its orientation.
fn oriented(file: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
    exif[25] = orientation;
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&file[..2], &[0xff, 0xe1], &length, &exif, &file[2..]].concat()
}

fn orientations() -> Vec<Vec<u8>> {
    let file = jpeg(160, 120, Kind { chroma: (1, 1), ..PLAIN });
    (1..=8).map(|orientation| oriented(&file, orientation)).collect()
}

/// Embeddings of files that the processor decodes.
fn by_processor(model: &Model, files: &[Vec<u8>]) -> Embeddings {
    let load = |file: &Vec<u8>| model.preprocess().load_bytes(file, Path::new("a file")).unwrap();
    let pixels: Vec<_> = files.iter().map(|file| load(file).pixels).collect();
    model.encode_images(&pixels).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares the files, all of which the GPU decodes, with those that the processor decodes. Both are encoded on the GPU.
fn check(model: &Model, files: &[Vec<u8>], what: &str) {
    let expected = by_processor(model, files);
    let bytes: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let decoded = model.decode_files(&bytes).unwrap().expect("a GPU decodes");
    let found = decoded.encode().unwrap();
    let mut indices: Vec<usize> = decoded.files().iter().map(|file| file.index).collect();
    let mut least = 1f32;
    for (file, row) in decoded.files().iter().zip(found.rows()) {
        let cosine = cosine(row, expected.row(file.index));
        assert!(cosine >= BOUND, "{what}: file {} has cosine {cosine}", file.index);
        least = least.min(cosine);
        let loaded = model.preprocess().load_bytes(&files[file.index], Path::new("a file")).unwrap();
        assert_eq!(file.far_from_square, loaded.far_from_square, "{what}: file {}", file.index);
    }
    indices.sort_unstable();
    assert_eq!(indices, (0..files.len()).collect::<Vec<_>>(), "{what}");
    println!("{what}: least cosine {least}");
}

/// Without a card: what the other tests compare would show a wrong turn.
#[test]
fn embeddings_tell_the_orientations_apart() {
    for name in MODELS {
        let rows = by_processor(&Model::load(fixture(name)).unwrap(), &orientations());
        for a in 0..8 {
            for b in 0..a {
                let cosine = cosine(rows.row(a), rows.row(b));
                assert!(cosine < BOUND, "{name}: orientations {} and {} have {cosine}", a + 1, b + 1);
            }
        }
    }
}

#[test]
fn every_kind_and_size_and_resize_mode_agrees_with_the_processor() {
    let sizes = [(640, 480), (333, 500), (64, 64), (900, 130), (30, 21), (8, 300)];
    for name in MODELS {
        let Some(mut model) = on_gpu(name, Precision::F32) else { return };
        for mode in ResizeMode::ALL {
            model.set_resize_mode(mode);
            for kind in KINDS {
                let files: Vec<_> = sizes.iter().map(|&(width, height)| jpeg(width, height, kind)).collect();
                check(&model, &files, &format!("{name}, {}, {kind:?}", mode.name()));
            }
        }
    }
}

#[test]
fn every_orientation_agrees_with_the_processor() {
    for name in MODELS {
        let Some(mut model) = on_gpu(name, Precision::F32) else { return };
        for mode in ResizeMode::ALL {
            model.set_resize_mode(mode);
            for orientation in [Orientation::Exif, Orientation::Stored] {
                model.set_orientation(orientation);
                check(&model, &orientations(), &format!("{name}, {}, {orientation}", mode.name()));
            }
        }
    }
}

#[test]
fn files_that_the_gpu_does_not_decode_are_left_to_the_caller() {
    let Some(model) = on_gpu(MODELS[0], Precision::F32) else { return };
    let good = jpeg(320, 240, PLAIN);
    let png = std::fs::read(fixture("images/wide.png")).unwrap();
    let cmyk = jpeg(64, 64, Kind { space: ColorSpace::JCS_CMYK, chroma: (1, 1), progressive: false });
    let files: [&[u8]; 8] =
        [&good, &good[..good.len() / 2], &png, &good, &cmyk, b"", b"no picture", &good[..good.len() - 2]];
    let decoded = model.decode_files(&files).unwrap().expect("a GPU decodes");
    let mut indices: Vec<usize> = decoded.files().iter().map(|file| file.index).collect();
    let found = decoded.encode().unwrap();
    let expected = by_processor(&model, std::slice::from_ref(&good));
    assert_eq!(found.rows().len(), 2);
    assert!(found.rows().all(|row| cosine(row, expected.row(0)) >= BOUND));
    indices.sort_unstable();
    assert_eq!(indices, [0, 3]);
    let none = model.decode_files(&files[4..]).unwrap().expect("a GPU decodes");
    assert_eq!((none.files().len(), none.encode().unwrap().rows().len()), (0, 0));
}

#[test]
fn batches_of_any_size_agree_and_may_be_decoded_while_others_are_encoded() {
    for precision in [Precision::F32, Precision::F16] {
        let Some(model) = on_gpu(MODELS[0], precision) else { return };
        let kinds = (0..300).map(|i| jpeg(40 + i, 340 - i, KINDS[i % KINDS.len()]));
        let files: Vec<Vec<u8>> = kinds.collect();
        let expected = by_processor(&model, &files);
        let bytes: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        // The second and third time passes are recorded, and started as recorded.
        for count in [300, 1, 2, 33, 256, 257, 300, 300, 300] {
            let batches: Vec<_> = bytes.chunks(count).take(3).collect();
            let mut decoded = model.decode_files(batches[0]).unwrap();
            for n in 0..batches.len() {
                let this = decoded.take().expect("a GPU decodes");
                let found = std::thread::scope(|scope| {
                    let encoded = scope.spawn(|| this.encode().unwrap());
                    decoded = batches.get(n + 1).and_then(|batch| model.decode_files(batch).unwrap());
                    encoded.join().unwrap()
                });
                assert_eq!(this.files().len(), batches[n].len());
                for (file, row) in this.files().iter().zip(found.rows()) {
                    let image = n * count + file.index;
                    let cosine = cosine(row, expected.row(image));
                    assert!(cosine >= BOUND, "image {image} in batches of {count}: {cosine}");
                }
            }
        }
    }
}

#[test]
fn a_processor_decodes_no_batches_and_no_gpu_decodes_for_it() {
    let model = Model::load(fixture(MODELS[0])).unwrap();
    assert!(model.decode_files(&[&jpeg(20, 20, PLAIN)]).unwrap().is_none());
    let mut options = LoadOptions::default();
    options.decoding = Decoding::Gpu;
    let error = Model::load_with(fixture(MODELS[0]), &options).err().expect("no GPU computes");
    assert!(matches!(error, ClipError::Decoding), "{error}");
}
