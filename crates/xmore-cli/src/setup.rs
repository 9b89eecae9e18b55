//! Opens the memory and the models that the flags of a classifying command name, and builds a [`Pipeline`] of them.

use std::sync::Arc;

use xmore::{CaptionStore, Encoder, NamedModel, OpenPairs, Opened, Pipeline};

use crate::error::Result;
use crate::flags::model::QueryModelChoice;
use crate::flags::retrieval::RetrievalArgs;
use crate::messages::images::tell_other_orientation;
use crate::messages::pairs::{tell_damaged_codes, tell_gpu, tell_if_unreachable};

/// The pipeline, and its classifying model as one of ours.
pub(crate) struct Setup {
    pub(crate) model: Arc<NamedModel>,
    pub(crate) pipeline: Pipeline,
}

impl Setup {
    /// Opens memory and models. A remote index that cannot be reached is none, if the flags allow that.
    pub(crate) fn open(args: &RetrievalArgs, model: &QueryModelChoice) -> Result<Setup> {
        args.options().check()?;
        let if_unreachable = args.if_unreachable.into();
        let device = model.encoder.device;
        let open = |location: &str| Opened::open(location, &args.remote.options(), device, if_unreachable);
        let pairs = args.memory.as_deref().map(open).transpose()?.and_then(tell_if_unreachable);
        let open_pairs = pairs.as_deref();
        if let Some(pairs) = open_pairs {
            tell_gpu(pairs);
        }
        let classify = Arc::new(model.open_for(open_pairs.and_then(OpenPairs::identity))?);
        tell_other_orientation(&classify, open_pairs);
        let other = |name: &Option<String>| -> Result<Option<Arc<dyn Encoder>>> {
            Ok(model.open_other(name, pairs.is_some())?.map(|model| Arc::new(model) as Arc<dyn Encoder>))
        };
        let pipeline = Pipeline::builder(classify.clone())
            .search_encoder(other(&args.search_model)?)
            .rerank_encoder(other(&args.rerank_model)?)
            .rows(args.filter.rows.clone())
            .caption_filter(args.filter.caption_filter.clone())
            .pairs(pairs)
            .retrieval(args.options())
            .templates(args.templates()?)
            .caption_template(args.caption_template.clone())
            // Without a cache folder, captions that are encoded here are kept for this run only.
            .caption_store(Arc::new(CaptionStore::on_disk().unwrap_or_default()))
            .if_unreachable(if_unreachable)
            .build()?;
        Ok(Setup { model: classify, pipeline })
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
