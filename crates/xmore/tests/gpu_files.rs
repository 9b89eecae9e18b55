//! Folders of many kinds of files, some of which a GPU decodes, some the processor, some neither: the counts are those of the processor alone, and the
//! embeddings nearly so. Needs an NVIDIA GPU: elsewhere the test says that it is skipped, or fails where `XMORE_REQUIRE_GPU` is set.

use std::path::{Path, PathBuf};

use xmore::{EncodedImages, Encoder, NamedModel, encode_each, encode_files};
use xmore_clip::{ClipError, Decoding, DeviceChoice, LoadOptions, Model};

fn fixtures() -> PathBuf {
    std::env::var_os("XMORE_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures"),
        PathBuf::from,
    )
}

/// A model on the GPU; `None`, said aloud, without a GPU or without nvJPEG.
fn on_gpu(decoding: Decoding) -> Option<NamedModel> {
    let mut options = LoadOptions::default();
    (options.device, options.decoding) = (DeviceChoice::Cuda(0), decoding);
    let model = Model::load_with(fixtures().join("clip/vit_gelu/open_clip"), &options);
    let tried = model.and_then(|model| model.decode_files(&[]).map(|_| ()).map(|()| model));
    match tried {
        Ok(model) => Some(NamedModel::new("fixture", model)),
        Err(error @ ClipError::Device(_)) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            println!("SKIPPED: no NVIDIA GPU: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The fixtures' pictures again and again, and files that are none.
fn files(dir: &Path, count: usize) -> Vec<PathBuf> {
    let pictures = |folder: &str| {
        let entries = std::fs::read_dir(fixtures().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|e| e != "json")).collect::<Vec<_>>()
    };
    let mut all = [pictures("preprocess"), pictures("images")].concat();
    all.sort();
    let cut = dir.join("cut.jpg");
    let whole = std::fs::read(fixtures().join("preprocess/rgb_420.jpg")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let text = dir.join("text.jpg");
    std::fs::write(&text, "no picture").unwrap();
    all.extend([cut, text, dir.join("missing.jpg")]);
    all.into_iter().cycle().take(count).collect()
}

fn reasons(encoded: &EncodedImages) -> Vec<(usize, String)> {
    encoded.failed.iter().map(|(file, why)| (*file, why.to_string())).collect()
}

#[test]
fn rows_counts_and_errors_are_those_of_the_processors_decoders() {
    let (Some(gpu), Some(cpu)) = (on_gpu(Decoding::Gpu), on_gpu(Decoding::Cpu)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), 600);
    let (found, expected) =
        (encode_files(&gpu, &files, &mut |_| {}).unwrap(), encode_files(&cpu, &files, &mut |_| {}).unwrap());
    assert_eq!(found.kept, expected.kept);
    assert_eq!(reasons(&found), reasons(&expected));
    assert_eq!(found.partly_seen, expected.partly_seen);
    let mut least = 1f32;
    for ((&file, a), b) in found.kept.iter().zip(found.embeddings.rows()).zip(expected.embeddings.rows()) {
        let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.99, "{}: {cosine}", files[file].display());
        least = least.min(cosine);
    }
    println!("least cosine {least}");

    // Beside an encoder that has the processor decode.
    let mut batches = Vec::new();
    encode_each(&[&gpu as &dyn Encoder, &cpu], &files, &|| false, &mut |batch| {
        batches.push(batch.end);
        assert_eq!(batch.embeddings[0].len(), batch.kept.len());
        for ((&file, a), b) in
            batch.kept.iter().zip(batch.embeddings[0].rows()).zip(batch.embeddings[1].rows())
        {
            let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            assert!(cosine >= 0.99, "{}: {cosine}", files[file].display());
        }
        true
    })
    .unwrap();
    assert_eq!(batches, [256, 512, 600]);
}
