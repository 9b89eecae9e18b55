//! Classifying by the image alone when a remote index cannot be reached in the middle of a command, if the flags allow that.

use xmore::{Classifier, Evidence, Pipeline, Queries, XmoreError};

use crate::error::Result;
use crate::messages::pairs::tell_zero_shot;
use crate::messages::tell;

/// Pairs from which on it takes seconds to make labels ready, which is then told.
const MANY_PAIRS: u64 = 1_000_000;

/// Whether an error is a remote index's absence that the flags allow; tells of it if so.
pub(crate) fn is_tolerated(pipeline: &Pipeline, error: &XmoreError) -> bool {
    let tolerated = pipeline.is_tolerated(error);
    if let (true, XmoreError::Memory(error)) = (tolerated, error) {
        tell_zero_shot(error);
    }
    tolerated
}

/// Prepares the kernel method of a classifier, if it has pairs; without them if the remote index cannot be reached and that is allowed.
pub(crate) fn prepare_kernel(
    pipeline: &Pipeline,
    classifier: Classifier,
) -> std::result::Result<Classifier, XmoreError> {
    let memory = pipeline.pairs().and_then(|pairs| pairs.memory());
    if let Some(memory) = memory.filter(|memory| memory.len() >= MANY_PAIRS) {
        tell!("looking for the labels in the captions of {} pairs", memory.len());
    }
    let zero_shot = classifier.with_retrieval(None);
    match classifier.prepare_kernel() {
        Err(error) if is_tolerated(pipeline, &error) => Ok(zero_shot),
        other => other,
    }
}

/// The evidence on queries. If the remote index cannot be reached and that is allowed, `zero_shot` is set, and these queries and all later
/// ones are classified by the image alone.
pub(crate) fn evidence(
    pipeline: &Pipeline,
    classifier: &Classifier,
    zero_shot: &mut Option<Classifier>,
    queries: &Queries,
) -> Result<Vec<Evidence>> {
    if let Some(zero_shot) = zero_shot {
        return Ok(zero_shot.evidence(queries)?);
    }
    let evidence = classifier.evidence(queries);
    let damaged = pipeline.caption_store().take_damaged();
    if damaged > 0 {
        tell!("{damaged} kept embeddings of captions were damaged; those that are needed are made again");
    }
    match evidence {
        Err(error) if is_tolerated(pipeline, &error) => {
            Ok(zero_shot.insert(classifier.with_retrieval(None)).evidence(queries)?)
        }
        other => Ok(other?),
    }
}
