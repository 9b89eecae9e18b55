//! What fewer bits cost: texts through a model in f32 and in another precision, compared.

use std::path::Path;

use serde::Serialize;
use xmore_clip::{Embeddings, LoadOptions, Model};

use crate::Result;
use crate::ours::variants;

/// How a model's embeddings of texts in a precision agree with its f32 ones.
#[derive(Serialize)]
pub struct Agreement {
    precision: &'static str,
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
            "{} texts, cosine of {} to f32 at least {:.5}, mean {:.5}; nearest text the same for {:.1} %, of the ten nearest {:.1} %",
            self.texts,
            self.precision,
            self.cosine_min,
            self.cosine_mean,
            100.0 * self.same_nearest,
            100.0 * self.same_ten
        )
    }
}

/// Encodes the texts in f32 and in every other precision.
pub fn measure(dir: &Path, texts: &[String]) -> Result<Vec<Agreement>> {
    let encode = |options: &LoadOptions| -> Result<Embeddings> {
        Ok(Model::load_with(dir, options)?.encode_texts(texts)?.embeddings)
    };
    let variants = variants();
    let (_, reference) = &variants[0];
    let exact = encode(reference)?;
    let expected = neighbors(&exact);
    let one = |(precision, options): &(&'static str, LoadOptions)| {
        let rows = encode(options)?;
        let cosines: Vec<f32> = exact.rows().zip(rows.rows()).map(|(a, b)| dot(a, b)).collect();
        let found = neighbors(&rows);
        let same = |n: usize| {
            let shared = expected
                .iter()
                .zip(&found)
                .map(|(a, b)| a[..n].iter().filter(|i| b[..n].contains(i)).count());
            shared.sum::<usize>() as f64 / (n * texts.len()) as f64
        };
        Ok(Agreement {
            precision,
            texts: texts.len(),
            cosine_min: cosines.iter().copied().fold(f32::INFINITY, f32::min),
            cosine_mean: cosines.iter().sum::<f32>() / cosines.len() as f32,
            same_nearest: same(1),
            same_ten: same(10),
        })
    };
    variants[1..].iter().map(one).collect()
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
