//! A dataset's photos as queries: encoded by every encoder of the pipeline, unless their embeddings are kept from before.

use xmore::{Pipeline, Queries};
use xmore_eval::{CachedImages, Dataset, EmbeddingCache};

use crate::error::{CliError, Result};

/// The queries, and what the classifying encoder's run said of each photo.
pub(super) fn encode_dataset(
    pipeline: &Pipeline,
    cache: &EmbeddingCache,
    dataset: &Dataset,
    progress: &mut dyn FnMut(usize),
) -> Result<(Queries, CachedImages)> {
    let (root, images) = (&dataset.root, &dataset.images);
    let encoders = pipeline.encoders();
    let found = cache.images(encoders[0], root, images, progress)?;
    let kept: Vec<_> = found.kept.iter().map(|&i| images[i].clone()).collect();
    let mut by_encoder = vec![found.embeddings.clone()];
    for encoder in &encoders[1..] {
        let again = cache.images(*encoder, root, &kept, &mut |_| {})?;
        // The first encoder could read it a moment ago.
        if let Some((_, error)) = again.failed.into_iter().next() {
            return Err(CliError::Failed(error));
        }
        by_encoder.push(again.embeddings);
    }
    Ok((pipeline.queries(by_encoder), found))
}
