//! What 8 bits cost: texts through both precisions of a model, compared.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use xmore_clip::{Embeddings, Model};

use crate::Result;
use crate::ours::variants;

/// How a model's int8 embeddings of texts agree with its f32 ones.
#[derive(Serialize)]
pub struct Agreement {
    texts: usize,
    cosine_min: f32,
    cosine_mean: f32,
    /// Share of texts whose nearest other text is the same.
    same_nearest: f64,
    /// Mean share of the ten nearest other texts that are the same.
    same_ten: f64,
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} texts, cosine of int8 to f32 at least {:.4}, mean {:.4}; nearest text the same for {:.1} %, of the ten nearest {:.1} %",
            self.texts,
            self.cosine_min,
            self.cosine_mean,
            100.0 * self.same_nearest,
            100.0 * self.same_ten
        )
    }
}

impl Agreement {
    pub fn json(&self) -> Value {
        serde_json::to_value(self).expect("numbers only")
    }
}

/// Encodes the texts both ways.
pub fn measure(dir: &Path, texts: &[String]) -> Result<Agreement> {
    let mut both = Vec::new();
    for (_, options) in variants() {
        both.push(Model::load_with(dir, &options)?.encode_texts(texts)?.embeddings);
    }
    let [exact, int8] = &both[..] else { return Err("expected two precisions".into()) };
    let cosines: Vec<f32> = exact.rows().zip(int8.rows()).map(|(a, b)| dot(a, b)).collect();
    let (exact, int8) = (neighbors(exact), neighbors(int8));
    let same = |n: usize| {
        let shared =
            exact.iter().zip(&int8).map(|(a, b)| a[..n].iter().filter(|i| b[..n].contains(i)).count());
        shared.sum::<usize>() as f64 / (n * texts.len()) as f64
    };
    Ok(Agreement {
        texts: texts.len(),
        cosine_min: cosines.iter().copied().fold(f32::INFINITY, f32::min),
        cosine_mean: cosines.iter().sum::<f32>() / cosines.len() as f32,
        same_nearest: same(1),
        same_ten: same(10),
    })
}

/// The ten nearest other rows of each row.
fn neighbors(rows: &Embeddings) -> Vec<Vec<usize>> {
    let of = |n: usize| {
        let mut others: Vec<(usize, f32)> =
            (0..rows.len()).filter(|&m| m != n).map(|m| (m, dot(rows.row(n), rows.row(m)))).collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1));
        others.into_iter().take(10).map(|(m, _)| m).collect()
    };
    (0..rows.len()).map(of).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
