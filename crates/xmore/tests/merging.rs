//! Builds divided at random, with workers that are stopped and started again: what is merged has the bytes of one build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::{Rgb, RgbImage};
use proptest::prelude::*;
use xmore::{
    BuildOptions, Embeddings, Encoder, ModelIdentity, Part, PartError, Pixels, SkipLimit, TextEmbeddings,
    XmoreError, build_memory, build_part, merge_memories,
};

/// Longest text that is not cut.
const LONGEST: usize = 24;

/// Embeds an image as its first pixel, and a text by its bytes.
struct Plain(ModelIdentity);

impl Plain {
    fn new() -> Self {
        Self(ModelIdentity::new("plain", "00", 4))
    }
}

impl Encoder for Plain {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn logit_scale(&self) -> f32 {
        10.0
    }

    fn prepare(&self, image: &RgbImage) -> Pixels {
        let Rgb(first) = *image.get_pixel(0, 0);
        Pixels::new(first.map(f32::from).into())
    }

    fn embed_images(&self, images: &[Pixels]) -> Result<Embeddings, XmoreError> {
        let row = |pixels: &Pixels| {
            <[f32; 4]>::try_from([pixels.as_slice(), &[9.0]].concat()).expect("four values")
        };
        Ok(unit_rows(images.iter().map(row)))
    }

    fn embed_texts(&self, texts: &[&str]) -> Result<TextEmbeddings, XmoreError> {
        let row = |text: &&str| {
            let mut row = [1.0; 4];
            text.bytes()
                .take(LONGEST)
                .enumerate()
                .for_each(|(i, byte)| row[i % 4] += f32::from(byte) / (1.0 + i as f32));
            row
        };
        let truncated = texts.iter().filter(|text| text.len() > LONGEST).count();
        Ok(TextEmbeddings { embeddings: unit_rows(texts.iter().map(row)), truncated })
    }
}

fn unit_rows(rows: impl Iterator<Item = [f32; 4]>) -> Embeddings {
    let unit = |row: [f32; 4]| row.map(|v| v / row.iter().map(|v| v * v).sum::<f32>().sqrt());
    Embeddings::new(rows.flat_map(unit).collect(), 4)
}

fn options() -> BuildOptions {
    BuildOptions { max_skipped: SkipLimit::ALL, checkpoint_every: Duration::ZERO, ..BuildOptions::default() }
}

/// A picture, or what is none, with its captions.
#[derive(Clone, Debug)]
struct Sample {
    color: [u8; 3],
    is_broken: bool,
    captions: Vec<usize>,
}

impl Sample {
    fn bytes(&self) -> Vec<u8> {
        if self.is_broken {
            return b"no picture".to_vec();
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::from_pixel(2, 2, Rgb(self.color)).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }
}

fn caption(number: usize) -> String {
    match number % 5 {
        0 => format!("a caption of more than {LONGEST} characters, {number}"),
        _ => format!("caption {number}"),
    }
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let captions = prop::collection::vec(0usize..12, 0..4);
    let sample = (any::<[u8; 3]>(), prop::bool::weighted(0.1), captions)
        .prop_map(|(color, is_broken, captions)| Sample { color, is_broken, captions });
    prop::collection::vec(sample, 1..90)
}

/// A table of the samples whose rows are mixed, so that an image's captions lie apart, with some rows twice.
fn table(dir: &Path, samples: &[Sample]) -> PathBuf {
    let mut rows = Vec::new();
    for (i, sample) in samples.iter().enumerate() {
        fs::write(dir.join(format!("{i}.png")), sample.bytes()).unwrap();
        for (place, &number) in sample.captions.iter().enumerate() {
            let row = format!("{i}.png,\"{}\"\n", caption(number));
            rows.push(((i + place * 31) % samples.len(), row));
        }
    }
    rows.sort();
    let mut text = "image_path,caption\n".to_owned();
    for (i, (_, row)) in rows.iter().enumerate() {
        text += row;
        match i % 20 {
            3 => text += "one field\n",
            7 => text += row,
            _ => {}
        }
    }
    fs::write(dir.join("pairs.csv"), text).unwrap();
    dir.join("pairs.csv")
}

/// Tars of so many samples each.
fn tars(dir: &Path, samples: &[Sample], each: usize) -> PathBuf {
    let folder = dir.join("tars");
    fs::create_dir(&folder).unwrap();
    for (number, samples) in samples.chunks(each).enumerate() {
        let mut tar = tar::Builder::new(fs::File::create(folder.join(format!("{number:03}.tar"))).unwrap());
        let mut add = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        for (i, sample) in samples.iter().enumerate() {
            add(format!("{i:03}.png"), &sample.bytes());
            let captions: Vec<String> = sample.captions.iter().map(|&number| caption(number)).collect();
            add(format!("{i:03}.txt"), captions.join("\n").as_bytes());
        }
        tar.finish().unwrap();
    }
    fs::write(folder.join("999.tar"), "no tar, but one of several").unwrap();
    folder
}

/// Every file below a folder but the lock.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(".xmore-lock") {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Builds at once, and in `of` parts, of which a part or a merge is stopped where `stops` says so; compares the two.
fn compare(dir: &Path, sources: &[PathBuf], of: u32, stops: &[bool]) -> Result<(), TestCaseError> {
    let model = Plain::new();
    let whole = dir.join("whole");
    build_memory(&model, sources, &whole, &options(), &mut |_| true).unwrap();
    let mut stops = stops.iter().copied().chain(std::iter::repeat(false));
    let folders: Vec<PathBuf> = (1..=of).map(|number| dir.join(format!("part-{number}-of-{of}"))).collect();
    for (folder, number) in folders.iter().zip(1..) {
        let part = Part::new(number, of).unwrap();
        while let Err(error) =
            build_part(&model, sources, part, folder, &options(), &mut |_| !stops.next().unwrap())
        {
            prop_assert!(matches!(error, XmoreError::Interrupted), "{error}");
        }
        let before = files(folder);
        build_part(&model, sources, part, folder, &options(), &mut |_| true).unwrap();
        prop_assert_eq!(files(folder), before, "a part that is finished stays");
    }
    let merged = dir.join(format!("merged-of-{of}"));
    if !whole.exists() {
        let error = merge_memories(&folders, &merged, Duration::ZERO, &mut |_| true).unwrap_err();
        prop_assert!(matches!(error, XmoreError::Part(PartError::NoPairs { .. })), "{error}");
        return Ok(());
    }
    // In any order.
    let backwards: Vec<&PathBuf> = folders.iter().rev().collect();
    while let Err(error) =
        merge_memories(&backwards, &merged, Duration::ZERO, &mut |_| !stops.next().unwrap())
    {
        prop_assert!(matches!(error, XmoreError::Interrupted), "{error}");
    }
    let (found, expected) = (files(&merged), files(&whole));
    for name in found.keys().chain(expected.keys()) {
        prop_assert!(found.get(name) == expected.get(name), "{} of {of} parts", name.display());
    }
    let again = merge_memories(&folders, &merged, Duration::ZERO, &mut |_| true).unwrap();
    prop_assert!(again.was_complete);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pairs_of_any_sources(
        first in samples(), second in samples(), of in 1u32..9, stops in prop::collection::vec(any::<bool>(), 0..20)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("second");
        fs::create_dir(&folder).unwrap();
        // Some of the pairs of the one are listed by the other again.
        let mut sources = vec![table(dir.path(), &first), table(&folder, &second)];
        let rows: Vec<String> = first.iter().enumerate().take(40)
            .flat_map(|(i, sample)| sample.captions.iter().map(move |&number| format!("{i}.png,\"{}\"\n", caption(number + 1))))
            .collect();
        fs::write(dir.path().join("again.csv"), format!("image_path,caption\n{}", rows.concat())).unwrap();
        sources.push(dir.path().join("again.csv"));
        compare(dir.path(), &sources, of, &stops)?;
    }

    #[test]
    fn tars_by_files_or_by_pairs(
        samples in samples(), each in 1usize..8, of in 1u32..9, stops in prop::collection::vec(any::<bool>(), 0..20)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let sources = [tars(dir.path(), &samples, each)];
        compare(dir.path(), &sources, of, &stops)?;
    }
}

/// What parts are refused for, by the error that merging them gives.
#[test]
fn parts_that_do_not_make_one_build_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<Sample> = (0..60u8)
        .map(|i| Sample { color: [i, 1, 2], is_broken: false, captions: vec![usize::from(i)] })
        .collect();
    let sources = [table(dir.path(), &samples)];
    let path = |name: &str| dir.path().join(name);
    let build = |number: u32, of: u32, name: &str| {
        let part = Part::new(number, of).unwrap();
        build_part(&Plain::new(), &sources, part, &path(name), &options(), &mut |_| true)
    };
    for number in 1..=3 {
        build(number, 3, &format!("{number}")).unwrap();
    }
    build(1, 2, "half").unwrap();
    build(1, 3, "1-again").unwrap();
    let merge = |names: &[&str]| {
        let folders: Vec<PathBuf> = names.iter().map(|name| path(name)).collect();
        match merge_memories(&folders, &path("merged"), Duration::ZERO, &mut |_| true) {
            Err(XmoreError::Part(error)) => error,
            other => panic!("{names:?}: {other:?}"),
        }
    };
    let missing = |error| matches!(error, PartError::Missing { count: 1, of: 3, first } if first == [2]);
    assert!(missing(merge(&["1", "3"])));
    assert!(
        matches!(merge(&["1", "2", "3", "1-again"]), PartError::Twice { part, .. } if part.number() == 1)
    );
    assert!(matches!(merge(&["1", "2", "half"]), PartError::OtherBuild { what: "the number of parts", .. }));
    fs::create_dir(path("empty")).unwrap();
    assert!(matches!(merge(&["1", "empty"]), PartError::NotAPart { .. }));
    assert!(matches!(merge(&[]), PartError::NoPairs { of: 0 }));
    assert!(!path("merged").exists());

    // A folder holds one part, to which nothing is added.
    let error = build(2, 3, "1").unwrap_err();
    assert!(matches!(&error, XmoreError::Part(PartError::OtherPart { differs: None, .. })), "{error}");
    let error = build_memory(&Plain::new(), &sources, &path("1"), &options(), &mut |_| true).unwrap_err();
    assert!(matches!(&error, XmoreError::Part(PartError::IsAPart { .. })), "{error}");

    // One that is not finished.
    let part = Part::new(2, 3).unwrap();
    let stopped = build_part(&Plain::new(), &sources, part, &path("stopped"), &options(), &mut |_| false);
    assert!(matches!(stopped, Err(XmoreError::Interrupted)));
    assert!(matches!(merge(&["1", "stopped", "3"]), PartError::Unfinished { .. }));

    // Of other sources, by another model.
    let other = Plain(ModelIdentity::new("plain", "01", 4));
    build_part(&other, &sources, part, &path("other-model"), &options(), &mut |_| true).unwrap();
    assert!(matches!(merge(&["1", "other-model"]), PartError::OtherBuild { what: "the model", .. }));
    let text = fs::read_to_string(&sources[0]).unwrap();
    fs::write(&sources[0], format!("{text}0.png,one more\n")).unwrap();
    build(2, 3, "grown").unwrap();
    assert!(matches!(merge(&["1", "grown"]), PartError::OtherBuild { what: "what the sources list", .. }));

    // A memory that has changed, and one whose files have.
    let manifest = path("2/xmore_memory.json");
    let kept = fs::read(&manifest).unwrap();
    fs::write(&manifest, [&kept[..], b" "].concat()).unwrap();
    assert!(matches!(merge(&["1", "2", "3"]), PartError::Changed { .. }));
    fs::write(&manifest, kept).unwrap();
    let rows = path("2/img_emb/img_emb_0000.npy");
    let mut bytes = fs::read(&rows).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&rows, bytes).unwrap();
    let folders = ["1", "2", "3"].map(path);
    let error = merge_memories(&folders, &path("merged"), Duration::ZERO, &mut |_| true).unwrap_err();
    assert!(error.to_string().contains("img_emb_0000.npy"), "{error}");
    assert!(!path("merged/xmore_memory.json").exists());
}

#[test]
fn a_part_of_which_too_much_fails_is_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<Sample> = (0..40u8)
        .map(|i| Sample { color: [i, 1, 2], is_broken: i % 4 == 0, captions: vec![usize::from(i)] })
        .collect();
    let sources = [table(dir.path(), &samples)];
    let (part, folder) = (Part::new(1, 2).unwrap(), dir.path().join("part"));
    let strict = BuildOptions { max_skipped: SkipLimit::Count(1), ..options() };
    let report = build_part(&Plain::new(), &sources, part, &folder, &strict, &mut |_| true).unwrap();
    assert!(report.over_limit && report.outcome == xmore::BuildOutcome::FormerKept, "{report:?}");
    let error = merge_memories(&[&folder], &dir.path().join("m"), Duration::ZERO, &mut |_| true).unwrap_err();
    assert!(matches!(error, XmoreError::Part(PartError::Unfinished { .. })), "{error}");
    let report = build_part(&Plain::new(), &sources, part, &folder, &options(), &mut |_| true).unwrap();
    assert!(report.outcome == xmore::BuildOutcome::Written && report.resumed > 0, "{report:?}");
}
