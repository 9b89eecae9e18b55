//! A `tokenizer.json`, read by the tokenizers library.

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Encoding, PostProcessor, Token, Tokenizer as HfTokenizer};

use super::config::TokenizerConfig;
use super::{Ends, MAX_BYTES, Parts, guard, unknown_of};

/// Builds the tokenizer; what transformers' classes take from the configuration rather than from the file is taken from there.
pub(super) fn build(bytes: &[u8], config: &TokenizerConfig) -> Result<Parts, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("expected a tokenizer of at most {} MB, found more", MAX_BYTES >> 20));
    }
    refuse_prefixed_merges(bytes)?;
    let mut inner =
        guard(|| HfTokenizer::from_bytes(bytes)).map_err(|e| format!("not a usable tokenizer.json: {e}"))?;
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        // for training only: ids would differ from call to call
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        inner.with_model(ModelWrapper::BPE(bpe));
    }
    if let Some(NormalizerWrapper::BertNormalizer(own)) = inner.get_normalizer() {
        let normalizer = config.bert_normalizer(*own);
        inner.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
    }
    let ends = match config.own_ends(&inner)? {
        Some(ends) => ends,
        None => inner.get_post_processor().map_or_else(|| Ok(Ends::default()), ends_of)?,
    };
    inner.with_post_processor(None::<PostProcessorWrapper>);
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| e.to_string())?;
    let unknown = unknown_of(&inner);
    Ok(Parts::library(inner, ends, unknown))
}

/// What a post-processor puts around a text, found by one token in its place: applied to each text, it would also go over the pieces
/// that are cut off.
fn ends_of(processor: &PostProcessorWrapper) -> Result<Ends, String> {
    const TEXT: u32 = u32::MAX;
    let text = Encoding::from_tokens(vec![Token::new(TEXT, String::from("a"), (0, 1))], 0);
    let ids = guard(|| Ok(processor.process(text, None, true)?.get_ids().to_vec()))?;
    match ids.split(|&id| id == TEXT).collect::<Vec<_>>()[..] {
        [start, end] => Ok(Ends { start: start.to_vec(), end: end.to_vec() }),
        ref parts => {
            let times = parts.len().saturating_sub(1);
            Err(format!("post_processor: expected a text once in its tokens, found it {times} times"))
        }
    }
}

/// Refuses BPE with a `continuing_subword_prefix`: the library cuts it off merges unchecked, even within a character, and goes on
/// with what is no UTF-8. No tokenizer of a dual encoder has one.
fn refuse_prefixed_merges(bytes: &[u8]) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        merges: Option<serde::de::IgnoredAny>,
        continuing_subword_prefix: Option<String>,
    }
    // a file that this cannot read is left to the library, whose message says more
    match serde_json::from_slice::<File>(bytes) {
        Ok(File { model: Model { merges: Some(_), continuing_subword_prefix: Some(prefix) } })
            if !prefix.is_empty() =>
        {
            Err(format!("expected merges without `continuing_subword_prefix`, found {prefix:?}"))
        }
        _ => Ok(()),
    }
}
