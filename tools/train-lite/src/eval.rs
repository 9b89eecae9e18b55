//! Figures of trained heads: retrieval on held-out photos, zero-shot accuracy on labeled folders.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use ndarray::Axis;
use xmore::{NamedModel, Template};
use xmore_eval::Dataset;

use crate::features::{Pairs, View, cached_images, texts};
use crate::heads::Heads;

/// Text → image recall at 1, 5 and 10 among the held-out photos, over all their captions.
pub fn retrieval(heads: &Heads, pairs: &Pairs) -> BTreeMap<&'static str, f64> {
    let photos = heads.images(&pairs.images[0].select(Axis(0), &pairs.held_out));
    let queries: Vec<(usize, usize)> = (0..pairs.photo.len())
        .filter_map(|caption| Some((caption, pairs.held_out.binary_search(&pairs.photo[caption]).ok()?)))
        .collect();
    let captions: Vec<usize> = queries.iter().map(|q| q.0).collect();
    let similarity = heads.texts(&pairs.captions.select(Axis(0), &captions)).dot(&photos.t());
    let ranks: Vec<usize> = similarity
        .rows()
        .into_iter()
        .zip(&queries)
        .map(|(row, &(_, truth))| row.iter().filter(|&&other| other > row[truth]).count())
        .collect();
    let recall = |k: usize| ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len() as f64;
    BTreeMap::from([("R@1", recall(1)), ("R@5", recall(5)), ("R@10", recall(10))])
}

/// Top-1 with the default prompt on a class-per-folder dataset; returns its name with the accuracy.
pub fn zero_shot(
    heads: &Heads,
    model: &NamedModel,
    folder: &Path,
    cache: &Path,
) -> Result<(String, f64), Box<dyn Error>> {
    let dataset = Dataset::read(folder)?;
    let files: Vec<PathBuf> = dataset.images.iter().map(|image| PathBuf::from(image.to_string())).collect();
    let features = cached_images(model, cache, &format!("eval-{}", dataset.name), &files, View::Plain)?;
    let prompts: Vec<String> =
        dataset.labels.names().iter().map(|name| Template::default().apply(name)).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let labels = heads.texts(&texts(model, &prompts)?);
    let logits = heads.images(&features).dot(&labels.t());
    let right = logits.rows().into_iter().zip(&dataset.truth).filter(|(row, truth)| {
        let best = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        best == **truth
    });
    let accuracy = right.count() as f64 / dataset.images.len() as f64;
    Ok((dataset.name, accuracy))
}
