//! The demo's measurement: everything is encoded once; then each split is written as a memory, and its queries are classified and counted.

use std::collections::HashSet;
use std::sync::Arc;

use xmore::{
    Classifier, Encoder, Evidence, Method, NamedModel, OpenPairs, Retrieval, RetrievalModels,
    RetrievalOptions, Template, encode_files, encode_texts,
};
use xmore_clip::Embeddings;
use xmore_eval::accuracies;
use xmore_memory::Memory;
use xmore_memory::store::MemoryWriter;

use super::findings::{Accuracies, Findings, SplitRun};
use super::pairs::{Pair, PairSet};
use super::splits::Split;
use crate::error::{CliError, Result};
use crate::progress;

/// Numbers of captions of the sweep.
const SWEEP: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Numbers of neighbors of the other sweep, beside the paper's.
const NEIGHBORS: [usize; 4] = [8, 16, 32, 64];

/// The share of a small memory that is looked at, unless told otherwise.
const SMALL_SHARE: usize = 10;

/// What the user may choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Captions kept for each query.
    pub k: usize,
    /// Pairs looked at for each query; by the size of the memory if not given.
    pub neighbors: Option<usize>,
    /// Number of splits.
    pub splits: u64,
    /// Seed of the first split; the next ones have the next numbers.
    pub seed: u64,
}

impl Settings {
    /// Without a number given: the paper's neighbors, at most a tenth of the memory, at least as many as are to be kept. The nearest 128 of
    /// two hundred pairs are no longer similar pictures: the first stage would select nothing.
    pub fn retrieval(&self, memory: usize) -> RetrievalOptions {
        let neighbors =
            self.neighbors.unwrap_or_else(|| paper_neighbors().min(memory / SMALL_SHARE).max(self.k));
        RetrievalOptions { k: self.k, neighbors, ..Default::default() }
    }
}

/// The number of neighbors in the paper, of 400 million pairs.
pub(super) fn paper_neighbors() -> usize {
    RetrievalOptions::default().neighbors
}

/// The pairs with their embeddings, row for row.
struct Encoded {
    images: Embeddings,
    texts: Embeddings,
}

/// Measures all methods on all splits.
pub(super) fn run(set: PairSet, model: &Arc<NamedModel>, settings: Settings) -> Result<Findings> {
    let (set, encoded) = encode(set, model)?;
    // The labels are embedded once, for all memories.
    let templates = [Template::default()];
    let classifier = Classifier::new(&**model, set.labels.clone(), None, &templates, &[Method::Templates])?;
    let experiment = Experiment { set: &set, encoded: &encoded, model, classifier: &classifier };

    let bar = progress::bar(settings.splits, "splits");
    let mut runs = Vec::new();
    for i in 0..settings.splits {
        runs.push(experiment.split(settings.seed.wrapping_add(i), settings)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let neighbors = settings.retrieval(runs[0].memory.len()).neighbors;
    Ok(Findings { set, model: model.identity().clone(), k: settings.k, neighbors, seed: settings.seed, runs })
}

fn encode(set: PairSet, model: &NamedModel) -> Result<(PairSet, Encoded)> {
    let files: Vec<_> = set.pairs.iter().map(|pair| pair.image.clone()).collect();
    let bar = progress::bar(files.len() as u64, "pictures");
    let encoded = encode_files(model, &files, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let unreadable = encoded.failed.iter().map(|(_, error)| error.to_string()).collect();
    let set = set.keeping(&encoded.kept, unreadable)?;

    let bar = progress::bar(set.pairs.len() as u64, "captions");
    let captions: Vec<&str> = set.pairs.iter().map(|pair| pair.caption.as_str()).collect();
    let texts = encode_texts(model, &captions, &mut |done| bar.set_position(done as u64))?.embeddings;
    bar.finish_and_clear();
    Ok((set, Encoded { images: encoded.embeddings, texts }))
}

struct Experiment<'a> {
    set: &'a PairSet,
    encoded: &'a Encoded,
    model: &'a Arc<NamedModel>,
    /// Has the labels embedded, and retrieves nothing.
    classifier: &'a Classifier,
}

impl Experiment<'_> {
    fn split(&self, seed: u64, settings: Settings) -> Result<SplitRun> {
        let Split { memory, queries } = Split::random(self.set.pairs.len(), seed);
        let retrieval = settings.retrieval(memory.len());
        let caption = |i: &usize| self.set.pairs[*i].caption.as_str();
        let in_memory: HashSet<&str> = memory.iter().map(caption).collect();
        let of_queries: HashSet<&str> = queries.iter().map(caption).collect();
        let own_caption = queries.iter().map(|i| in_memory.contains(caption(i))).collect();
        let strict: Vec<usize> =
            memory.iter().copied().filter(|i| !of_queries.contains(caption(i))).collect();

        let (evidence, sweep, neighbor_sweep) = self.with_memory(&memory, |stored| {
            let measured = |options: RetrievalOptions| {
                self.accuracies(&self.classify(stored, &queries, options)?, &queries)
            };
            let (mut sweep, mut neighbor_sweep) = (Vec::new(), Vec::new());
            for k in SWEEP.into_iter().filter(|&k| k <= memory.len()) {
                let options = RetrievalOptions { k, neighbors: retrieval.neighbors.max(k), ..retrieval };
                sweep.push((k, measured(options)?));
            }
            for neighbors in neighbors_for(retrieval.k, memory.len()) {
                neighbor_sweep.push((neighbors, measured(RetrievalOptions { neighbors, ..retrieval })?));
            }
            Ok((self.classify(stored, &queries, retrieval)?, sweep, neighbor_sweep))
        })?;
        let strict_accuracies = match strict.len() {
            0 => None,
            _ => Some(self.with_memory(&strict, |stored| {
                self.accuracies(&self.classify(stored, &queries, retrieval)?, &queries)
            })?),
        };
        Ok(SplitRun {
            seed,
            accuracies: self.accuracies(&evidence, &queries)?,
            strict: strict_accuracies,
            sweep,
            neighbor_sweep,
            memory,
            queries,
            evidence,
            own_caption,
        })
    }

    /// Writes the pairs as a memory, as `xmore memory build` would, and hands it to `then` for as long as it exists.
    fn with_memory<T>(&self, pairs: &[usize], then: impl FnOnce(&Arc<OpenPairs>) -> Result<T>) -> Result<T> {
        let folder = tempfile::Builder::new().prefix("xmore-demo-").tempdir();
        let folder = folder.map_err(|reason| CliError::Io {
            action: "create a temporary folder in",
            path: std::env::temp_dir(),
            reason,
        })?;
        let mut writer = MemoryWriter::create(folder.path(), self.model.identity().clone())?;
        for &i in pairs {
            let Pair { name, caption, .. } = &self.set.pairs[i];
            writer.push(name, caption, self.encoded.images.row(i), self.encoded.texts.row(i))?;
        }
        writer.finish()?;
        then(&Arc::new(OpenPairs::from(Memory::open(folder.path())?)))
    }

    fn classify(
        &self,
        pairs: &Arc<OpenPairs>,
        queries: &[usize],
        retrieval: RetrievalOptions,
    ) -> Result<Vec<Evidence>> {
        let models = RetrievalModels::one(self.model.clone());
        let pairs = Retrieval::new(pairs.clone(), models, retrieval)?;
        let classifier = self.classifier.with_retrieval(Some(pairs)).prepare_kernel()?;
        let images = &self.encoded.images;
        let rows: Vec<f32> = queries.iter().flat_map(|&i| images.row(i)).copied().collect();
        Ok(classifier.evidence(&Embeddings::new(rows, images.dim()).into())?)
    }

    fn accuracies(&self, evidence: &[Evidence], queries: &[usize]) -> Result<Accuracies> {
        let truth: Vec<usize> = queries.iter().map(|&i| self.set.pairs[i].label).collect();
        Ok(accuracies(evidence, &truth, &Method::ALL)?)
    }
}

/// The numbers of neighbors that are at least K and at most the number of pairs in memory.
fn neighbors_for(k: usize, pairs: usize) -> impl Iterator<Item = usize> {
    NEIGHBORS.into_iter().chain([paper_neighbors()]).filter(move |&n| k <= n && n <= pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_follow_the_memory_unless_told() {
        let neighbors =
            |k, neighbors, memory| Settings { k, neighbors, splits: 1, seed: 0 }.retrieval(memory).neighbors;
        assert_eq!(neighbors(16, None, 30_000), 128);
        assert_eq!(neighbors(16, None, 208), 20);
        assert_eq!(neighbors(16, None, 50), 16);
        assert_eq!(neighbors(300, None, 30_000), 300);
        assert_eq!(neighbors(16, Some(128), 50), 128);
    }

    #[test]
    fn the_sweep_keeps_within_the_memory() {
        assert_eq!(neighbors_for(16, 100).collect::<Vec<_>>(), [16, 32, 64]);
        assert_eq!(neighbors_for(300, 10_000).count(), 0);
    }
}
