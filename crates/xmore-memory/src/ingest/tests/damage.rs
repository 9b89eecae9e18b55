//! Any damage to any source: no panic, and whatever is read is whole.

use proptest::prelude::*;

use super::*;

/// Bytes with some of them changed, and perhaps cut off.
fn damaged(whole: &[u8], cut: Option<f64>, flips: &[(f64, u8)]) -> Vec<u8> {
    let length = whole.len() as f64;
    let mut bytes = whole.to_vec();
    for (at, value) in flips {
        bytes[(at * length) as usize] = *value;
    }
    bytes.truncate(cut.map_or(usize::MAX, |cut| (cut * length) as usize));
    bytes
}

fn cuts() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(0.0f64..1.0)
}

fn flips() -> impl Strategy<Value = Vec<(f64, u8)>> {
    prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..8)
}

/// Reads a source and every image of it; each pair has a caption.
fn read_all(path: &Path) -> std::result::Result<(), TestCaseError> {
    let Ok(ingested) = ingest(path) else { return Ok(()) };
    let reader = ImageReader::new();
    for pair in &ingested.pairs {
        prop_assert!(!pair.captions.is_empty() && pair.captions.iter().all(|c| !c.trim().is_empty()));
        if !matches!(pair.image, ImageRef::File(_)) {
            let _ = reader.read(&pair.image);
            let _ = reader.read(&ImageRef::parse(&pair.image.to_string()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn of_a_tar(
        which in prop::sample::select(vec!["img2dataset.tar", "pax.tar", "gnu.tar"]), cut in cuts(), flips in flips()
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, damaged(&std::fs::read(fixture(which)).unwrap(), cut, &flips)).unwrap();
        read_all(&path)?;
    }

    #[test]
    fn of_parquet(
        which in prop::sample::select(vec!["paths", "hugging_face", "img2dataset", "lists"]),
        cut in prop::option::weighted(0.1, 0.0f64..1.0), flips in flips()
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let whole = std::fs::read(fixture(&format!("{which}.parquet"))).unwrap();
        std::fs::write(&path, damaged(&whole, cut, &flips)).unwrap();
        read_all(&path)?;
    }

    #[test]
    fn of_coco(cut in cuts(), flips in flips()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captions.json");
        let whole = std::fs::read(fixture("coco/annotations/captions_train2017.json")).unwrap();
        std::fs::write(&path, damaged(&whole, cut, &flips)).unwrap();
        let options = SourceOptions { image_root: Some(fixture("coco/train2017")), ..SourceOptions::default() };
        if let Ok(ingested) = Source::detect(&path, InputFormat::Coco, &options).unwrap_or_else(|_| {
            Source::Coco { path: path.clone(), image_root: None }
        }).read() {
            prop_assert!(ingested.pairs.iter().all(|pair| !pair.captions.is_empty()));
        }
    }

    #[test]
    fn rows_before_a_cut_of_cocos_annotations_are_kept(kept in 1usize..7) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captions.json");
        let whole = std::fs::read_to_string(fixture("coco/annotations/captions_train2017.json")).unwrap();
        // After the given number of annotations.
        let (end, _) = whole.match_indices("\\n\"}").nth(kept - 1).unwrap();
        std::fs::write(&path, &whole[..end + 4]).unwrap();
        let options = SourceOptions { image_root: Some(fixture("coco/train2017")), ..SourceOptions::default() };
        let ingested = Source::detect(&path, InputFormat::Coco, &options).unwrap().read().unwrap();
        prop_assert_eq!(ingested.pairs.iter().map(|pair| pair.captions.len()).sum::<usize>(), kept);
    }
}
