//! Memory, models and filters as flags name them: what classifying commands open before they begin.

use std::sync::Arc;

use xmore::{
    CaptionStore, Classifier, Encoder, Evidence, NamedModel, OpenPairs, Opened, PartlySeen, Pipeline,
    Queries, XmoreError,
};
use xmore_clip::ResizeMode;
use xmore_eval::{CachedImages, Dataset, EmbeddingCache};
use xmore_memory::{MemoryError, RowSet};

use crate::args::{FilterArgs, MethodArgs};
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
        let images = if far_from_square == 1 { "image is" } else { "images are" };
        tell!("{far_from_square} {images} more than twice as long one way as the other: {seen}");
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

/// All that is open: the pipeline, and its classifying model as one of ours.
pub(crate) struct Setup {
    pub(crate) model: Arc<NamedModel>,
    pub(crate) pipeline: Pipeline,
    search: Option<Arc<NamedModel>>,
    rerank: Option<Arc<NamedModel>>,
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
        if let Some(pairs) = self.pipeline.pairs() {
            tell_damaged_codes(pairs);
        }
    }
}

impl Setup {
    /// Opens memory and models. A remote index that is away is none, if that is allowed.
    pub(crate) fn open(args: &MethodArgs, model: &QueryModelChoice) -> Result<Setup> {
        args.retrieval().check()?;
        let if_unreachable = args.if_unreachable.into();
        let open = |location: &str| Opened::open(location, &args.remote.options(), if_unreachable);
        let pairs = args.memory.as_deref().map(open).transpose()?.and_then(told_pairs);
        let open_pairs = pairs.as_deref();
        let classify = Arc::new(model.open_for(open_pairs.and_then(OpenPairs::identity))?);
        tell_other_orientation(&classify, open_pairs);
        let search = model.open_beside(&args.search_model, pairs.is_some())?.map(Arc::new);
        let rerank = model.open_beside(&args.rerank_model, pairs.is_some())?.map(Arc::new);
        let encoder = |model: &Option<Arc<NamedModel>>| model.clone().map(|model| model as Arc<dyn Encoder>);
        let pipeline = Pipeline::builder(classify.clone())
            .search_encoder(encoder(&search))
            .rerank_encoder(encoder(&rerank))
            .rows(args.filter.rows.clone())
            .caption_filter(args.filter.caption_filter.clone())
            .pairs(pairs)
            .retrieval(args.retrieval())
            .templates(args.templates()?)
            // Without a cache folder, captions of a remote index are kept for this run only.
            .caption_store(Arc::new(CaptionStore::on_disk().unwrap_or_default()))
            .if_unreachable(if_unreachable)
            .build()?;
        Ok(Setup { model: classify, pipeline, search, rerank })
    }

    /// Encodes a labeled dataset's photos, unless their embeddings are kept from before.
    pub(crate) fn encode_dataset(
        &self,
        cache: &EmbeddingCache,
        dataset: &Dataset,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Queries, CachedImages)> {
        let (root, images) = (&dataset.root, &dataset.images);
        let found = cache.images(&*self.model, root, images, progress)?;
        let kept: Vec<_> = found.kept.iter().map(|&i| images[i].clone()).collect();
        let by = |model: &Option<Arc<NamedModel>>| -> Result<_> {
            let Some(model) = model else { return Ok(None) };
            let again = cache.images(&**model, root, &kept, &mut |_| {})?;
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
        self.pipeline.pairs()?.count()
    }

    /// Whether the pairs are in a remote index.
    pub(crate) fn is_remote(&self) -> bool {
        self.pipeline.pairs().is_some_and(|pairs| pairs.remote().is_some())
    }

    /// Whether an error is a remote index's absence that the flags allow; tells of it if so.
    pub(crate) fn is_tolerated(&self, error: &XmoreError) -> bool {
        let tolerated = self.pipeline.is_tolerated(error);
        if let (true, XmoreError::Memory(error)) = (tolerated, error) {
            tell_zero_shot(error);
        }
        tolerated
    }

    /// Prepares the kernel method of a classifier, if it has pairs; one whose remote index is away goes without them, if that is allowed.
    pub(crate) fn prepare_kernel(&self, classifier: Classifier) -> Result<Classifier, XmoreError> {
        let alone = classifier.with_retrieval(None);
        match classifier.prepare_kernel() {
            Err(error) if self.is_tolerated(&error) => Ok(alone),
            other => other,
        }
    }

    /// The evidence on queries. If the remote index is away and that is allowed, `alone` is set, and these queries and all later ones are
    /// classified by the image alone.
    pub(crate) fn evidence(
        &self,
        classifier: &Classifier,
        alone: &mut Option<Classifier>,
        queries: &Queries,
    ) -> Result<Vec<Evidence>> {
        if let Some(alone) = alone {
            return Ok(alone.evidence(queries)?);
        }
        let evidence = classifier.evidence(queries);
        let damaged = self.pipeline.caption_store().take_damaged();
        if damaged > 0 {
            tell!("{damaged} kept embeddings of captions were damaged; those that are needed are made again");
        }
        match evidence {
            Err(error) if self.is_tolerated(&error) => {
                Ok(alone.insert(classifier.with_retrieval(None)).evidence(queries)?)
            }
            other => Ok(other?),
        }
    }
}

/// The pairs; tells of a remote index that is done without.
pub(crate) fn told_pairs(opened: Opened) -> Option<Arc<OpenPairs>> {
    opened.unreachable.iter().for_each(tell_zero_shot);
    opened.pairs
}

fn tell_zero_shot(error: &MemoryError) {
    tell!("{error}\nzero-shot, by the image alone, as --if-unreachable zero-shot allows");
}
