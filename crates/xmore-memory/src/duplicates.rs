//! What a memory holds more than once: the same captions, and images or captions that are nearly the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rayon::prelude::*;

use crate::error::Result;
use crate::search::{Hit, RowSet, SearchOptions};
use crate::store::{EmbeddingSet, Memory, Modality};

/// Rows that are searched with at a time.
const BATCH: usize = 256;
/// Neighbors of each that are looked at. Members of a larger group find each other through those with the lowest ids, which come
/// first among equals.
const NEIGHBORS: usize = 33;
/// Inner products of unit vectors in float16 are this near to their cosines: each value is off by 2⁻¹¹ of it at most.
const ROUNDING: f32 = 2e-3;

/// What [`duplicates`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct DuplicateReport {
    /// Number of pairs.
    pub pairs: u64,
    /// Number of distinct captions.
    pub captions: u64,
    /// Number of distinct image paths.
    pub images: u64,
    /// Things compared: distinct images or distinct captions.
    pub compared: u64,
    /// Groups of more than one that are connected by similarity, each as the ids of the first row of each member; the largest first.
    pub groups: Vec<Vec<u64>>,
}

impl DuplicateReport {
    /// Things that would have to go for every group to be one thing.
    pub fn redundant(&self) -> u64 {
        self.groups.iter().map(|group| group.len() as u64 - 1).sum()
    }
}

/// Compares all distinct images (or captions) of a memory with each other by the cosine of their embeddings; two above `above` are
/// near-duplicates. The cost grows with the square of their number. `progress` gets those done and their number and says whether
/// to go on; if not, what was found so far is returned.
///
/// # Errors
/// What reading the memory gives.
pub fn duplicates(
    memory: &Memory,
    modality: Modality,
    above: f32,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<DuplicateReport> {
    let hasher = RandomState::new();
    let mut first_rows: [HashMap<u64, u64>; 2] = Default::default();
    for id in 0..memory.len() {
        for (first, text) in first_rows.iter_mut().zip([memory.image_path(id)?, memory.caption(id)?]) {
            first.entry(hasher.hash_one(text)).or_insert(id);
        }
    }
    let counts = first_rows.each_ref().map(|first| first.len() as u64);
    let [images, captions] = first_rows;
    let distinct = match modality {
        Modality::Image => images,
        Modality::Text => captions,
    };
    let mut ids: Vec<u64> = distinct.into_values().collect();
    ids.sort_unstable();
    let mut allowed = RowSet::new(memory.len());
    for &id in &ids {
        allowed.insert(id);
    }

    let set = memory.primary();
    let options = SearchOptions { allowed: Some(&allowed), ..SearchOptions::new(NEIGHBORS) };
    let mut groups = Groups::new(&ids);
    let mut done = 0;
    for batch in ids.chunks(BATCH) {
        let mut queries = vec![0.0; batch.len() * set.dim()];
        for (&id, row) in batch.iter().zip(queries.chunks_exact_mut(set.dim())) {
            unit_row(set, modality, id, row)?;
        }
        let found = set.search_with(modality, &queries, &options)?.hits;
        let mut other = vec![0.0; set.dim()];
        for ((&id, query), hits) in batch.iter().zip(queries.chunks_exact(set.dim())).zip(found) {
            for hit in hits.iter().filter(|hit| hit.id != id && hit.similarity > above - ROUNDING) {
                unit_row(set, modality, hit.id, &mut other)?;
                let cosine: f64 = query.iter().zip(&other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                if cosine > f64::from(above) {
                    groups.join(id, hit.id);
                }
            }
        }
        done += batch.len() as u64;
        if !progress(done, ids.len() as u64) {
            break;
        }
    }
    let [images, captions] = counts;
    Ok(DuplicateReport {
        pairs: memory.len(),
        captions,
        images,
        compared: done,
        groups: groups.into_groups(),
    })
}

impl EmbeddingSet {
    /// Of hits that cosines of their embeddings above `above` link, near or by way of others, the first: clip-retrieval's
    /// `connected_components_dedup`. Every two are compared.
    ///
    /// # Errors
    /// Those of reading an embedding.
    pub fn without_duplicates(&self, modality: Modality, hits: Vec<Hit>, above: f32) -> Result<Vec<Hit>> {
        let dim = self.dim();
        let mut rows = vec![0.0f32; hits.len() * dim];
        for (hit, row) in hits.iter().zip(rows.chunks_exact_mut(dim)) {
            unit_row(self, modality, hit.id, row)?;
        }
        let row = |i: usize| &rows[i * dim..(i + 1) * dim];
        let links: Vec<Vec<usize>> = (0..hits.len())
            .into_par_iter()
            .map(|i| {
                let cosine = |j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f32>();
                (i + 1..hits.len()).filter(|&j| cosine(j) > above).collect()
            })
            .collect();
        let ranks: Vec<u64> = (0..hits.len() as u64).collect();
        let mut groups = Groups::new(&ranks);
        for (i, links) in links.iter().enumerate() {
            links.iter().for_each(|&j| groups.join(i as u64, j as u64));
        }
        Ok(hits
            .into_iter()
            .zip(ranks)
            .filter(|&(_, rank)| groups.root(rank) == rank)
            .map(|(hit, _)| hit)
            .collect())
    }
}

/// A stored embedding, scaled to length 1: float16 leaves it a little off.
fn unit_row(set: &EmbeddingSet, modality: Modality, id: u64, row: &mut [f32]) -> Result<()> {
    match modality {
        Modality::Image => set.image_embedding(id, row)?,
        Modality::Text => set.text_embedding(id, row)?,
    }
    let norm = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
    Ok(())
}

/// Disjoint sets of ids.
struct Groups {
    /// A member nearer to the root; the root's is itself.
    parent: HashMap<u64, u64>,
}

impl Groups {
    fn new(ids: &[u64]) -> Groups {
        Groups { parent: ids.iter().map(|&id| (id, id)).collect() }
    }

    fn root(&mut self, id: u64) -> u64 {
        let (mut root, mut at) = (id, id);
        while self.parent[&root] != root {
            root = self.parent[&root];
        }
        // Every member on the way now points to the root.
        while at != root {
            if let Some(next) = self.parent.insert(at, root) {
                at = next;
            }
        }
        root
    }

    fn join(&mut self, a: u64, b: u64) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent.insert(a.max(b), a.min(b));
    }

    fn into_groups(mut self) -> Vec<Vec<u64>> {
        let mut ids: Vec<u64> = self.parent.keys().copied().collect();
        ids.sort_unstable();
        let mut groups: HashMap<u64, Vec<u64>> = HashMap::new();
        for id in ids {
            groups.entry(self.root(id)).or_default().push(id);
        }
        let mut groups: Vec<Vec<u64>> = groups.into_values().filter(|group| group.len() > 1).collect();
        groups.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a[0].cmp(&b[0])));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryWriter, ModelIdentity};

    #[test]
    fn groups_are_found_whatever_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelIdentity::new("m", String::new(), 2);
        let mut writer = MemoryWriter::create(dir.path(), model).unwrap();
        let mut push = |path: &str, caption: &str, angle: f32| {
            let row = [angle.cos(), angle.sin()];
            writer.push(path, caption, &row, &row).unwrap();
        };
        // 50 copies of one photo under other names, a pair that is nearly the same, one alone with two captions.
        (0..50).for_each(|i| push(&format!("copy {i}.jpg"), "the same", 0.0));
        push("left.jpg", "left", 1.0);
        push("right.jpg", "right", 1.01);
        push("alone.jpg", "alone", 2.0);
        push("alone.jpg", "alone again", 2.0);
        writer.finish().unwrap();
        let memory = Memory::open(dir.path()).unwrap();
        let mut seen = Vec::new();
        let report = duplicates(&memory, Modality::Image, 0.99, &mut |done, of| {
            seen.push((done, of));
            true
        })
        .unwrap();
        assert_eq!((report.pairs, report.captions, report.images, report.compared), (54, 5, 53, 53));
        assert_eq!(report.groups.iter().map(Vec::len).collect::<Vec<_>>(), [50, 2]);
        assert_eq!((&report.groups[1], report.redundant()), (&vec![50, 51], 50));
        assert_eq!(seen, [(53, 53)]);
        let report = duplicates(&memory, Modality::Text, 0.999_99, &mut |_, _| true).unwrap();
        // The caption of the copies counts once; the two of the photo alone are the same vector.
        assert_eq!((report.compared, report.groups), (5, vec![vec![52, 53]]));
        // Of results the first in their order stays, not the one with the lowest id.
        let hits = [53, 51, 7, 52, 50, 3].map(|id| Hit { id, similarity: 0.5 }).to_vec();
        let kept = memory.primary().without_duplicates(Modality::Image, hits, 0.99).unwrap();
        assert_eq!(kept.iter().map(|hit| hit.id).collect::<Vec<_>>(), [53, 51, 7]);
    }
}
