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
use crate::probabilities::Probabilities;
use crate::retrieve::{OpenPairs, Queries, RetrievalModels, RetrievalOptions};

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
    /// `captions_of` says whose caption and text embedding a pair has.
    fn new(captions_of: impl Fn(usize) -> usize) -> Self {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures/tiny");
        let model: Arc<dyn Encoder> =
            Arc::new(NamedModel::open(&format!("local-dir:{}", tiny.display())).unwrap());
        let dim = model.dim();
        let dir = tempfile::tempdir().unwrap();
        let expected: Value =
            serde_json::from_slice(&std::fs::read(fixtures().join("expected.json")).unwrap()).unwrap();
        let each = expected["captions_each"].as_u64().unwrap() as usize;
        let (images, texts) = (rows("images"), rows("texts"));
        let mut writer = MemoryWriter::create(dir.path(), model.identity().clone()).unwrap();
        for i in 0..texts.len() / dim {
            let image = &images[i / each * dim..][..dim];
            let of = captions_of(i);
            let (caption, text) = (expected["captions"][of].as_str().unwrap(), &texts[of * dim..][..dim]);
            writer.push(&format!("{}.jpg", i / each), caption, image, text).unwrap();
        }
        writer.finish().unwrap();
        let pairs = Arc::new(OpenPairs::from(Memory::open(dir.path()).unwrap()));
        World { _dir: dir, model, pairs, expected }
    }

    fn labels(&self, name: &str) -> (Labels, Embeddings) {
        let names =
            self.expected["labels"][name].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        (Labels::new(names).unwrap(), Embeddings::new(rows(name), self.model.dim()))
    }

    fn retrieval(&self) -> Retrieval {
        let copy = self.expected["copy"].as_f64().unwrap() as f32;
        let options = RetrievalOptions { query_duplicates_above: Some(copy), ..Default::default() };
        Retrieval::new(self.pairs.clone(), RetrievalModels::one(self.model.clone()), options).unwrap()
    }

    fn scale(&self) -> f64 {
        self.expected["scale"].as_f64().unwrap()
    }

    fn state(&self, name: &str, with_open: bool) -> KernelState {
        let (labels, texts) = self.labels(name);
        KernelState::new(&self.retrieval(), &labels, &texts, self.scale(), with_open).unwrap()
    }

    fn answers(&self, state: &KernelState, name: &str) -> Vec<GatedPrediction> {
        let (_, texts) = self.labels(name);
        let queries = rows("queries");
        let retrieval = self.retrieval();
        let asked = Queries::from(Embeddings::new(queries.clone(), self.model.dim()));
        let near = if state.needs_neighbors() { NEAR } else { 0 };
        let around = retrieval.retrieve_with(&asked, near).unwrap();
        let answer = |(query, (_, around)): (&[f32], &(_, Neighborhood<'_>))| {
            state.answer(query, &zero_shot(query, &texts, self.scale()), around).unwrap()
        };
        queries.chunks_exact(self.model.dim()).zip(&around).map(answer).collect()
    }
}

fn zero_shot(query: &[f32], labels: &Embeddings, scale: f64) -> Probabilities {
    let wide: Vec<f64> = query.iter().map(|&v| f64::from(v)).collect();
    let rows: Vec<Vec<f64>> = labels.rows().map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect();
    Probabilities::new(softmax(&logits(&wide, &rows, scale)))
}

/// Similarities and captions' cosines are f32 here; s and the gate's slope multiply their errors by 120 at most.
const GATE_BOUND: f64 = 1e-4;
/// The same of probabilities.
const BOUND: f64 = 2e-5;

#[test]
fn answers_are_those_of_numpy() {
    let world = World::new(|i| i);
    for name in ["known", "pair", "named", "half", "unknown"] {
        let expected = &world.expected[name];
        let state = world.state(name, true);
        let support = state.support();
        assert_eq!(support.named, expected["named"].as_u64().map(|named| named as usize), "{name}");
        assert!((support.pairing.unwrap() - expected["pairing"].as_f64().unwrap()).abs() < 1e-5, "{name}");
        for kind in &support.kinds {
            let key = serde_json::to_value(kind.kind).unwrap();
            let want = expected["support"][key.as_str().unwrap()].as_f64().unwrap();
            assert!((kind.mean - want).abs() < 1e-5, "{name} {kind:?} {want}");
        }
        assert_eq!(support.is_closed(), name == "unknown");
        for (i, answer) in world.answers(&state, name).iter().enumerate() {
            let number = |key: &str| expected[key][i].as_f64().unwrap();
            assert!((answer.gate - number("gates")).abs() < GATE_BOUND, "{name} {i}: {}", answer.gate);
            assert!((answer.prototype_weight - number("weights")).abs() < GATE_BOUND, "{name} {i}");
            assert_eq!(answer.opened_by.is_none(), answer.gate == 0.0);
            let open = answer.open.as_ref().unwrap();
            for (key, found) in [("answers", &answer.probabilities), ("open", open)] {
                for (c, &p) in found.values.iter().enumerate() {
                    let want = expected[key][i][c].as_f64().unwrap();
                    assert!((p - want).abs() < BOUND, "{name} {key} {i} {c}: {p} {want}");
                }
            }
        }
    }
}

#[test]
fn an_open_gate_that_is_not_asked_for_changes_no_answer() {
    let world = World::new(|i| i);
    for name in ["named", "half", "unknown"] {
        let with = world.answers(&world.state(name, true), name);
        for (with, without) in with.into_iter().zip(world.answers(&world.state(name, false), name)) {
            assert_eq!(GatedPrediction { open: None, ..with }, without);
        }
    }
}

#[test]
fn labels_that_the_memory_does_not_know_are_answered_zero_shot_to_the_bit() {
    let world = World::new(|i| i);
    let (_, texts) = world.labels("unknown");
    let state = world.state("unknown", false);
    assert!(!state.needs_neighbors());
    let queries = rows("queries");
    for (query, answer) in queries.chunks_exact(world.model.dim()).zip(world.answers(&state, "unknown")) {
        assert_eq!(answer.probabilities, zero_shot(query, &texts, world.scale()));
        assert_eq!((answer.gate, answer.prototype_weight), (0.0, 0.0));
    }
}

#[test]
fn captions_of_other_images_close_the_gate() {
    // 240 captions, moved by a third of them and mixed by a factor without common divisor.
    let world = World::new(|i| (i * 77 + 80) % 240);
    for name in ["known", "pair", "named", "half"] {
        let state = world.state(name, false);
        assert!(state.support().is_closed(), "{name}: {:?}", state.support());
        for answer in world.answers(&state, name) {
            assert!(answer.prototype_weight < 0.01, "{name}: {}", answer.prototype_weight);
        }
    }
}

#[test]
fn a_memory_that_says_one_thing_of_everything_is_not_asked() {
    let world = World::new(|_| 0);
    let (_, texts) = world.labels("known");
    let state = world.state("known", false);
    let queries = rows("queries");
    for (query, answer) in queries.chunks_exact(world.model.dim()).zip(world.answers(&state, "known")) {
        assert_eq!(answer.probabilities, zero_shot(query, &texts, world.scale()));
        assert_eq!(answer.gate, 0.0);
    }
}
