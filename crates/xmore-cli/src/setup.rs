//! Memory, models and filters as flags name them: what classifying commands open before they begin.

use std::path::PathBuf;

use xmore::{
    CaptionStore, Classifier, Evidence, NamedModel, OpenPairs, PartlySeen, Queries, Retrieval,
    RetrievalModels, XmoreError, encode_each,
};
use xmore_clip::ResizeMode;
use xmore_eval::{CachedImages, Dataset, EmbeddingCache};
use xmore_memory::{MemoryError, RowSet};

use crate::args::{FilterArgs, IfUnreachable, MethodArgs};
use crate::error::{CliError, Result};
use crate::messages::tell;
use crate::model_choice::QueryModelChoice;

/// Tells once that photos are decoded another way than those of the memory, if there is one.
pub(crate) fn tell_other_orientation(model: &NamedModel, pairs: Option<&OpenPairs>) {
    let Some(memory) = pairs.and_then(OpenPairs::orientation) else { return };
    let ours = model.preprocess().orientation();
    if ours != memory {
        tell!(
            "note: photos are decoded with orientation `{ours}`, the memory's were with `{memory}` (--orientation {memory} for the same)"
        );
    }
}

/// Tells once of images of which only a part was looked at.
pub(crate) fn tell_partly_seen(images: PartlySeen, model: &NamedModel) {
    let PartlySeen { first_of_several, far_from_square } = images;
    if first_of_several > 0 {
        tell!("{first_of_several} images have several frames or pages: the first of each was taken");
    }
    if far_from_square > 0 {
        let seen = match model.preprocess().resize_mode() {
            ResizeMode::Shortest => "the middle square of each was seen",
            ResizeMode::Squash => "each was squashed into a square",
            ResizeMode::Longest => "each was seen whole",
        };
        tell!("{far_from_square} images are more than twice as long one way as the other: {seen}");
    }
}

/// The same for query images, with how to see the whole of them.
pub(crate) fn tell_partly_seen_queries(images: PartlySeen, model: &NamedModel) {
    tell_partly_seen(images, model);
    if images.far_from_square > 0 {
        tell!("hint: --resize-mode longest (with bars) shows the model whole images as they are");
    }
}

impl FilterArgs {
    /// The rows that the caption filter allows, if there is one.
    pub(crate) fn allowed(&self, pairs: &OpenPairs) -> Result<Option<RowSet>> {
        let pattern = self.caption_filter.as_ref();
        Ok(pattern.map(|pattern| pairs.rows_with_caption(pattern)).transpose()?)
    }
}

/// All that is open.
pub(crate) struct Setup {
    pub(crate) model: NamedModel,
    pairs: Option<OpenPairs>,
    search: Option<NamedModel>,
    rerank: Option<NamedModel>,
    captions: CaptionStore,
    allowed: Option<RowSet>,
    if_unreachable: IfUnreachable,
}

/// Tells of search codes that searches found damaged.
pub(crate) fn tell_damaged_codes(pairs: &OpenPairs) {
    for path in pairs.damaged_codes() {
        tell!(
            "{} is damaged and was not used, which is slower and changes no answer: `xmore memory repair` makes it again",
            path.display()
        );
    }
}

impl Drop for Setup {
    /// However a command ends.
    fn drop(&mut self) {
        if let Some(pairs) = &self.pairs {
            tell_damaged_codes(pairs);
        }
    }
}

impl Setup {
    /// Opens memory and models. An engine that is away is none, if that is allowed.
    pub(crate) fn open(args: &MethodArgs, model: &QueryModelChoice) -> Result<Setup> {
        args.retrieval().check()?;
        let pairs =
            match args.memory.as_deref().map(|location| OpenPairs::open(location, &args.engine.options())) {
                Some(Err(error)) if may_do_without(&error, args.if_unreachable) => {
                    tell_zero_shot(&error);
                    None
                }
                other => other.transpose()?,
            };
        let allowed = pairs.as_ref().map(|pairs| args.filter.allowed(pairs)).transpose()?.flatten();
        let classify = model.open_for(pairs.as_ref().and_then(OpenPairs::identity))?;
        tell_other_orientation(&classify, pairs.as_ref());
        Ok(Setup {
            model: classify,
            search: model.open_beside(&args.search_model, pairs.as_ref())?,
            rerank: model.open_beside(&args.rerank_model, pairs.as_ref())?,
            // Without a cache folder, captions of an engine are kept for this run only.
            captions: CaptionStore::on_disk().unwrap_or_default(),
            allowed,
            pairs,
            if_unreachable: args.if_unreachable,
        })
    }

    /// Whether the calibrated method is possible with these pairs and models.
    pub(crate) fn allows_calibrated(&self, args: &MethodArgs) -> bool {
        let retrieval = self.retrieval(args);
        matches!(retrieval, Ok(Some(retrieval)) if retrieval.check_calibrated().is_ok())
    }

    /// Retrieval as the flags want it, if there are pairs.
    pub(crate) fn retrieval(&self, args: &MethodArgs) -> Result<Option<Retrieval<'_>>, XmoreError> {
        let Some(pairs) = &self.pairs else { return Ok(None) };
        let models = RetrievalModels {
            search: self.search.as_ref().unwrap_or(&self.model),
            rerank: self.rerank.as_ref().unwrap_or(&self.model),
            classify: &self.model,
        };
        let retrieval = Retrieval::new(pairs.as_pairs(), models, args.retrieval())?;
        let rows = args.filter.rows.clone();
        Ok(Some(retrieval.only(rows, self.allowed.as_ref())?.keeping_captions(&self.captions)))
    }

    /// Encodes photos with every model that needs them, and hands them over batch by batch; see [`encode_each`].
    pub(crate) fn encode_each(
        &self,
        files: &[PathBuf],
        stop: &(dyn Fn() -> bool + Sync),
        take: &mut dyn FnMut(EncodedQueries) -> bool,
    ) -> Result<(), XmoreError> {
        let models: Vec<&NamedModel> =
            [Some(&self.model), self.search.as_ref(), self.rerank.as_ref()].into_iter().flatten().collect();
        encode_each(&models, files, stop, &mut |batch| {
            let mut by_model = batch.embeddings.into_iter();
            let classify = by_model.next().unwrap_or_default();
            let search = self.search.as_ref().and_then(|_| by_model.next());
            let rerank = self.rerank.as_ref().and_then(|_| by_model.next());
            let queries = (!batch.kept.is_empty()).then_some(Queries { classify, search, rerank });
            take(EncodedQueries {
                end: batch.end,
                kept: batch.kept,
                failed: batch.failed,
                partly_seen: batch.partly_seen,
                queries,
            })
        })
    }

    /// Encodes a labelled dataset's photos, unless their embeddings are kept from before.
    pub(crate) fn encode_dataset(
        &self,
        cache: &EmbeddingCache,
        dataset: &Dataset,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Queries, CachedImages)> {
        let (root, images) = (&dataset.root, &dataset.images);
        let found = cache.images(&self.model, root, images, progress)?;
        let kept: Vec<_> = found.kept.iter().map(|&i| images[i].clone()).collect();
        let by = |model: &Option<NamedModel>| -> Result<_> {
            let Some(model) = model else { return Ok(None) };
            let again = cache.images(model, root, &kept, &mut |_| {})?;
            match again.failed.into_iter().next() {
                // It could be read a moment ago.
                Some((_, error)) => Err(CliError::Failed(error)),
                None => Ok(Some(again.embeddings)),
            }
        };
        let queries = Queries {
            classify: found.embeddings.clone(),
            search: by(&self.search)?,
            rerank: by(&self.rerank)?,
        };
        Ok((queries, found))
    }

    /// How many pairs there are, as far as is known.
    pub(crate) fn pairs_held(&self) -> Option<u64> {
        self.pairs.as_ref()?.count()
    }

    /// Whether the pairs are with an engine.
    pub(crate) fn is_engine(&self) -> bool {
        matches!(self.pairs, Some(OpenPairs::Engine(_)))
    }

    /// Whether an error is an engine's absence that the flags allow; tells of it if so.
    pub(crate) fn forgives(&self, error: &XmoreError) -> bool {
        match error {
            XmoreError::Memory(error) if may_do_without(error, self.if_unreachable) => {
                tell_zero_shot(error);
                true
            }
            _ => false,
        }
    }

    /// Calibrates a classifier, if it has pairs; one whose engine is away goes without them, if that is allowed.
    pub(crate) fn calibrate<'a>(&self, classifier: Classifier<'a>) -> Result<Classifier<'a>, XmoreError> {
        let alone = classifier.with_retrieval(None);
        match classifier.calibrate() {
            Err(XmoreError::Memory(error)) if may_do_without(&error, self.if_unreachable) => {
                tell_zero_shot(&error);
                Ok(alone)
            }
            other => other,
        }
    }

    /// The evidence on queries. If the engine is away and that is allowed, `alone` is set, and these queries and all later ones are classified
    /// by the image alone.
    pub(crate) fn evidence<'a>(
        &self,
        classifier: &Classifier<'a>,
        alone: &mut Option<Classifier<'a>>,
        queries: &Queries,
    ) -> Result<Vec<Evidence>> {
        if let Some(alone) = alone {
            return Ok(alone.evidence(queries)?);
        }
        let evidence = classifier.evidence(queries);
        let damaged = self.captions.take_damaged();
        if damaged > 0 {
            tell!("{damaged} kept embeddings of captions were damaged; those that are needed are made again");
        }
        match evidence {
            Err(XmoreError::Memory(error)) if may_do_without(&error, self.if_unreachable) => {
                tell_zero_shot(&error);
                Ok(alone.insert(classifier.with_retrieval(None)).evidence(queries)?)
            }
            other => Ok(other?),
        }
    }
}

/// Photos encoded by every model that needs them.
#[derive(Default)]
pub(crate) struct EncodedQueries {
    /// Index of the first file behind them.
    pub(crate) end: usize,
    /// For each row, the index of its file.
    pub(crate) kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub(crate) failed: Vec<(usize, XmoreError)>,
    /// How many were looked at only in part.
    pub(crate) partly_seen: PartlySeen,
    /// The rows, if there are any.
    pub(crate) queries: Option<Queries>,
}

impl EncodedQueries {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Puts those that come next behind these.
    pub(crate) fn append(&mut self, next: Self) {
        self.end = next.end;
        self.kept.extend(next.kept);
        self.failed.extend(next.failed);
        match (&mut self.queries, next.queries) {
            (Some(queries), Some(next)) => queries.append(next),
            (queries @ None, next) => *queries = next,
            (Some(_), None) => {}
        }
    }
}

fn may_do_without(error: &MemoryError, if_unreachable: IfUnreachable) -> bool {
    if_unreachable == IfUnreachable::ZeroShot && matches!(error, MemoryError::Unreachable { .. })
}

fn tell_zero_shot(error: &MemoryError) {
    tell!("{error}\nzero-shot, by the image alone, as --if-unreachable zero-shot allows");
}
