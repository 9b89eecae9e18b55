//! The library through its public API: a memory is built, and images of every kind are classified alone and together.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore::{
    Answer, AnswerOptions, BuildOptions, Encoder, Labels, Method, NamedModel, OpenPairs, Pipeline,
    QueryImage, XmoreError, build_memory,
};

#[path = "../examples/custom_encoder.rs"]
mod custom_encoder;

#[test]
fn an_encoder_that_is_not_ours_builds_a_memory_and_classifies() {
    custom_encoder::main().unwrap();
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures")
}

/// A pipeline over a memory of small pictures; pictures that are asked about.
fn world(dir: &Path) -> (Pipeline, Vec<PathBuf>) {
    let model: Arc<dyn Encoder> =
        Arc::new(NamedModel::open(&format!("local-dir:{}", fixtures().join("tiny").display())).unwrap());
    let (photos, queries) = (dir.join("photos"), dir.join("queries"));
    fs::create_dir_all(&photos).unwrap();
    fs::create_dir_all(&queries).unwrap();
    let picture = |path: &Path, n: u32| {
        let pixel = |x, y| image::Rgb([n * 29, x * 5, y * (3 + n)].map(|value: u32| (value % 256) as u8));
        image::RgbImage::from_fn(40, 30, pixel).save(path).unwrap();
    };
    for n in 0..9 {
        picture(&photos.join(format!("{n}.png")), n);
        fs::write(photos.join(format!("{n}.txt")), format!("a thing with number {}", n % 4)).unwrap();
    }
    let asked: Vec<PathBuf> = (0..3).map(|n| queries.join(format!("{n}.png"))).collect();
    asked.iter().zip(20..).for_each(|(path, n)| picture(path, n));
    let memory = dir.join("memory");
    let report = build_memory(&*model, &[photos], &memory, &BuildOptions::default(), &mut |_| true).unwrap();
    assert_eq!(report.manifest.unwrap().pairs, 9);
    let pairs = Arc::new(OpenPairs::open(&memory.display().to_string(), &Default::default()).unwrap());
    (Pipeline::builder(model).pairs(pairs).build().unwrap(), asked)
}

#[test]
fn images_of_every_kind_have_one_answer_alone_and_together() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let dir = tempfile::tempdir().unwrap();
    let (pipeline, asked) = world(dir.path());
    shared(&pipeline);
    let labels = || Labels::new(["thing", "number", "zebra"]).unwrap();
    for method in [Method::ZeroShot, Method::Xmore, Method::Kernel] {
        let classifier = pipeline.classifier(labels(), &[method]).unwrap();
        shared(&classifier);
        let options = AnswerOptions { explain: true, ..AnswerOptions::new(method) };
        let ask = |images: &[QueryImage]| -> Vec<Answer> {
            let answers = pipeline.classify(&classifier, images, &options).unwrap();
            answers.into_iter().map(Result::unwrap).collect()
        };
        let paths: Vec<QueryImage> = asked.iter().cloned().map(QueryImage::Path).collect();
        let together = ask(&paths);
        for (i, path) in asked.iter().enumerate() {
            let decoded = image::open(path).unwrap().to_rgb8();
            let row = pipeline.encoder().embed_images(&[pipeline.encoder().prepare(&decoded)]).unwrap();
            for image in [
                paths[i].clone(),
                QueryImage::Bytes(fs::read(path).unwrap()),
                QueryImage::Pixels(decoded),
                QueryImage::Embeddings(vec![row.row(0).to_vec()]),
            ] {
                assert_eq!(ask(&[image]), [together[i].clone()], "{method}");
            }
        }
    }
}

/// More than are encoded at once, of all kinds in turn, some of them broken.
#[test]
fn many_images_keep_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let (pipeline, asked) = world(dir.path());
    let classifier = pipeline.classifier(Labels::new(["thing", "zebra"]).unwrap(), &[Method::Xmore]).unwrap();
    let options = AnswerOptions::new(Method::Xmore);
    let decoded = image::open(&asked[1]).unwrap().to_rgb8();
    let row = pipeline.encoder().embed_images(&[pipeline.encoder().prepare(&decoded)]).unwrap();
    let kinds = [
        QueryImage::Path(asked[0].clone()),
        QueryImage::Embeddings(vec![row.row(0).to_vec()]),
        QueryImage::Bytes(b"no image".to_vec()),
        QueryImage::Bytes(fs::read(&asked[2]).unwrap()),
        QueryImage::Pixels(decoded),
    ];
    let ask = |images: &[QueryImage]| -> Vec<Option<Answer>> {
        pipeline.classify(&classifier, images, &options).unwrap().into_iter().map(Result::ok).collect()
    };
    let alone: Vec<_> = kinds.iter().map(|image| ask(std::slice::from_ref(image)).remove(0)).collect();
    let many: Vec<QueryImage> = kinds.iter().cycle().take(83).cloned().collect();
    let expected: Vec<_> = alone.iter().cycle().take(83).cloned().collect();
    assert_eq!(ask(&many), expected);
    // As a stream, which takes images only when their answers are asked for.
    let mut taken = 0;
    let images = many.iter().cloned().inspect(|_| taken += 1);
    let first: Vec<_> =
        pipeline.classify_stream(&classifier, images, &options).take(40).map(Result::ok).collect();
    assert_eq!(first, expected[..40]);
    assert_eq!(taken, 64, "two batches");
    let streamed = pipeline.classify_stream(&classifier, many.iter().cloned(), &options);
    assert_eq!(streamed.map(Result::ok).collect::<Vec<_>>(), expected);
    assert_eq!(alone.iter().filter(|answer| answer.is_none()).count(), 1);
    assert_eq!(ask(&[]), []);
}

#[test]
fn what_cannot_be_is_told_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (pipeline, asked) = world(dir.path());
    let classifier = pipeline.classifier(Labels::new(["a", "b"]).unwrap(), &[Method::Xmore]).unwrap();
    let images = [
        QueryImage::Path(dir.path().join("missing.png")),
        QueryImage::Path(asked[0].clone()),
        QueryImage::Bytes(b"no image".to_vec()),
        QueryImage::Embeddings(vec![vec![1.0; 3]]),
    ];
    let answers = pipeline.classify(&classifier, &images, &AnswerOptions::new(Method::Xmore)).unwrap();
    let good: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(good, [false, true, false, false]);
    assert!(matches!(answers[3], Err(XmoreError::EmbeddingLengths { .. })));
    let kernel = AnswerOptions::new(Method::Kernel);
    let unprepared = pipeline.classify(&classifier, &images[1..2], &kernel).unwrap();
    assert!(matches!(unprepared[0], Err(XmoreError::MethodNotPrepared { .. })));
    let alone = Pipeline::builder(pipeline.encoder().clone()).build().unwrap();
    let refused = alone.classifier(Labels::new(["a", "b"]).unwrap(), &[Method::Xmore]);
    assert!(matches!(refused, Err(XmoreError::MethodNeedsMemory { .. })));
}
