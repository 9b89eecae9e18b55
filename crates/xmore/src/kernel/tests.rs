//! The method against numpy's answers (tests/fixtures/kernel), and what it promises.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use xmore_clip::Embeddings;
use xmore_memory::Memory;
use xmore_memory::store::MemoryWriter;

use super::*;
use crate::encoder::Encoder;
use crate::model::NamedModel;
use crate::retrieve::{OpenPairs, RetrievalModels, RetrievalOptions};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernel")
}

fn rows(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixtures().join(format!("{name}.npy"))).unwrap();
    let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
    match npy.dtype().descr().as_str() {
        "'<f2'" => npy.into_vec::<half::f16>().unwrap().into_iter().map(half::f16::to_f32).collect(),
        _ => npy.into_vec::<f32>().unwrap(),
    }
}

/// The fixture's memory, under the identity of a model of the same length that is at hand.
struct World {
    _dir: tempfile::TempDir,
    model: Arc<dyn Encoder>,
    pairs: Arc<OpenPairs>,
    expected: Value,
}

impl World {
    fn new(captions_of: impl Fn(usize) -> usize) -> Self {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures/tiny");
        let model: Arc<dyn Encoder> =
            Arc::new(NamedModel::open(&format!("local-dir:{}", tiny.display())).unwrap());
        let dim = model.dim();
        let dir = tempfile::tempdir().unwrap();
        let expected: Value =
            serde_json::from_slice(&std::fs::read(fixtures().join("expected.json")).unwrap()).unwrap();
        let each = expected["captions"].as_u64().unwrap() as usize;
        let (images, texts) = (rows("images"), rows("texts"));
        let mut writer = MemoryWriter::create(dir.path(), model.identity().clone()).unwrap();
        for i in 0..texts.len() / dim {
            let image = &images[i / each * dim..][..dim];
            let text = &texts[captions_of(i) * dim..][..dim];
            writer.push(&format!("{}.jpg", i / each), &format!("caption {i}"), image, text).unwrap();
        }
        writer.finish().unwrap();
        let pairs = Arc::new(OpenPairs::from(Memory::open(dir.path()).unwrap()));
        World { _dir: dir, model, pairs, expected }
    }

    fn labels(&self, name: &str) -> Embeddings {
        Embeddings::new(rows(name), self.model.dim())
    }

    fn retrieval(&self) -> Retrieval {
        let models = RetrievalModels::one(self.model.clone());
        Retrieval::new(self.pairs.clone(), models, RetrievalOptions::default()).unwrap()
    }

    fn scale(&self) -> f64 {
        self.expected["scale"].as_f64().unwrap()
    }

    fn answers(&self, state: &KernelState, labels: &Embeddings) -> Vec<GatedPrediction> {
        let retrieval = self.retrieval();
        let queries = rows("queries");
        let around = retrieval.neighborhoods(&queries, NEAR).unwrap();
        let answer = |(query, around): (&[f32], &Neighborhood<'_>)| {
            state.answer(query, &zero_shot(query, labels, self.scale()), around).unwrap()
        };
        queries.chunks_exact(self.model.dim()).zip(&around).map(answer).collect()
    }
}

fn zero_shot(query: &[f32], labels: &Embeddings, scale: f64) -> Probabilities {
    let wide: Vec<f64> = query.iter().map(|&v| f64::from(v)).collect();
    let rows: Vec<Vec<f64>> = labels.rows().map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect();
    Probabilities::new(softmax(&logits(&wide, &rows, scale)))
}

#[test]
fn answers_are_those_of_numpy() {
    let world = World::new(|i| i);
    let retrieval = world.retrieval();
    for name in ["known", "pair", "half", "unknown"] {
        let (labels, expected) = (world.labels(name), &world.expected[name]);
        let state = KernelState::new(&retrieval, &labels, world.scale()).unwrap();
        let label_coverage = expected["label_coverage"].as_f64().unwrap();
        assert!((state.label_coverage() - label_coverage).abs() < 1e-5, "{name}: {}", state.label_coverage());
        assert_eq!(state.is_closed(), name == "unknown");
        for (i, answer) in world.answers(&state, &labels).iter().enumerate() {
            // Similarities and captions' cosines are f32 here; s and the gate's slope multiply their errors by 120 at most.
            let gate = expected["gates"][i].as_f64().unwrap();
            assert!((answer.gate - gate).abs() < 1e-4, "{name} {i}: {} {gate}", answer.gate);
            for (c, &p) in answer.probabilities.values.iter().enumerate() {
                let want = expected["answers"][i][c].as_f64().unwrap();
                assert!((p - want).abs() < 2e-5, "{name} {i} {c}: {p} {want}");
            }
        }
    }
}

#[test]
fn labels_that_the_memory_does_not_know_are_answered_zero_shot_to_the_bit() {
    let world = World::new(|i| i);
    let labels = world.labels("unknown");
    let state = KernelState::new(&world.retrieval(), &labels, world.scale()).unwrap();
    let queries = rows("queries");
    for (query, answer) in queries.chunks_exact(world.model.dim()).zip(world.answers(&state, &labels)) {
        assert_eq!(answer.probabilities, zero_shot(query, &labels, world.scale()));
        assert_eq!(answer.gate, 0.0);
    }
}

#[test]
fn captions_of_other_images_close_the_gate() {
    // 240 captions, moved by a third of them and mixed by a factor without common divisor.
    let world = World::new(|i| (i * 77 + 80) % 240);
    for name in ["known", "pair"] {
        let state = KernelState::new(&world.retrieval(), &world.labels(name), world.scale()).unwrap();
        assert!(state.is_closed(), "{name}: {}", state.label_coverage());
    }
}

#[test]
fn a_memory_that_says_one_thing_of_everything_is_not_asked() {
    let world = World::new(|_| 0);
    let labels = world.labels("known");
    let state = KernelState::new(&world.retrieval(), &labels, world.scale()).unwrap();
    for answer in world.answers(&state, &labels) {
        assert!(answer.probabilities.values.iter().all(|p| p.is_finite()));
        assert_eq!(answer.gate, 0.0);
    }
}
