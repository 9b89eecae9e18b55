//! A folder's `tokenizer.json`, read and applied by the tokenizers library.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::models::ModelWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{PostProcessor, Tokenizer as HfTokenizer, TruncationDirection};
use xmore_files::read_bounded;

use super::{Tokenizer, Tokens};
use crate::error::{ClipError, Result};

/// The largest file that is read; tokenizers of 250 000 tokens in many languages take 20 MB.
const MAX_BYTES: u64 = 64 << 20;

/// A tokenizer from a file, cut at a context length, never padded.
pub(crate) struct JsonTokenizer {
    /// All but the post-processor: it would also go over every piece that is cut off.
    inner: HfTokenizer,
    /// Adds the start and end tokens.
    processor: Option<PostProcessorWrapper>,
    context_length: usize,
    /// Tokens of the text that fit beside the start and end tokens.
    text_length: usize,
    /// The token for what is not in the vocabulary, if there is one.
    unknown: Option<u32>,
}

impl JsonTokenizer {
    /// Reads the file; `context_length` counts the start and end tokens.
    pub(crate) fn load(path: &Path, context_length: usize) -> Result<Self> {
        let bytes = read_bounded(path, MAX_BYTES).map_err(|e| ClipError::io(path, e))?;
        Self::parse(&bytes, context_length).map_err(|message| ClipError::config(path, message))
    }

    fn parse(bytes: &[u8], context_length: usize) -> Result<Self, String> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("expected a tokenizer of at most {} MB, found more", MAX_BYTES >> 20));
        }
        refuse_prefixed_merges(bytes)?;
        let mut inner = guard(|| HfTokenizer::from_bytes(bytes))
            .map_err(|e| format!("not a usable tokenizer.json: {e}"))?;
        let processor = inner.get_post_processor().cloned();
        let special = processor.as_ref().map_or(0, |processor| processor.added_tokens(false));
        let Some(text_length) = context_length.checked_sub(special).filter(|&length| length > 0) else {
            return Err(format!(
                "adds {special} tokens to each text, expected fewer than the context's {context_length}"
            ));
        };
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            // for training only: ids would differ from call to call
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(ModelWrapper::BPE(bpe));
        }
        inner.with_padding(None);
        inner.with_post_processor(None::<PostProcessorWrapper>);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        let unknown = match inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
            ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
            ModelWrapper::BPE(model) => model.unk_token.clone(),
            // It has the id alone, and not in its interface.
            ModelWrapper::Unigram(_) => Some("<unk>".to_owned()),
        };
        let unknown = unknown.and_then(|token| inner.token_to_id(&token));
        Ok(Self { inner, processor, context_length, text_length, unknown })
    }
}

impl Tokenizer for JsonTokenizer {
    fn encode(&self, text: &str) -> Result<Tokens> {
        let tokens = || {
            let mut encoding = self.inner.encode_fast(text, false)?;
            let truncated = encoding.len() > self.text_length;
            encoding.truncate(self.text_length, 0, TruncationDirection::Right);
            encoding.take_overflowing();
            let of_text = encoding.len();
            let is_unknown = |id: &&u32| Some(**id) == self.unknown;
            let unknown = encoding.get_ids().iter().filter(is_unknown).count();
            if let Some(processor) = &self.processor {
                encoding = processor.process(encoding, None, true)?;
            }
            let ids = encoding.get_ids().to_vec();
            if ids.len() > self.context_length {
                return Err(
                    format!("gave {} tokens, expected at most {}", ids.len(), self.context_length).into()
                );
            }
            let special = ids.len().saturating_sub(of_text);
            Ok(Tokens { ids, truncated, special, unknown })
        };
        guard(tokens)
            .map_err(|message| ClipError::Tokenize { text: text.chars().take(40).collect(), message })
    }
}

/// Refuses BPE with a `continuing_subword_prefix`: the library cuts it off merges unchecked, even within a character, and goes on
/// with what is no UTF-8. No tokenizer of a dual encoder has one.
fn refuse_prefixed_merges(bytes: &[u8]) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Parts {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        merges: Option<serde::de::IgnoredAny>,
        continuing_subword_prefix: Option<String>,
    }
    // a file that this cannot read is left to the library, whose message says more
    match serde_json::from_slice::<Parts>(bytes) {
        Ok(Parts { model: Model { merges: Some(_), continuing_subword_prefix: Some(prefix) } })
            if !prefix.is_empty() =>
        {
            Err(format!("expected merges without `continuing_subword_prefix`, found {prefix:?}"))
        }
        _ => Ok(()),
    }
}

/// Runs a call into the library, whose panics over malformed files become errors.
fn guard<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("the tokenizers library panicked: {message}"))
        }
    }
}

/// The ids of a text by a `tokenizer.json` in memory, start and end tokens included, cut at `context_length`.
///
/// # Errors
/// [`ClipError::Config`] for a file that is none, [`ClipError::Tokenize`] for a text that it cannot take.
#[doc(hidden)]
pub fn encode_with_json(json: &[u8], text: &str, context_length: usize) -> Result<(Vec<u32>, bool)> {
    let tokenizer = JsonTokenizer::parse(json, context_length)
        .map_err(|message| ClipError::config(Path::new("tokenizer.json"), message))?;
    let tokens = tokenizer.encode(text)?;
    Ok((tokens.ids, tokens.truncated))
}
